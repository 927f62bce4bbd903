"""Seating: from the seats of a fit to the steps that bring each content to its place.

A kind of step is emitted for a means of a seat; what a fit is told about the contents comes from the manifest alone.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import msgspec

from core.units import to_bytes
from images.browse.point import VolumeSource
from images.model.layout import Disk, FilesystemKind
from images.model.manifest import Volume, VolumeRole
from restore.fit.fitting import Fit
from restore.plan.steps import (
    GrowFilesystem,
    RelocateFilesystem,
    RemakeFat,
    RemakeVolume,
    RestoreVolume,
    Step,
    VerifyVolume,
)
from restore.planning.abilities import FAT
from restore.planning.rules import PartitionRule
from restore.planning.seat import Means, Seat
from restore.shrink.planning import shrink_step


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a volume's stream will write, those it will zero, and those it will read from the repository."""

    data: int
    zero: int
    stored: int = 0


def rules_reasons(rules: Sequence[PartitionRule], disks: Collection[str]) -> list[str]:
    """Rules that do not say which disk they mean, or one that is not there."""
    if len(disks) == 1:
        return [f"there is a rule for {rule.disk}, and no such disk" for rule in rules if rule.disk not in ("", *disks)]
    reasons = [f"there is a rule for {rule.disk}, and no such disk" for rule in rules if rule.disk not in ("", *disks)]
    reasons += [
        f"the rule for partition {rule.partition} does not say which of {len(disks)} disks it means "
        f"(write {min(disks)}:{rule.partition}={rule.rule})"
        for rule in rules
        if not rule.disk
    ]
    return reasons


def streamed(volumes: Sequence[Volume], fitted: Fit) -> tuple[Volume, ...]:
    """The volumes of one disk whose stored content goes to the target."""
    seats = {seat.source.id: seat for seat in fitted.seats}
    kept: list[Volume] = []
    for volume in volumes:
        if volume.role is VolumeRole.HEAD:
            # Boot code and boot area count in the sectors and lie around the table they were made for.
            if not fitted.converted:
                kept.append(volume)
        elif volume.role is VolumeRole.DISK or (
            volume.partition in seats and seats[volume.partition].means is not Means.EMPTY
        ):
            kept.append(volume)
    return tuple(kept)


def content_steps(
    disk: Disk,
    volumes: Sequence[Volume],
    fitted: Fit,
    sector_size: int,
    contents: Mapping[str, Content],
    open_volume: Callable[[Volume], VolumeSource],
    *,
    verify: bool,
) -> list[Step]:
    """The steps, while the target is held, that fill the partitions: stream, read back, correct what moved.

    Args:
        volumes: as ``streamed`` gives them, of this disk.
        sector_size: of the target.
        open_volume: the stored content of a volume.
    """
    seats = {seat.source.id: seat for seat in fitted.seats}
    writing: list[Step] = []
    reading: list[Step] = []
    for volume in volumes:
        seat = seats.get(volume.partition)
        offset = to_bytes(seat.partition.start_lba, sector_size) if seat else 0
        if volume.role is VolumeRole.HEAD or (seat and seat.means is Means.REMAKE and _kind(seat) not in FAT):
            continue
        if seat and seat.means is Means.REMAKE:
            writing.append(_remake(disk, seat, volume, contents[volume.id], sector_size))
            continue
        if seat and seat.means is Means.SHRINK:
            stored = contents[volume.id].stored
            source = open_volume(volume)
            number, extent = seat.partition.number, seat.partition.extent(sector_size)
            writing.append(shrink_step(source, _kind(seat), number, extent, stored=stored, verify=verify))
            continue
        writing.append(_restore(disk, volume, offset, contents[volume.id]))
        if verify:
            reading.append(VerifyVolume(disk=disk.id, volume=volume.id, offset=offset, size=volume.size))
    relocating = [_relocate(disk, seat, sector_size) for seat in fitted.seats if seat.relocate]
    return [*writing, *reading, *relocating]


def late_steps(
    disk: Disk, volumes: Sequence[Volume], fitted: Fit, sector_size: int, contents: Mapping[str, Content]
) -> list[Step]:
    """The steps, when the kernel knows the partitions: filesystems made anew by mounting them, and those that grow."""
    stored = {volume.partition: volume for volume in volumes if volume.partition}
    remade: list[Step] = [
        _remake(disk, seat, stored[seat.source.id], contents[stored[seat.source.id].id], sector_size)
        for seat in fitted.seats
        if seat.means is Means.REMAKE and _kind(seat) not in FAT
    ]
    return remade + [
        GrowFilesystem(
            disk=disk.id,
            number=seat.partition.number,
            kind=_kind(seat),
            size=to_bytes(seat.partition.sector_count, sector_size),
        )
        for seat in fitted.seats
        # What holds a container grows with the stack on it.
        if seat.grow and _kind(seat) is not FilesystemKind.UNKNOWN
    ]


def _restore(disk: Disk, volume: Volume, offset: int, content: Content) -> RestoreVolume:
    return RestoreVolume(
        disk=disk.id,
        volume=volume.id,
        offset=offset,
        size=volume.size,
        data=content.data,
        zero=content.zero,
        stored=content.stored,
    )


def _remake(disk: Disk, seat: Seat, volume: Volume, content: Content, sector_size: int) -> RemakeFat | RemakeVolume:
    """The step for content that is made anew; the boot sector of a FAT tells its place, too."""
    extent = seat.partition.extent(sector_size)
    made = partial(RemakeFat, old_lba=seat.source.start_lba) if _kind(seat) in FAT else RemakeVolume
    return made(
        disk=disk.id,
        volume=volume.id,
        number=seat.partition.number,
        kind=_kind(seat),
        offset=extent.start,
        size=extent.size,
        data=volume.allocated,
        stored=content.stored,
    )


def _relocate(disk: Disk, seat: Seat, sector_size: int) -> RelocateFilesystem:
    extent = seat.partition.extent(sector_size)
    return RelocateFilesystem(
        disk=disk.id,
        number=seat.partition.number,
        kind=_kind(seat),
        offset=extent.start,
        size=extent.size,
        old_lba=seat.source.start_lba,
        old_sector_size=disk.sector_size,
    )


def _kind(seat: Seat) -> FilesystemKind:
    return seat.partition.filesystem.kind if seat.partition.filesystem else FilesystemKind.UNKNOWN
