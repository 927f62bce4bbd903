"""The writer of dos partition tables: from the facts to the bytes of LBA 0 and of the logical partitions' boot records.

Bytes only, nothing is written. What the document keeps of the source's own bytes (``mbr``, ``records``) is used for
every entry that still says the same; the rest gets the usual places of its fields.
"""

import msgspec

from core.errors import DamagedError, DeviceError
from core.units import to_bytes
from images.model.layout import BootRecord, Partition, PartitionRole, PartitionTable
from images.tables import c_dos
from images.tables.boot_records import MAX_LOGICAL, read_chain
from images.tables.claims import kept_bytes, refuse, refuse_impossible
from images.tables.piece import TablePiece

_EXTENDED_LINK = 0x05
#: Entries of LBA 0; logical partitions are numbered behind them.
PRIMARIES = 4


def dos_pieces(table: PartitionTable, size: int, sector_size: int) -> tuple[TablePiece, ...]:
    """The bytes of a dos table on a disk of ``size`` bytes: the end of LBA 0, then the chains of boot records.

    Boot code is no part of it. Each boot record fills its sector.

    Raises:
        RefusedError: the table contradicts itself or the disk, or a logical partition leaves no place for its record.
    """
    _refuse_impossible(table, size, sector_size)
    pieces = [TablePiece(c_dos.BOOT_CODE_SIZE, _tail(table))]
    for extended in table.partitions:
        if extended.role is PartitionRole.EXTENDED:
            inside = _inside(table, extended)
            kept = _kept_chain(table.records, extended, inside, sector_size)
            pieces += kept or _chain(extended, inside, sector_size)
    return tuple(pieces)


def _refuse_impossible(table: PartitionTable, size: int, sector_size: int) -> None:
    refuse_impossible(table, size, sector_size)
    logical = 0
    for part in table.partitions:
        kind = _type(part)
        if (part.role is PartitionRole.EXTENDED) is not (kind in c_dos.EXTENDED_TYPES):
            refuse(f"partition {part.number} has type {part.type} and is {part.role}")
        if kind == c_dos.PROTECTIVE_TYPE:
            refuse(f"partition {part.number} has type {part.type}, which would make the disk a GPT disk")
        if not 0 < kind < 0x100 or part.start_lba >= c_dos.LBA_LIMIT or part.sector_count >= c_dos.LBA_LIMIT:
            refuse(
                f"partition {part.number} (type {part.type}, {part.sector_count} sectors from {part.start_lba}) "
                "does not fit the numbers of a dos table"
            )
        if part.role is PartitionRole.LOGICAL:
            logical += 1
            if part.number != PRIMARIES + logical or logical > MAX_LOGICAL:
                refuse(f"the logical partitions are not numbered from 5 without a gap: {part.number}")
        elif part.number > PRIMARIES:
            refuse(f"partition {part.number} is not logical, and a dos table has {PRIMARIES} others")
    if sum(len(_inside(table, part)) for part in table.partitions if part.role is PartitionRole.EXTENDED) != logical:
        refuse("a logical partition lies outside the extended one")


def _type(part: Partition) -> int:
    try:
        return int(part.type, 16)
    except ValueError:
        refuse(f"partition {part.number} has type {part.type!r}, which is no number")


def _inside(table: PartitionTable, extended: Partition) -> list[Partition]:
    """The logical partitions of one extended one, in the order of their chain."""
    return sorted(
        (
            part
            for part in table.partitions
            if part.role is PartitionRole.LOGICAL
            and extended.start_lba < part.start_lba
            and part.end_lba <= extended.end_lba
        ),
        key=lambda part: part.number,
    )


def _tail(table: PartitionTable) -> bytes:
    """Bytes 440 to 511 of LBA 0."""
    tail = bytearray(kept_bytes(table.mbr, c_dos.TAIL_SIZE, "mbr") if table.mbr else bytes(c_dos.TAIL_SIZE))
    tail[-2:] = c_dos.MARK
    try:
        tail[:4] = int(table.identifier, 16).to_bytes(4, "little")
    except (ValueError, OverflowError):
        refuse(f"{table.identifier!r} is no disk signature")
    old = c_dos.parse_entries(bytes(c_dos.BOOT_CODE_SIZE) + bytes(tail))
    parts = {part.number: part for part in table.partitions}
    for index, entry in enumerate(old):
        wanted = _entry(parts[index + 1]) if index + 1 in parts else c_dos.EMPTY
        if not (_same(entry, wanted) or (not entry.used and index + 1 not in parts)):
            at = c_dos.entry_offset(index) - c_dos.BOOT_CODE_SIZE
            tail[at : at + c_dos.ENTRY_SIZE] = c_dos.pack_entry(wanted)
    return bytes(tail)


