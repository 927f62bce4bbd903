"""The writer of GUID partition tables: from the facts to the bytes of protective MBR, primary and backup.

Bytes only, nothing is written. UEFI specification 2.10, sections 5.2.3 and 5.3.
"""

import zlib
from uuid import UUID

import msgspec

from core.units import align_up, to_bytes
from images.model.layout import Partition, PartitionTable
from images.tables import c_dos, c_gpt
from images.tables.claims import kept_bytes, refuse, refuse_impossible
from images.tables.piece import TablePiece

#: What the specification says of the protective entry's geometry, as libfdisk writes it on every disk.
_PROTECTIVE_CHS = (b"\x00\x02\x00", b"\xff\xff\xff")


class Places(msgspec.Struct, frozen=True):
    """Where the parts of a GPT lie, in sectors. ``array``: sectors of one copy of the entries."""

    array: int
    primary_entries: int
    backup_entries: int
    backup: int


def array_sectors(table: PartitionTable, sector_size: int) -> int:
    """Sectors that one copy of the entries takes."""
    return align_up(table.entry_count * table.entry_size, sector_size) // sector_size


def places_of(table: PartitionTable, size: int, sector_size: int) -> Places:
    """Where everything lies on a disk of ``size`` bytes: the backup in its last sectors.

    Raises:
        RefusedError: the entries have a number or size that no GPT has, or no place on the disk.
    """
    if table.entry_size < c_gpt.ENTRY_SIZE or table.entry_size % 8 or table.entry_size > 4096:
        refuse(f"GPT entries of {table.entry_size} bytes; expected 128 to 4096, a multiple of 8")
    if not 0 < table.entry_count * table.entry_size <= c_gpt.MAX_ENTRIES_SIZE:
        refuse(f"{table.entry_count} GPT entries; expected at most {c_gpt.MAX_ENTRIES_SIZE} bytes of them")
    array = array_sectors(table, sector_size)
    backup = size // sector_size - 1
    if table.entries_lba < 2 or table.entries_lba + array > backup - array:
        refuse(f"{array} sectors of GPT entries at LBA {table.entries_lba} have no place on a disk of {backup + 1}")
    return Places(array, table.entries_lba, backup - array, backup)


def gpt_pieces(table: PartitionTable, size: int, sector_size: int) -> tuple[TablePiece, ...]:
    """The bytes of a GPT on a disk of ``size`` bytes, in the order of their places.

    Boot code is no part of it; headers and arrays fill their sectors.

    Raises:
        RefusedError: the table contradicts itself or the disk.
    """
    places = places_of(table, size, sector_size)
    _refuse_impossible(table, places, size, sector_size)
    entries = _entries(table)
    header = c_gpt.Header(
        signature=c_gpt.SIGNATURE,
        revision=c_gpt.REVISION,
        header_size=c_gpt.HEADER_SIZE,
        header_crc=0,
        reserved=0,
        my_lba=1,
        alternate_lba=places.backup,
        first_usable_lba=table.first_usable_lba,
        last_usable_lba=table.last_usable_lba,
        disk_guid=_guid(table.identifier, "the disk's GUID"),
        entries_lba=places.primary_entries,
        entry_count=table.entry_count,
        entry_size=table.entry_size,
        entries_crc=0,
    )
    backup = msgspec.structs.replace(header, my_lba=places.backup, alternate_lba=1, entries_lba=places.backup_entries)
    return (
        TablePiece(c_dos.BOOT_CODE_SIZE, _mbr(table, size, sector_size)),
        *copy_pieces(header, entries, sector_size),
        *reversed(copy_pieces(backup, entries, sector_size)),
    )


