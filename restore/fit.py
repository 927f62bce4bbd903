"""Fit: where the partitions of a source disk go on a target disk.

Pure arithmetic on tables: positions in, positions out. Starts stay where they are when they are on
a 1 MiB boundary; growing moves what lies behind the grown partition to the end of the disk.
"""

import msgspec

from core.units import ALIGNMENT, align_down, align_up, format_size, subtract, to_bytes, to_sectors
from images.model.layout import Disk, FilesystemKind, Partition, PartitionRole, PartitionTable, TableKind
from restore.seat import Means, Seat

#: Filesystems that can be grown offline, and those whose content does not depend on where it lies.
GROWABLE = frozenset({FilesystemKind.EXT2, FilesystemKind.EXT3, FilesystemKind.EXT4})
MOVABLE = GROWABLE | {FilesystemKind.SWAP}

#: Bytes at the end of a GPT disk that hold the backup table, at any sector size.
GPT_TAIL = ALIGNMENT
#: The highest partition number of a table of the usual size.
MAX_NUMBER = 128
_DOS_LIMIT = 1 << 32


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted table.

    Attributes:
        table: None for a disk without a table.
        seats: each partition of the source that goes to the target, in order of number.
        reasons: why it does not fit; the table is then not to be used.
        notes: what the person should know.
    """

    table: PartitionTable | None
    seats: tuple[Seat, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def smallest_target(disk: Disk) -> int:
    """Bytes of the smallest disk that takes ``disk`` with every partition where it is."""
    if disk.table is None:
        return disk.size
    end = max((to_bytes(partition.end_lba, disk.sector_size) for partition in disk.table.partitions), default=0)
    if disk.table.kind is TableKind.GPT:
        tail = to_bytes(1, disk.sector_size) + max(16384, disk.table.entry_count * 128)
        return align_up(end + tail, disk.sector_size)
    return max(end, ALIGNMENT)


def fit(disk: Disk, size: int, sector_size: int, *, grow: bool) -> Fit:
    """Place the partitions of ``disk`` on a target.

    Args:
        size, sector_size: of the target, in bytes.
        grow: let the last growable filesystem take the space that is left.
    """
    if sector_size != disk.sector_size:
        return Fit(
            table=None,
            reasons=(
                f"the target has sectors of {sector_size} bytes, the source had {disk.sector_size}: "
                "this version does not convert between them",
            ),
        )
    least = smallest_target(disk)
    if size < least:
        return Fit(
            table=None,
            reasons=(
                f"the target is {least - size} bytes too small: it has {size} bytes ({format_size(size)}), "
                f"the smallest that would do has {least} bytes ({format_size(least)})",
            ),
        )
    if disk.table is None:
        return Fit(table=None)
    beyond = [part.number for part in disk.table.partitions if part.number > MAX_NUMBER]
    if beyond:
        return Fit(table=None, reasons=(f"partition {beyond[0]}: this version makes tables up to number {MAX_NUMBER}",))
    table, notes = _aligned(disk.table, size, sector_size)
    fitted, grown = (_grown(table, size, sector_size, notes)) if grow else (Fit(table=table, notes=notes), 0)
    if fitted.table is None:
        return fitted
    made = {part.number: part for part in fitted.table.partitions}
    seats = tuple(
        Seat(
            source=part,
            partition=made[part.number],
            means=Means.STREAM if _is_data(part) else Means.EMPTY,
            grow=part.number == grown,
        )
        for part in disk.table.partitions
    )
    return msgspec.structs.replace(fitted, seats=seats)


def _usable_end(table: PartitionTable, size: int, sector_size: int) -> int:
    """The first byte behind what partitions may use, on a 1 MiB boundary."""
    end = align_down(subtract(size, GPT_TAIL, "the backup table")) if table.kind is TableKind.GPT else align_down(size)
    return min(end, to_bytes(_DOS_LIMIT, sector_size)) if table.kind is TableKind.DOS else end


def _aligned(table: PartitionTable, size: int, sector_size: int) -> tuple[PartitionTable, tuple[str, ...]]:
    """Move partitions that do not start on 1 MiB to the next boundary, where content and space allow."""
    odd = [part for part in table.partitions if part.extent(sector_size).start % ALIGNMENT and _is_data(part)]
    if not odd:
        return table, ()
    numbers = ", ".join(str(part.number) for part in odd)
    kept = f"Partition {numbers}: the start is not on a 1 MiB boundary and is kept as it was"
    has_logical = any(part.role is PartitionRole.LOGICAL for part in table.partitions)
    if has_logical or not all(part.filesystem and part.filesystem.kind in MOVABLE for part in odd):
        return table, (f"{kept}: the content of a partition there depends on its place.",)
    placed: list[Partition] = []
    position = 0
    for part in sorted(table.partitions, key=lambda part: part.start_lba):
        start = max(part.extent(sector_size).start, position)
        movable = part.filesystem is not None and part.filesystem.kind in MOVABLE
        if start % ALIGNMENT and movable:
            start = align_up(start)
        if start != part.extent(sector_size).start and not movable:
            return table, (f"{kept}: moving it would move partition {part.number}, which cannot be moved.",)
        placed.append(msgspec.structs.replace(part, start_lba=to_sectors(start, sector_size)))
        position = placed[-1].extent(sector_size).end
    if position > _usable_end(table, size, sector_size):
        return table, (f"{kept}: the target has no room to move it.",)
    return _with(table, placed), (f"Partition {numbers}: the start is moved to a 1 MiB boundary.",)


def _is_data(part: Partition) -> bool:
    return part.role is not PartitionRole.EXTENDED


def _grown(table: PartitionTable, size: int, sector_size: int, notes: tuple[str, ...]) -> tuple[Fit, int]:
    """Give the space at the end to the last growable filesystem, moving what lies behind it; its number, or 0."""
    ordered = sorted(table.partitions, key=lambda part: part.start_lba)
    behind: list[Partition] = []
    while ordered and not (ordered[-1].filesystem and ordered[-1].filesystem.kind in GROWABLE):
        behind.insert(0, ordered.pop())
    if not ordered:
        return Fit(table=table, reasons=("no partition has a filesystem that can be grown (ext2, ext3 or ext4)",)), 0
    chosen = ordered[-1]
    for part in behind:
        if part.filesystem is None or part.filesystem.kind not in MOVABLE or part.role is PartitionRole.LOGICAL:
            reason = (
                f"partition {chosen.number} cannot grow: partition {part.number} lies behind it "
                "and cannot be moved by this version"
            )
            return Fit(table=table, reasons=(reason,)), 0
    end = _usable_end(table, size, sector_size)
    moved: dict[int, Partition] = {}
    for part in reversed(behind):
        start = align_down(subtract(end, part.extent(sector_size).size, f"partition {part.number}"))
        if start < part.extent(sector_size).start:
            return Fit(table=table, notes=(*notes, "There is no space to grow into.")), 0
        moved[part.number] = msgspec.structs.replace(part, start_lba=to_sectors(start, sector_size))
        end = start
    extent = chosen.extent(sector_size)
    if end <= extent.end:
        return Fit(table=table, notes=(*notes, "There is no space to grow into.")), 0
    moved[chosen.number] = msgspec.structs.replace(chosen, sector_count=to_sectors(end - extent.start, sector_size))
    if chosen.role is PartitionRole.LOGICAL:
        extended = next(part for part in table.partitions if part.role is PartitionRole.EXTENDED)
        length = to_sectors(end, sector_size) - extended.start_lba
        moved[extended.number] = msgspec.structs.replace(extended, sector_count=length)
    parts = [moved.get(part.number, part) for part in table.partitions]
    return Fit(table=_with(table, parts), notes=notes), chosen.number


def _with(table: PartitionTable, parts: list[Partition]) -> PartitionTable:
    ordered = tuple(sorted(parts, key=lambda part: part.number))
    return msgspec.structs.replace(table, partitions=ordered)
