"""Where everything lies on a stick: the ISO, the partition behind it that holds data, and the table that names both.

Arithmetic only, nothing is read but the ISO's own table and nothing is written. The ISO's bytes stay what they are
(boot loaders find their files by LBA); what changes is its table: the backup goes to the end of the stick, and a
partition for data is added.
"""

from collections.abc import Iterator
from uuid import UUID

import msgspec

from core.errors import DamagedError, RefusedError
from core.units import GIB, MIB, align_down, align_up, format_size, to_bytes, to_sectors
from images.model.extents import Extent
from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind
from images.sources import BlockSource
from images.tables import c_dos
from images.tables.gpt import has_primary_header, has_protective_mbr, read_gpt
from images.tables.gpt_bytes import array_sectors, gpt_pieces

#: The name, in the partition table, by which a stick's data partition is known again.
DATA_NAME = "LIFERAFT-DATA"
#: Sector size of a hybrid ISO: its table and its EFI image are made for it.
SECTOR = 512
#: Less is not worth a partition.
LEAST_DATA = 64 * MIB
#: What is left for the ISO in front of the data, so that newer and larger ones fit later.
AREA = GIB

_BASIC_DATA = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
_LINUX_DATA = "0fc63daf-8483-4772-8e79-3d69d8477de4"
#: How xorriso names what it declares only so that no range of the image is without a partition.
_GAP = "Gap"


class NotKeptError(RefusedError):
    """A partition for data that was to stay is not there, or cannot stay."""


class StickLayout(msgspec.Struct, frozen=True, kw_only=True):
    """A stick as it will be.

    Attributes:
        size: bytes of the stick. iso: bytes of the ISO, which lies at its start.
        table: the partition table; None for an image that has none, which is written as it is.
        data: the partition for data; None where there is none.
        kept: whether ``data`` is there already and is left alone.
    """

    size: int
    iso: int
    table: PartitionTable | None
    data: Partition | None = None
    kept: bool = False


def iso_table(iso: BlockSource) -> PartitionTable | None:
    """The GPT of a hybrid ISO; None when it has none.

    Raises:
        DamagedError: it has one that cannot be believed.
    """
    if iso.size < 2 * SECTOR or not (has_primary_header(iso) and has_protective_mbr(iso.read_at(0, SECTOR))):
        return None
    return read_gpt(iso)


def stick_table(stick: BlockSource) -> PartitionTable | None:
    """The GPT that a stick has now, by its backup where the primary is gone; None when it has none.

    The mark in LBA 0 does not count: it goes first when a stick is written, and comes last.
    """
    try:
        return read_gpt(stick)
    except DamagedError:
        return None


def table_of_iso(stick: PartitionTable, iso: int) -> PartitionTable:
    """What of a stick's table is the ISO's, of so many bytes, for another stick: neither its partition for data nor
    what somebody has made beside it."""
    ends = to_sectors(iso, SECTOR)
    return msgspec.structs.replace(
        stick, partitions=tuple(part for part in stick.partitions if part.end_lba <= ends), notes=()
    )


def plain_layout(iso: int, table: PartitionTable | None, size: int) -> StickLayout:
    """The ISO alone.

    Args:
        iso, size: bytes of the ISO and of the stick. table: the ISO's own.

    Raises:
        RefusedError: it does not fit.
    """
    if table is None:
        _refuse_too_small(iso, size)
        return StickLayout(size=size, iso=iso, table=None)
    _refuse_too_small(iso + _end_size(table), size)
    return StickLayout(size=size, iso=iso, table=_moved(table, table.partitions, size))


def layout_with_data(iso: int, table: PartitionTable, size: int, unique: UUID, *, linux: bool) -> StickLayout:
    """The ISO, and a new partition that fills the rest.

    Args:
        unique: the new partition's GUID. linux: it will hold a filesystem of Linux.

    Raises:
        RefusedError: there is not enough room.
    """
    start = data_start(iso)
    end = align_down(size - _end_size(table), MIB)
    if end < start + LEAST_DATA:
        least = start + LEAST_DATA + align_up(_end_size(table), MIB)
        raise RefusedError(
            f"The stick has {format_size(size)}; with a partition for data it needs at least {format_size(least)}.",
            hint=f"The data begins at {format_size(start)}, which leaves room for newer ISOs. Take a larger stick.",
        )
    number = max(part.number for part in _lasting(table)) + 1
    part = Partition(
        id=f"part{number}",
        number=number,
        start_lba=to_sectors(start, SECTOR),
        sector_count=to_sectors(end - start, SECTOR),
        type=_LINUX_DATA if linux else _BASIC_DATA,
        role=PartitionRole.PRIMARY,
        uuid=unique,
        name=DATA_NAME,
    )
    return StickLayout(size=size, iso=iso, table=_moved(table, (*_lasting(table), part), size), data=part)