def copy_pieces(header: c_gpt.Header, entries: bytes, sector_size: int) -> tuple[TablePiece, TablePiece]:
    """One copy: the header where it says it lies, and its entries. Checksums are computed."""
    sealed = msgspec.structs.replace(header, entries_crc=zlib.crc32(entries))
    padded = entries + bytes(-len(entries) % sector_size)
    return (
        TablePiece(to_bytes(header.my_lba, sector_size), c_gpt.pack_header(sealed).ljust(sector_size, b"\0")),
        TablePiece(to_bytes(header.entries_lba, sector_size), padded),
    )


def protective_tail(sectors: int) -> bytes:
    """Bytes 440 to 511 of the LBA 0 that a GPT disk usually has."""
    count = min(sectors - 1, c_dos.LBA_LIMIT - 1)
    entry = c_dos.Entry(0, _PROTECTIVE_CHS[0], c_dos.PROTECTIVE_TYPE, _PROTECTIVE_CHS[1], 1, count)
    unsigned = bytes(c_dos.TABLE_OFFSET - c_dos.BOOT_CODE_SIZE)
    return unsigned + c_dos.pack_entry(entry) + bytes(3 * c_dos.ENTRY_SIZE) + c_dos.MARK


def _mbr(table: PartitionTable, size: int, sector_size: int) -> bytes:
    if not table.mbr:
        return protective_tail(size // sector_size)
    tail = kept_bytes(table.mbr, c_dos.TAIL_SIZE, "mbr")
    entries = c_dos.parse_entries(bytes(c_dos.BOOT_CODE_SIZE) + tail)
    if tail[-2:] != c_dos.MARK or all(entry.type != c_dos.PROTECTIVE_TYPE for entry in entries):
        refuse("mbr: expected an entry of type 0xee and the mark 55aa, without which a GPT does not count")
    return tail


def _refuse_impossible(table: PartitionTable, places: Places, size: int, sector_size: int) -> None:
    refuse_impossible(table, size, sector_size)
    taken = places.primary_entries, places.primary_entries + places.array
    for part in table.partitions:
        if part.number > table.entry_count:
            refuse(f"partition {part.number} is beyond the table's {table.entry_count} entries")
        if part.start_lba < 2 or (part.start_lba < taken[1] and taken[0] < part.end_lba):
            refuse(f"partition {part.number} starts at LBA {part.start_lba}, where the table itself lies")
        if part.end_lba > places.backup_entries:
            refuse(
                f"partition {part.number} ends behind LBA {places.backup_entries - 1}, where the backup table begins"
            )
        if part.uuid is None or _guid(part.type, f"the type of partition {part.number}") == c_gpt.UNUSED_TYPE:
            refuse(f"partition {part.number} has no GUID, or a type that means unused")
        if not 0 <= part.attributes < 1 << 64:
            refuse(f"partition {part.number} has attributes {part.attributes:#x}, more than 64 bits")
    if not 0 <= table.first_usable_lba <= table.last_usable_lba + 1 <= places.backup_entries:
        refuse(
            f"usable LBAs {table.first_usable_lba} to {table.last_usable_lba}; "
            f"expected a range that ends before LBA {places.backup_entries}, where the backup table begins"
        )


def _guid(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        refuse(f"{what} is {text!r}, which is no GUID")


def _entries(table: PartitionTable) -> bytes:
    array = bytearray(table.entry_count * table.entry_size)
    for part in table.partitions:
        at = (part.number - 1) * table.entry_size
        array[at : at + c_gpt.ENTRY_SIZE] = _entry(part)
    return bytes(array)


def _entry(part: Partition) -> bytes:
    name = c_gpt.encode_name(part.name)
    if part.name_utf16:
        name = kept_bytes(part.name_utf16, c_gpt.NAME_SIZE, f"the name of partition {part.number}")
    if name is None:
        refuse(f"the name of partition {part.number} has more than 36 UTF-16 units: {part.name}")
    assert part.uuid is not None
    return c_gpt.pack_entry(
        c_gpt.Entry(UUID(part.type), part.uuid, part.start_lba, part.end_lba - 1, part.attributes, name)
    )
