"""The parts of a partition table that an image does not keep raw, made again as bytes.

Those are the backup GPT at the end of the disk, a copy of the primary one, and the boot records in front of logical
partitions. Nothing is written here: the pieces are data for whoever writes the disk.

UEFI specification 2.10, section 5.3; boot records: kernel, block/partitions/msdos.c.
"""

import struct
import zlib
from uuid import UUID

import msgspec

from core.errors import DamagedError
from core.units import to_bytes
from images.model.extents import Extent
from images.model.layout import Disk, Partition, PartitionRole, PartitionTable, TableKind
from images.sources import BlockSource
from images.tables import c_gpt
from images.tables.gpt import MAX_ENTRIES_SIZE

_HEADER = struct.Struct("<8s4sIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_REVISION = b"\x00\x00\x01\x00"
_RECORD_ENTRY = struct.Struct("<B3sB3sII")
#: The geometry that everybody has counted cylinders by since disks had none; places behind it have one spelling.
_HEADS, _TRACK = 255, 63
_FAR = b"\xfe\xff\xff"
_EXTENDED_LINK = 0x05


class TablePiece(msgspec.Struct, frozen=True):
    """Bytes of a table and where on the disk they belong."""

    offset: int
    data: bytes


def missing_pieces(source: BlockSource, disk: Disk, notes: list[str]) -> tuple[TablePiece, ...]:
    """What of the disk's table lies outside its head.

    Args:
        source: the disk as the image has it; its head is read.
        notes: takes a sentence for what cannot be made as it was.

    Raises:
        DamagedError: the head cannot be read, or a logical partition leaves no place for its boot record.
    """
    if disk.table is None:
        return ()
    if disk.table.kind is TableKind.DOS:
        return _boot_records(disk, disk.table)
    return _backup_gpt(source, disk, disk.table, notes)


def _backup_gpt(source: BlockSource, disk: Disk, table: PartitionTable, notes: list[str]) -> tuple[TablePiece, ...]:
    """Array and header of the backup, where the primary header says it lies."""
    size = disk.sector_size
    primary = _primary(source, size)
    pieces: tuple[TablePiece, ...] = ()
    if primary is None:
        notes.append("the primary GPT in the image cannot be believed: both copies are made from the layout")
        header, entries = _from_layout(disk, table)
        pieces = _copy(header, entries, size, at=1, other=header.alternate_lba, array=2)
    else:
        header, entries = primary
    sectors = -(-len(entries) // size)
    array = header.alternate_lba - sectors
    last_used = max((partition.end_lba for partition in table.partitions), default=0)
    if not last_used <= array or header.alternate_lba >= disk.size // size:
        notes.append(f"the backup GPT has no place at LBA {header.alternate_lba} and is left out")
        return pieces
    return pieces + _copy(header, entries, size, at=header.alternate_lba, other=1, array=array)


def _primary(source: BlockSource, size: int) -> tuple[c_gpt.Header, bytes] | None:
    """Header and entries in the head of the disk, or None when a checksum does not fit."""
    sector = source.read_at(size, size)
    header = c_gpt.parse_header(sector)
    length = header.entry_count * header.entry_size
    if header.signature != c_gpt.SIGNATURE or not c_gpt.HEADER_SIZE <= header.header_size <= size:
        return None
    covered = bytearray(sector[: header.header_size])
    struct.pack_into("<I", covered, c_gpt.HEADER_CRC_OFFSET, 0)
    offset = header.entries_lba * size
    if zlib.crc32(covered) != header.header_crc or not 0 < length <= MAX_ENTRIES_SIZE or offset + length > source.size:
        return None
    entries = source.read_at(offset, length)
    return (header, entries) if zlib.crc32(entries) == header.entries_crc else None


def _from_layout(disk: Disk, table: PartitionTable) -> tuple[c_gpt.Header, bytes]:
    """The same made of what the layout says."""
    array = bytearray(table.entry_count * c_gpt.ENTRY_SIZE)
    for partition in table.partitions:
        name = partition.name.encode("utf-16-le", "surrogatepass")[:72]
        unique = (partition.uuid or UUID(int=0)).bytes_le
        _ENTRY.pack_into(
            array,
            (partition.number - 1) * c_gpt.ENTRY_SIZE,
            UUID(partition.type).bytes_le,
            unique,
            partition.start_lba,
            partition.end_lba - 1,
            partition.attributes,
            name,
        )
    header = c_gpt.Header(
        signature=c_gpt.SIGNATURE,
        revision=_REVISION,
        header_size=c_gpt.HEADER_SIZE,
        header_crc=0,
        reserved=0,
        my_lba=1,
        alternate_lba=disk.size // disk.sector_size - 1,
        first_usable_lba=table.first_usable_lba,
        last_usable_lba=table.last_usable_lba,
        disk_guid=UUID(table.identifier),
        entries_lba=2,
        entry_count=table.entry_count,
        entry_size=c_gpt.ENTRY_SIZE,
        entries_crc=0,
    )
    return header, bytes(array)


def _copy(
    header: c_gpt.Header, entries: bytes, sector_size: int, *, at: int, other: int, array: int
) -> tuple[TablePiece, ...]:
    """One copy of a GPT: its array of entries at LBA ``array`` and its header at LBA ``at``."""

    def packed(checksum: int) -> bytes:
        return _HEADER.pack(
            header.signature,
            header.revision,
            c_gpt.HEADER_SIZE,
            checksum,
            header.reserved,
            at,
            other,
            header.first_usable_lba,
            header.last_usable_lba,
            header.disk_guid.bytes_le,
            array,
            header.entry_count,
            header.entry_size,
            zlib.crc32(entries),
        )

    sector = packed(zlib.crc32(packed(0))).ljust(sector_size, b"\0")
    padded = entries + bytes(-len(entries) % sector_size)
    return (
        TablePiece(to_bytes(array, sector_size), padded),
        TablePiece(to_bytes(at, sector_size), sector),
    )


def _boot_records(disk: Disk, table: PartitionTable) -> tuple[TablePiece, ...]:
    """The chain through the logical partitions: a record in front of each, the first where the extended one begins."""
    pieces: list[TablePiece] = []
    for extended in table.partitions:
        if extended.role is not PartitionRole.EXTENDED:
            continue
        inside = [
            partition
            for partition in table.partitions
            if partition.role is PartitionRole.LOGICAL and extended.start_lba <= partition.start_lba < extended.end_lba
        ]
        pieces += _chain(disk, extended, sorted(inside, key=lambda partition: partition.number))
    return tuple(pieces)


def _chain(disk: Disk, extended: Partition, logical: list[Partition]) -> list[TablePiece]:
    if not logical:
        return [_record(disk, extended.start_lba, None, None, extended)]
    places = [extended.start_lba, *(_place(disk, extended, logical, partition) for partition in logical[1:])]
    following = [*zip(places[1:], logical[1:], strict=True), None]
    return [
        _record(disk, place, partition, link, extended)
        for place, partition, link in zip(places, logical, following, strict=True)
    ]


def _place(disk: Disk, extended: Partition, logical: list[Partition], partition: Partition) -> int:
    """Where a record fits before its partition: as far before it as the first one, or right behind what is there."""
    ends = [other.end_lba for other in logical if other.end_lba <= partition.start_lba]
    # LBA ``extended.start_lba`` holds the record of the first partition in the chain.
    floor = max([extended.start_lba + 1, *ends])
    usual = partition.start_lba - (logical[0].start_lba - extended.start_lba)
    place = max(usual, floor)
    if place >= partition.start_lba or logical[0].start_lba <= extended.start_lba:
        raise DamagedError(
            f"{disk.id}: partition {partition.number} starts at LBA {partition.start_lba}, with no sector before it "
            f"for its boot record (free from {floor})."
        )
    return place


def _record(
    disk: Disk, place: int, partition: Partition | None, link: tuple[int, Partition] | None, extended: Partition
) -> TablePiece:
    sector = bytearray(disk.sector_size)
    if partition is not None:
        status = 0x80 if partition.active else 0
        start = partition.start_lba - place
        kind = int(partition.type, 16)
        ends = _chs(partition.start_lba), _chs(partition.end_lba - 1)
        _RECORD_ENTRY.pack_into(sector, 446, status, ends[0], kind, ends[1], start, partition.sector_count)
    if link is not None:
        at, following = link
        count = following.end_lba - at
        ends = _chs(at), _chs(following.end_lba - 1)
        _RECORD_ENTRY.pack_into(sector, 462, 0, ends[0], _EXTENDED_LINK, ends[1], at - extended.start_lba, count)
    sector[510:512] = b"\x55\xaa"
    return TablePiece(to_bytes(place, disk.sector_size), bytes(sector))


def _chs(lba: int) -> bytes:
    """Head, sector with the high bits of the cylinder, and cylinder of a place; nobody has read them for long."""
    cylinder, rest = divmod(lba, _HEADS * _TRACK)
    if cylinder > 1023:
        return _FAR
    return bytes((rest // _TRACK, rest % _TRACK + 1 | cylinder >> 2 & 0xC0, cylinder & 0xFF))


def extents_of(pieces: tuple[TablePiece, ...]) -> tuple[Extent, ...]:
    """Where the pieces lie, sorted."""
    return tuple(sorted(Extent(piece.offset, piece.offset + len(piece.data)) for piece in pieces))
