"""The area of a target that its partitions may use, and the size of disk that an area needs. Bytes."""

import msgspec

from core.units import ALIGNMENT, align_down, align_up, to_bytes
from images.model.layout import Disk, TableKind

#: Bytes that the entries of a GPT are given at least (UEFI 2.10, 5.3.1), and the LBA they usually begin at.
_LEAST_ARRAY = 16384
_ENTRIES_LBA = 2
#: Sectors a dos table can address: its LBAs have 32 bits.
_DOS_SECTORS = 1 << 32


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """Where partitions may lie: ``start`` to ``end``; those that are moved start at ``first``, on the boundary.

    ``size``: of the target. ``tail``: what the table takes behind them.
    """

    kind: TableKind
    size: int
    sector_size: int
    tail: int
    start: int
    first: int
    end: int

    def disk_for(self, end: int) -> int:
        """Bytes of the smallest disk whose area reaches to ``end``."""
        return max(align_up(end, self.sector_size) + self.tail, ALIGNMENT)


def usable_area(disk: Disk, kind: TableKind, size: int, sector_size: int) -> Area:
    """The area that a table of ``kind`` leaves on a target of ``size`` bytes for the partitions of ``disk``.

    A disk too small for the tables alone has an area that ends before it starts.
    """
    start, tail = sector_size, 0
    end = min(align_down(size, sector_size), dos_limit(sector_size))
    if kind is TableKind.GPT:
        start, tail = _gpt_ends(disk, sector_size)
        end = align_down(size, sector_size) - tail
    first = max(ALIGNMENT, align_up(start))
    return Area(kind=kind, size=size, sector_size=sector_size, tail=tail, start=start, first=first, end=end)


def dos_limit(sector_size: int) -> int:
    """The first byte a dos table cannot address."""
    return to_bytes(_DOS_SECTORS, sector_size)


def _gpt_ends(disk: Disk, sector_size: int) -> tuple[int, int]:
    """Bytes in front of the partitions, and behind them: the least the specification asks for, or what the source had
    where its partitions reach into that."""
    assert disk.table is not None
    table = disk.table
    needed = align_up(table.entry_count * table.entry_size, sector_size)
    array = max(align_up(_LEAST_ARRAY, sector_size), needed)
    alike = table.kind is TableKind.GPT and sector_size == disk.sector_size
    entries = to_bytes(table.entries_lba if alike else _ENTRIES_LBA, sector_size)
    start, tail = entries + array, sector_size + array
    if alike and table.partitions:
        extents = [part.extent(sector_size) for part in table.partitions]
        start = min(start, max(entries + needed, min(extent.start for extent in extents)))
        tail = min(tail, max(sector_size + needed, disk.size - max(extent.end for extent in extents)))
    return start, tail