def _entry(part: Partition, place: int = 0) -> c_dos.Entry:
    return c_dos.entry_at(part.start_lba, part.sector_count, _type(part), relative_to=place, active=part.active)


def _same(one: c_dos.Entry, other: c_dos.Entry) -> bool:
    """Whether two entries say the same, but for places in the old geometry."""
    return (one.status, one.type, one.start, one.count) == (other.status, other.type, other.start, other.count)


def _kept_chain(
    records: tuple[BootRecord, ...], extended: Partition, logical: list[Partition], sector_size: int
) -> list[TablePiece]:
    """The source's own records, when they still describe exactly these partitions; else nothing."""
    own = {
        record.lba: kept_bytes(record.content, c_dos.RECORD_SIZE, f"records: LBA {record.lba}")
        for record in records[:MAX_LOGICAL]
        if extended.start_lba <= record.lba < extended.end_lba
    }
    if not own or any(part.start_lba <= lba < part.end_lba for lba in own for part in logical):
        return []
    try:
        found = read_chain(_Records(own, sector_size), extended, logical[0].number if logical else 5)
    except (DamagedError, DeviceError):
        return []
    if [_facts(part) for part in found.partitions] != [_facts(part) for part in logical]:
        return []
    linked = {record.lba for record in found.records}
    return [
        TablePiece(to_bytes(lba, sector_size), content.ljust(sector_size, b"\0"))
        for lba, content in own.items()
        if lba in linked
    ]


def _facts(part: Partition) -> tuple[int, int, int, int, bool]:
    return part.number, part.start_lba, part.sector_count, _type(part), part.active


class _Records:
    """Boot records by LBA as a source to read a chain from."""

    def __init__(self, records: dict[int, bytes], sector_size: int) -> None:
        self._records = records
        self.sector_size = sector_size
        self.size = to_bytes(c_dos.LBA_LIMIT, sector_size)

    def read_at(self, offset: int, length: int) -> bytes:
        content = self._records.get(offset // self.sector_size)
        if content is None or length != c_dos.RECORD_SIZE or offset % self.sector_size:
            raise DeviceError(f"no boot record is kept of byte {offset}")
        return content


class _Link(msgspec.Struct, frozen=True):
    """A record at LBA ``place`` for one partition."""

    place: int
    partition: Partition


def _chain(extended: Partition, logical: list[Partition], sector_size: int) -> list[TablePiece]:
    """A record in front of each partition, the first where the extended one begins."""
    if not logical:
        return [_record(extended, extended.start_lba, None, None, sector_size)]
    places = [extended.start_lba, *(_place(extended, logical, part) for part in logical[1:])]
    links = [_Link(place, part) for place, part in zip(places, logical, strict=True)]
    return [
        _record(extended, link.place, link.partition, following, sector_size)
        for link, following in zip(links, [*links[1:], None], strict=True)
    ]


def _place(extended: Partition, logical: list[Partition], part: Partition) -> int:
    """Where a record fits before its partition: as far before it as the first one, or right behind what is there."""
    ends = [other.end_lba for other in logical if other.end_lba <= part.start_lba]
    # LBA ``extended.start_lba`` holds the record of the first partition in the chain.
    floor = max([extended.start_lba + 1, *ends])
    usual = part.start_lba - (logical[0].start_lba - extended.start_lba)
    place = max(usual, floor)
    if place >= part.start_lba:
        refuse(
            f"partition {part.number} starts at LBA {part.start_lba}, with no sector before it "
            f"for its boot record (free from {floor})"
        )
    return place


def _record(
    extended: Partition, place: int, part: Partition | None, following: _Link | None, sector_size: int
) -> TablePiece:
    record = bytearray(sector_size)
    if part is not None:
        at = c_dos.entry_offset(0)
        record[at : at + c_dos.ENTRY_SIZE] = c_dos.pack_entry(_entry(part, place))
    if following is not None:
        at = c_dos.entry_offset(1)
        count = following.partition.end_lba - following.place
        link = c_dos.entry_at(following.place, count, _EXTENDED_LINK, relative_to=extended.start_lba)
        record[at : at + c_dos.ENTRY_SIZE] = c_dos.pack_entry(link)
    record[c_dos.MARK_OFFSET : c_dos.RECORD_SIZE] = c_dos.MARK
    return TablePiece(to_bytes(place, sector_size), bytes(record))
