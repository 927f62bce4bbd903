"""The head of a disk: boot code and boot areas, around the places that belong to the table."""

from images.model.extents import Extent
from images.model.layout import PartitionTable, TableKind
from images.tables import c_dos
from images.tables.gpt_bytes import array_sectors


def head_extents(table: PartitionTable, size: int, sector_size: int) -> tuple[Extent, ...]:
    """What of the first ``size`` bytes of a disk with that table is not the table: boot code, and the gaps behind."""
    taken = [Extent(c_dos.BOOT_CODE_SIZE, c_dos.RECORD_SIZE)]
    if table.kind is TableKind.GPT:
        array = array_sectors(table, sector_size)
        taken.append(Extent(sector_size, 2 * sector_size))
        taken.append(Extent(table.entries_lba * sector_size, (table.entries_lba + array) * sector_size))
    starts = [0, *(extent.end for extent in taken)]
    ends = [*(extent.start for extent in taken), size]
    return tuple(
        Extent(start, min(end, size)) for start, end in zip(starts, ends, strict=True) if start < min(end, size)
    )
