"""Which partition table a disk carries: the one question the rest of liferaft asks about tables."""

from core.errors import DamagedError
from images.model.layout import PartitionTable
from images.sources import BlockSource
from images.tables.damage import describe
from images.tables.dos import is_volume_boot_sector, read_dos
from images.tables.gpt import has_primary_header, has_protective_mbr, read_gpt


def read_table(source: BlockSource) -> PartitionTable | None:
    """The partition table of a whole disk; None when it has none (blank, or one big volume).

    Partition ids are ``part<number>``; whoever builds the layout puts the disk's id in front.
    Filesystems are not looked at.

    Raises:
        DamagedError: a table is there but cannot be believed; names source, offset, field,
            expected and found.
        DeviceError: the source cannot be read.
    """
    if source.size < max(source.sector_size, 512):
        return None
    sector = source.read_at(0, 512)
    if has_protective_mbr(sector):
        return read_gpt(source)
    table = read_dos(source)
    if table is None and has_primary_header(source) and not is_volume_boot_sector(sector):
        raise DamagedError(
            f"{describe(source)}: LBA 1 holds a GPT header, but LBA 0 no protective MBR: "
            "expected an entry of type 0xee at byte 446, found none.",
            hint="gdisk writes a new protective MBR; or wipefs removes a left-over GPT.",
        )
    return table