def layout_keeping(iso: int, table: PartitionTable, stick: PartitionTable, size: int) -> StickLayout:
    """Another ISO in front of a data partition that is there.

    Args:
        table: the new ISO's own. stick: the one on the stick now.

    Raises:
        NotKeptError: the stick has no such partition, or the ISO does not end before it.
    """
    found = [part for part in stick.partitions if part.name == DATA_NAME]
    if len(found) != 1 or stick.kind is not TableKind.GPT:
        raise NotKeptError(
            f"The stick has {len(found) or 'no'} partitions named {DATA_NAME}, expected one: what is to be kept?",
            hint="Only a partition for data that liferaft has made can be kept. Copy the data away and have a new one "
            "made.",
        )
    data = found[0]
    start = to_bytes(data.start_lba, SECTOR)
    if align_up(max(iso, MIB), 4096) > start:
        raise NotKeptError(
            f"The ISO has {format_size(iso)}, and the data on the stick begins at {format_size(start)}.",
            hint="Copy the data away and have a new partition made for it, or use a smaller ISO.",
        )
    number = max(data.number, max(part.number for part in _lasting(table)) + 1)
    data = msgspec.structs.replace(data, id=f"part{number}", number=number)
    made = _moved(table, (*_lasting(table), data), size)
    if data.end_lba > made.last_usable_lba + 1:
        raise NotKeptError(
            f"The data partition ends at LBA {data.end_lba}, behind {made.last_usable_lba + 1}, where the ISO's table "
            "has to lie.",
            hint="Copy the data away and have a new partition made for it.",
        )
    return StickLayout(size=size, iso=iso, table=made, data=data, kept=True)


def interim_table(layout: StickLayout) -> PartitionTable | None:
    """What names the kept data while the ISO is being written: it alone, and nothing that starts. None: nothing."""
    if layout.table is None or layout.data is None or not layout.kept:
        return None
    return msgspec.structs.replace(layout.table, partitions=(layout.data,), mbr="")


def against_table(layout: StickLayout) -> Iterator[str]:
    """What speaks against the tables of a stick, as who makes their bytes sees it: the last one, and the one that names
    kept data meanwhile."""
    for table in (layout.table, interim_table(layout)):
        try:
            if table is not None:
                gpt_pieces(table, layout.size, SECTOR)
        except RefusedError as error:
            yield error.message.rstrip(".")


def data_start(iso: int) -> int:
    """Where the data begins behind an ISO of so many bytes: a quarter more than it has now is always left to it."""
    return align_up(iso + iso // 4, AREA)


def data_extent(layout: StickLayout) -> Extent | None:
    """The bytes of the data partition."""
    return layout.data.extent(SECTOR) if layout.data else None


def _lasting(table: PartitionTable) -> tuple[Partition, ...]:
    """The ISO's partitions without those that only fill gaps: what lies behind the ISO has no place among them."""
    return tuple(part for part in table.partitions if not part.name.startswith(_GAP))


def _moved(table: PartitionTable, partitions: tuple[Partition, ...], size: int) -> PartitionTable:
    """The table with those partitions, for a disk of ``size`` bytes."""
    sectors = size // SECTOR
    if not table.partitions:
        raise DamagedError("The ISO's partition table is empty: a machine finds nothing to start there.")
    return msgspec.structs.replace(
        table,
        partitions=partitions,
        last_usable_lba=sectors - 2 - array_sectors(table, SECTOR),
        mbr=_mbr(table, sectors),
        notes=(),
    )


def _mbr(table: PartitionTable, sectors: int) -> str:
    """The end of LBA 0 with a protective entry over the whole stick (UEFI 5.2.3); the other entries stay: some BIOSes
    start only what has an active one."""
    if not table.mbr:
        return ""
    tail = bytes.fromhex(table.mbr)
    entries = c_dos.parse_entries(bytes(c_dos.BOOT_CODE_SIZE) + tail)
    count = min(sectors - 1, c_dos.LBA_LIMIT - 1)
    made = b"".join(
        c_dos.pack_entry(
            msgspec.structs.replace(entry, count=count, last_chs=b"\xff\xff\xff")
            if entry.type == c_dos.PROTECTIVE_TYPE
            else entry
        )
        for entry in entries
    )
    return (tail[: c_dos.TABLE_OFFSET - c_dos.BOOT_CODE_SIZE] + made + c_dos.MARK).hex()


def _end_size(table: PartitionTable) -> int:
    """Bytes of the backup at the end."""
    return to_bytes(array_sectors(table, SECTOR) + 1, SECTOR)


def _refuse_too_small(needed: int, size: int) -> None:
    if needed > size:
        raise RefusedError(
            f"The stick has {format_size(size)} ({size} bytes); the ISO needs {format_size(needed)} ({needed} bytes).",
            hint="Take a larger stick.",
        )
