"""The table that is made of placed tenants: positions in sectors of the target, extended partitions around the
logical ones, numbers without gaps where the table wants that.
"""

from collections.abc import Sequence

import msgspec

from core.units import ALIGNMENT, align_down, to_sectors
from images.model.layout import Disk, Partition, PartitionRole, PartitionTable, TableKind
from restore.fit.area import Area
from restore.fit.rooms import Place
from restore.fit.tenants import House, is_around

_FIRST_LOGICAL = 5


def make_table(disk: Disk, pattern: PartitionTable, area: Area, home: House, places: Sequence[Place]) -> PartitionTable:
    """The table of the target.

    Args:
        pattern: the source's table, or what it was converted to; partitions are found there by id.
        places: in order of their starts, none overlapping, all inside the area.
    """
    patterns = {part.id: part for part in pattern.partitions}
    parts = [_sized(patterns[place.tenant.partition.id], place.start, place.end, area) for place in places]
    parts += [_extended(extended, area, places, disk.sector_size) for extended in home.extended]
    if pattern.kind is TableKind.DOS:
        parts = _renumbered(parts)
    first, last = _usable(disk, pattern, area, parts)
    return msgspec.structs.replace(
        pattern,
        partitions=tuple(sorted(parts, key=lambda part: part.number)),
        first_usable_lba=first,
        last_usable_lba=last,
    )


def _sized(part: Partition, start: int, end: int, area: Area) -> Partition:
    lba = to_sectors(start, area.sector_size)
    return msgspec.structs.replace(part, start_lba=lba, sector_count=to_sectors(end, area.sector_size) - lba)


def _extended(extended: Partition, area: Area, places: Sequence[Place], old_sector_size: int) -> Partition:
    """The extended partition around its logical ones: as it was where they still are, else anew."""
    inside = [index for index, place in enumerate(places) if is_around(extended, place.tenant)]
    first, last = places[inside[0]], places[inside[-1]]
    before = places[inside[0] - 1].end if inside[0] else area.start
    behind = places[inside[-1] + 1].start if inside[-1] + 1 < len(places) else area.end
    old = extended.extent(old_sector_size)
    if first.start == first.tenant.start and before <= old.start and old.start % area.sector_size == 0:
        start = old.start
    else:
        start = max(align_down(first.start - first.tenant.head), before)
        start = min(start, first.start - first.tenant.head)
    end = last.end
    unchanged = (last.start, last.size) == (last.tenant.start, last.tenant.size)
    if unchanged and old.end <= behind and old.end % area.sector_size == 0:
        end = max(end, old.end)
    return _sized(extended, start, end, area)


def _renumbered(parts: list[Partition]) -> list[Partition]:
    """Logical partitions are counted along their chain, without gaps."""
    logical = sorted((part for part in parts if part.role is PartitionRole.LOGICAL), key=lambda part: part.number)
    numbers = {part.id: number for number, part in enumerate(logical, _FIRST_LOGICAL)}
    return [msgspec.structs.replace(part, number=numbers.get(part.id, part.number)) for part in parts]


def _usable(disk: Disk, pattern: PartitionTable, area: Area, parts: Sequence[Partition]) -> tuple[int, int]:
    """First and last usable LBA of a GPT: as far from the ends as on the source, but around every partition."""
    if pattern.kind is not TableKind.GPT:
        return 0, 0
    least, most = area.start // area.sector_size, area.end // area.sector_size - 1
    source = disk.table
    if source is None or source.kind is not TableKind.GPT or area.sector_size != disk.sector_size:
        first = min(ALIGNMENT // area.sector_size, *(part.start_lba for part in parts)) if parts else least
        return max(least, first), most
    if not source.last_usable_lba:
        return source.first_usable_lba, 0
    end = disk.size // disk.sector_size - 1
    distance = max(end - source.last_usable_lba, area.tail // area.sector_size)
    last = area.size // area.sector_size - 1 - distance
    first = max(source.first_usable_lba, least)
    return (
        min(first, *(part.start_lba for part in parts)) if parts else first,
        max(last, *(part.end_lba - 1 for part in parts)) if parts else last,
    )
