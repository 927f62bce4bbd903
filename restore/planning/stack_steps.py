"""The stack's part of a plan: from the containers of a recovery point to the steps that make them again.

Bottom up, each container is made of what the steps before it left, its devices are filled and read back, and then the
next is made on them. Room that a partition gained goes up through all of them, to one filesystem.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import msgspec

from core.units import align_down, to_bytes
from images.browse.point import VolumeSource
from images.model.extents import Extent
from images.model.layout import Device, Layout, devices_made_by
from images.model.manifest import Manifest, Volume
from images.model.stack import Array, Container, Luks, VolumeGroup
from restore.fit.fitting import Fit
from restore.plan.steps import (
    CreateArray,
    CreateVolumeGroup,
    GrowFilesystem,
    OpenLuks,
    RemakeVolume,
    RestoreVolume,
    Step,
    VerifyVolume,
)
from restore.planning.abilities import REMAKEABLE, SHRINKABLE
from restore.planning.degraded import offer
from restore.planning.growing import Chosen, growing_volume, grows
from restore.planning.left_out import container_name
from restore.planning.lessening import Lessening
from restore.planning.seating import Content
from restore.shrink.planning import shrink_step
from restore.stack import md
from restore.stack.lvm import RESTORABLE, has_thin
from restore.stack.lvm_copies import copies
from restore.stack.lvm_smaller import smaller_group

#: It has no field for the layout of RAID 0, without which mdadm makes none (mdadm: super0.c, init_super0).
_OLD_FORMAT = "0.90"
_NO_BARE: Mapping[str, int] = MappingProxyType({})


def containers_on(layout: Layout, disks: Collection[str]) -> tuple[Container, ...]:
    """The containers that lie on these disks alone."""
    below = disks_below(layout)
    return tuple(container for container in layout.containers if below[container.id] <= set(disks))


def disks_below(layout: Layout) -> dict[str, frozenset[str]]:
    """By device and container, the disks it lies on."""
    found: dict[str, frozenset[str]] = {}
    for disk in layout.disks:
        parts = disk.table.partitions if disk.table else ()
        found.update({name: frozenset({disk.id}) for name in (disk.id, *(part.id for part in parts))})
    for container in layout.containers:
        below = frozenset[str]().union(*(found[member] for member in container.member_ids))
        found.update(dict.fromkeys((container.id, *(device.id for device in devices_made_by(container, 512))), below))
    return found


def stack_reasons(
    layout: Layout, disks: Collection[str], without: Collection[str] = (), bare: Mapping[str, int] = _NO_BARE
) -> list[str]:
    """Why the containers of a layout, but for those ``without``, cannot be made again on the targets of these disks.

    Args:
        bare: bytes of the targets of those without a table; a container on one ends where the target does.
    """
    reasons: list[str] = []
    below = disks_below(layout)
    for container in (one for one in layout.containers if one.id not in without):
        absent = sorted(below[container.id] - set(disks))
        if absent and len(absent) < len(below[container.id]):
            lacking = [member for member in container.member_ids if not below[member] <= set(disks)]
            reasons.append(
                f"{container_name(container)} lies on {', '.join(absent)} too, and no target is named for that"
                f"{offer(container, lacking) if isinstance(container, Array) else ''}"
            )
        if isinstance(container, Array) and container.level == 0 and container.metadata == _OLD_FORMAT:
            reasons.append(
                f"{container_name(container)} is RAID 0 with superblocks of format {_OLD_FORMAT}, which mdadm does not "
                f"make any more (leave its disks out, or copy its files out of the recovery point)"
            )
        if isinstance(container, Luks) and container.device in bare:
            reasons += _against_end(container, layout.device(container.device).size, bare[container.device])
        if isinstance(container, VolumeGroup):
            kinds = {kind for volume in container.volumes for kind in volume.segments}
            reasons += [
                f"{container_name(container)} has volumes of type {kind}, which are not made again"
                for kind in sorted(kinds - RESTORABLE)
            ]
    return reasons


def _against_end(luks: Luks, was: int, size: int) -> list[str]:
    """Why a container does not open on a whole disk of ``size`` bytes, and did on one of ``was`` bytes.

    The kernel takes whole sectors of the encryption alone (drivers/md/dm-crypt.c, crypt_ctr_optional). Partitions of
    another size than before are whole MiB, and logical volumes whole extents.
    """
    over = (size - luks.payload_offset) % luks.sector_size
    if not over or luks.payload_offset + luks.size < was:
        return []
    return [
        f"{container_name(luks)} has sectors of {luks.sector_size} bytes, and opens only on a device of whole ones: "
        f"the target has {size} bytes, {over} more than whole sectors"
    ]


class Room(msgspec.Struct, frozen=True):
    """Who takes room that is new.

    Attributes:
        targets: bytes of the targets of disks without a table; growing: the disks whose room goes up.
        chosen: by id of a volume group, the name of the volume that a rule lets grow.
        lessening: by disk, who gives up what is missing where its target is smaller.
        open: the stored content of a volume.
    """

    targets: Mapping[str, int]
    growing: Collection[str]
    chosen: Chosen
    lessening: Mapping[str, Lessening]
    open: Callable[[Volume], VolumeSource]


class StackSteps(msgspec.Struct, frozen=True):
    """Steps that make the stack and fill it, those that then grow filesystems, and what the user should know."""

    making: tuple[Step, ...]
    growing: tuple[Step, ...]
    notes: tuple[str, ...]


def stack_steps(
    manifest: Manifest,
    fits: Sequence[Fit],
    sector_sizes: Sequence[int],
    contents: Mapping[str, Content],
    room: Room,
    *,
    verify: bool,
) -> StackSteps:
    """The steps for all containers of a recovery point.

    Args:
        manifest: with the disks, containers and volumes that are restored.
        fits, sector_sizes: of its disks, in order.
        contents: by volume.
        room: who takes it.
    """
    sizes = _sizes_below(manifest.layout, fits, sector_sizes, room)
    making: list[Step] = []
    growing: list[Step] = []
    notes: list[str] = []
    for container in manifest.layout.containers:
        made = {device.id: device for device in devices_made_by(container, 512)}
        step = _making(manifest.layout, container, sizes, room)
        making.append(step)
        volumes = [volume for volume in manifest.volumes if volume.disk in made]
        less = {volume.disk for volume in volumes if _is_cut(made[volume.disk], sizes[volume.disk])}
        whole = [volume for volume in volumes if volume.disk not in less]
        making += [_restore(volume, contents[volume.id]) for volume in whole]
        making += [
            _smaller(volume, made[volume.disk], sizes[volume.disk], contents[volume.id], room, verify=verify)
            for volume in volumes
            if volume.disk in less
        ]
        if verify:
            making += [VerifyVolume(disk=volume.disk, volume=volume.id, offset=0, size=volume.size) for volume in whole]
        growing += [
            GrowFilesystem(disk=device.id, number=0, kind=device.filesystem.kind, size=sizes[device.id])
            for device in made.values()
            if device.filesystem is not None and grows(device.filesystem) and sizes[device.id] > device.size
        ]
        notes += _notes(container, step, sizes, manifest.layout)
    return StackSteps(tuple(making), tuple(growing), tuple(notes))


def stack_sizes(layout: Layout, fits: Sequence[Fit], sector_sizes: Sequence[int], room: Room) -> dict[str, int]:
    """Bytes that each device of a layout will have, by its id; arguments as of ``stack_steps``.

    Raises:
        RefusedError: a volume group has less room than its volumes need.
    """
    sizes = _sizes_below(layout, fits, sector_sizes, room)
    for container in layout.containers:
        _making(layout, container, sizes, room)
    return sizes


def _sizes_below(layout: Layout, fits: Sequence[Fit], sector_sizes: Sequence[int], room: Room) -> dict[str, int]:
    """The same, where what the stack is made on has its new size already and the stack has not."""
    sizes: dict[str, int] = {device.id: device.size for device in layout.devices()}
    sizes.update({disk: size for disk, size in room.targets.items() if disk in room.growing or size < sizes[disk]})
    for fitted, sector_size in zip(fits, sector_sizes, strict=True):
        sizes.update({seat.source.id: to_bytes(seat.partition.sector_count, sector_size) for seat in fitted.seats})
    return sizes


def _making(layout: Layout, container: Container, sizes: dict[str, int], room: Room) -> Step:
    """The step for one container; the sizes of its devices as they will be are put into ``sizes``."""
    was = {device.id: device.size for device in layout.devices()}
    gains = {member: sizes[member] - was[member] for member in container.member_ids}
    if isinstance(container, Array):
        fill = _fills(container, gains)
        if fill:
            # What lies on the array takes the room only where somebody asked for that.
            sizes[container.id] = _array_size(container, sizes, sum(gains.values()))
        larger = any(room.targets.get(member, 0) > was[member] for member in container.member_ids)
        return CreateArray(disk=container.id, array=container, fill=fill or (container.level == 0 and larger))
    if isinstance(container, Luks):
        gain = gains[container.device]
        sizes[container.id] = container.size + gain
        if gain < 0:
            # As it will be when it is opened, to the sector: what is made anew on it is made for exactly that.
            left = align_down(sizes[container.device] - container.payload_offset, container.sector_size)
            sizes[container.id] = min(container.size, left)
        # It is checked against the size it says when it is opened.
        least = min(container.size, sizes[container.id])
        return OpenLuks(disk=container.id, container=msgspec.structs.replace(container, size=least))
    if any(gain < 0 for gain in gains.values()):
        (member,) = container.member_ids
        (disk,) = disks_below(layout)[member]
        cut = room.lessening[disk].cut(container, sizes[member])
        sizes.update(cut)
        return CreateVolumeGroup(disk=container.id, group=smaller_group(container, sizes[member], cut))
    gain = align_down(sum(gains.values()), container.extent_size)
    volume = growing_volume(layout, container, room.chosen) if gain > 0 else None
    if volume is not None:
        sizes[volume.id] = volume.size + gain
    return CreateVolumeGroup(disk=container.id, group=container, grow=volume.name if volume else "")


def _fills(array: Array, gains: Mapping[str, int]) -> bool:
    """An array is as large as its smallest member lets it be; RAID 0 uses all of each."""
    grown = [gain > 0 for gain in gains.values()]
    return any(grown) if array.level == 0 else all(grown)


def _array_size(array: Array, sizes: Mapping[str, int], gain: int) -> int:
    """What a larger array will have, about: md rounds to its chunks and keeps room for its own marks."""
    if not array.component_size:
        return array.size + gain
    component = min(sizes[member.device] - member.data_offset for member in array.members)
    return max(array.size, align_down(array.size * component // array.component_size, array.chunk_size or 4096))


def _restore(volume: Volume, content: Content) -> RestoreVolume:
    return RestoreVolume(
        disk=volume.disk,
        volume=volume.id,
        offset=0,
        size=volume.size,
        data=content.data,
        zero=content.zero,
        stored=content.stored,
    )


def _is_cut(device: Device, size: int) -> bool:
    """Whether what lies on a device itself has to be made smaller; a container on it sees to itself."""
    return size < device.size and device.filesystem is not None and device.filesystem.kind in SHRINKABLE | REMAKEABLE


def _smaller(volume: Volume, device: Device, size: int, content: Content, room: Room, *, verify: bool) -> Step:
    """The step that brings a filesystem to a device of the stack that is smaller than it was."""
    assert device.filesystem is not None
    kind = device.filesystem.kind
    if kind in SHRINKABLE:
        return shrink_step(room.open(volume), kind, 0, Extent(0, size), stored=content.stored, verify=verify)
    return RemakeVolume(
        disk=volume.disk,
        volume=volume.id,
        number=0,
        kind=kind,
        offset=0,
        size=size,
        data=volume.allocated,
        stored=content.stored,
    )


def _notes(container: Container, step: Step, sizes: Mapping[str, int], layout: Layout) -> list[str]:
    called = container_name(container)
    if isinstance(container, Array) and md.synchronises(container):
        return [f"{called}: md computes its parity in the background; until that is done no disk of it may fail."]
    if isinstance(container, Luks):
        return [f"{called} is opened with a key of yours: --luks-key or --luks-passphrase-file."]
    if not isinstance(container, VolumeGroup):
        return []
    notes: list[str] = []
    if has_thin(container):
        notes.append(f"{called}: blocks that its thin volumes shared are no longer shared.")
    made = step.group if isinstance(step, CreateVolumeGroup) else container
    fewer = [one.device for one in made.members if copies(made, one, sizes[one.device]) != one.metadata_areas]
    if fewer:
        # It lies behind the extents: where these were laid anew, they take that room.
        notes.append(f"{called}: one copy of LVM's metadata is made on {', '.join(fewer)}, where there were two.")
    grown = any(sizes[member] > layout.device(member).size for member in container.member_ids)
    if grown and isinstance(step, CreateVolumeGroup) and not step.grow:
        notes.append(f"{called}: none of its volumes can take the new room; it stays free in the group.")
    return notes
