"""Notes: what a fit changed that is not plain from the table, in words."""

from collections.abc import Iterator, Sequence

from core.units import ALIGNMENT, format_size
from images.model.layout import Disk, FilesystemKind, PartitionRole, PartitionTable, TableKind
from restore.fit.rooms import Place
from restore.fit.tenants import House


def told(disk: Disk, table: PartitionTable, home: House, places: Sequence[Place]) -> Iterator[str]:
    """A sentence for each thing that a person may stumble over."""
    yield from _alignment(places)
    for place in places:
        if place.size < place.tenant.size:
            number, old, new = place.tenant.partition.number, format_size(place.tenant.size), format_size(place.size)
            yield f"Partition {number} is made smaller, from {old} to {new}."
    if home.dropped:
        yield f"Partition {shown(home.dropped)} is left out: its content is not restored."
    made = {part.id: part for part in table.partitions}
    renumbered = [
        (place.tenant.partition.number, made[place.tenant.partition.id].number)
        for place in places
        if made[place.tenant.partition.id].number != place.tenant.partition.number
    ]
    for old_number, new_number in renumbered:
        yield f"Partition {old_number} becomes number {new_number}: logical partitions are counted without gaps."
    yield from _firmware(home, disk)
    if table.kind is TableKind.DOS:
        yield from _windows(places)


def _alignment(places: Sequence[Place]) -> Iterator[str]:
    odd = [place for place in places if place.tenant.start % ALIGNMENT]
    moved = [place.tenant.partition.number for place in odd if place.start % ALIGNMENT == 0]
    if moved:
        yield f"Partition {shown(moved)}: the start is moved to a 1 MiB boundary."
    for place in odd:
        if place.start % ALIGNMENT:
            why = place.tenant.pinned or "the target has no room to move it"
            number = place.tenant.partition.number
            yield f"Partition {number}: the start is not on a 1 MiB boundary and is kept as it was: {why}."


def _firmware(home: House, disk: Disk) -> Iterator[str]:
    assert disk.table is not None
    lost = {part.role for part in disk.table.partitions if part.number in home.dropped}
    if PartitionRole.ESP in lost:
        yield "The ESP is left out: the target does not start by UEFI."
    if PartitionRole.BIOS_BOOT in lost:
        yield "The BIOS boot partition is left out: GRUB does not start from the target by BIOS."


def _windows(places: Sequence[Place]) -> Iterator[str]:
    """On a dos table Windows names partitions by disk signature and byte offset: in the boot configuration (element
    0x11000001, a partition device) and in ``MountedDevices``."""
    moved = [
        place.tenant.partition.number
        for place in places
        if place.tenant.partition.filesystem is not None
        and place.tenant.partition.filesystem.kind is FilesystemKind.NTFS
        and place.start != place.tenant.start
    ]
    if moved:
        yield (
            f"Partition {shown(moved)} moves: with a dos table Windows finds its partitions by their place. If it does "
            "not start, Startup Repair of its setup medium (or bootrec /rebuildbcd) mends that; the rule keep leaves "
            "a partition where it was."
        )


def shown(numbers: Sequence[int]) -> str:
    """Numbers for people: ``1, 3 and 5``."""
    texts = [str(number) for number in numbers]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
