"""What a table keeps of the source's own records, made true for the target: hybrid MBR and chains of boot records.

A hybrid MBR names partitions by their places, a protective entry the end of the disk: both follow when the plan
changes them. Pure arithmetic on the table; the bytes are made by ``images.tables``.
"""

import msgspec

from images.model.layout import Disk, Partition, PartitionRole, PartitionTable, TableKind
from images.tables import c_dos


class CarriedTable(msgspec.Struct, frozen=True):
    """A table with its records, and what could not be carried along."""

    table: PartitionTable
    notes: tuple[str, ...] = ()


def is_hybrid(mbr: str) -> bool:
    """Whether the kept end of LBA 0 has entries beside protective ones."""
    return any(entry.used and entry.type != c_dos.PROTECTIVE_TYPE for entry in _entries(mbr))


def carry_records(disk: Disk, table: PartitionTable, size: int, sector_size: int) -> CarriedTable:
    """The fitted ``table`` with the records of ``disk``, corrected for a target of ``size`` bytes.

    Partitions of both are matched by their ids. Records of a table that is now of another kind or in other sectors
    are gone.
    """
    source = disk.table
    if source is None or (source.kind, disk.sector_size) != (table.kind, sector_size):
        bare = msgspec.structs.replace(table, mbr="", records=())
        lost = source is not None and source.kind is TableKind.GPT and bool(source.mbr) and is_hybrid(source.mbr)
        return CarriedTable(bare, ("The hybrid MBR is not kept: it would have other places in it.",) if lost else ())
    if table.kind is TableKind.DOS:
        same = _chains(source) == _chains(table)
        return CarriedTable(msgspec.structs.replace(table, records=source.records if same else ()))
    if not source.mbr:
        return CarriedTable(table)
    return _carry_mbr(source, table, disk.size // sector_size, size // sector_size)


def _chains(table: PartitionTable) -> list[tuple[int, int, int]]:
    """What the boot records of a dos table depend on."""
    chained = (PartitionRole.EXTENDED, PartitionRole.LOGICAL)
    return sorted((part.number, part.start_lba, part.sector_count) for part in table.partitions if part.role in chained)


def _entries(mbr: str) -> list[c_dos.Entry]:
    return c_dos.parse_entries(bytes(c_dos.BOOT_CODE_SIZE) + bytes.fromhex(mbr)) if mbr else []


def _carry_mbr(source: PartitionTable, table: PartitionTable, old_end: int, new_end: int) -> CarriedTable:
    """``old_end``, ``new_end``: sectors of the source and of the target."""
    notes: list[str] = []
    tail = bytearray.fromhex(source.mbr)
    for index, entry in enumerate(_entries(source.mbr)):
        moved = _carry_entry(entry, source, table, old_end, new_end)
        if moved is None:
            notes.append(
                f"Entry {index + 1} of the hybrid MBR (type 0x{entry.type:02x}, {entry.count} sectors from "
                f"{entry.start}) is left out: its partition is not where a dos table could name it."
            )
        at = c_dos.entry_offset(index) - c_dos.BOOT_CODE_SIZE
        tail[at : at + c_dos.ENTRY_SIZE] = c_dos.pack_entry(moved or c_dos.EMPTY)
    return CarriedTable(msgspec.structs.replace(table, mbr=tail.hex()), tuple(notes))


def _carry_entry(
    entry: c_dos.Entry, source: PartitionTable, table: PartitionTable, old_end: int, new_end: int
) -> c_dos.Entry | None:
    """One entry of a hybrid or protective MBR on the target; None when it has no place there."""
    if not entry.used:
        return entry
    made = {part.id: part for part in table.partitions}
    if entry.type == c_dos.PROTECTIVE_TYPE:
        return _carry_protective(entry, source, made, old_end, new_end)
    named = next((part for part in source.partitions if part.start_lba == entry.start), None)
    if named is None:
        return entry if entry.start + entry.count <= new_end else None
    part = made.get(named.id)
    if part is None:
        return None
    if (part.start_lba, part.sector_count) == (named.start_lba, named.sector_count):
        return entry
    if part.end_lba > c_dos.LBA_LIMIT or entry.count != named.sector_count:
        return None
    active = entry.status == c_dos.ACTIVE
    return c_dos.entry_at(part.start_lba, part.sector_count, entry.type, active=active)


def _carry_protective(
    entry: c_dos.Entry, source: PartitionTable, made: dict[str, Partition], old_end: int, new_end: int
) -> c_dos.Entry | None:
    """A protective entry that reached to the end of the disk, or to a partition, still does."""
    end = entry.start + entry.count
    following = next((part for part in source.partitions if part.start_lba == end), None)
    count = entry.count
    if count == c_dos.LBA_LIMIT - 1:
        return entry
    if end >= old_end:
        count = min(new_end - entry.start, c_dos.LBA_LIMIT - 1)
    elif following is not None and following.id in made:
        count = made[following.id].start_lba - entry.start
    elif end > new_end:
        count = new_end - entry.start
    if count < 1:
        return None
    return entry if count == entry.count else msgspec.structs.replace(entry, count=count)
