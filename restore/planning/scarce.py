"""Scarce room: filesystems with kernels that are made so small that one more kernel with its initramfs does not fit.

All files come back, and so it is done where nothing else helps; but the next update may fail, and so may boot repair
where another disk controller asks for another initramfs. Whoever confirms the plan is told before, and the report says
it again.
"""

from collections.abc import Mapping

import msgspec

from core.units import format_size
from images.model.layout import Disk, Layout
from images.model.stack import VolumeGroup
from restore.plan.steps import RemakeVolume, ShrinkVolume, Step
from restore.planning.contents import Contents
from restore.planning.left_out import container_name
from restore.planning.stack_steps import disks_below


def scarce_rooms(layout: Layout, disk: Disk, contents: Contents, sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes that one more kernel takes and does not find, by the partitions and devices of the stack on one disk.

    Args:
        layout: what is restored. sizes: bytes that each of its devices will have, by its id.
    """
    below = disks_below(layout)
    members = {member for container in layout.containers for member in container.member_ids}
    found = {
        device.id: contents.lacking_for_kernel(device.id, device.filesystem, sizes[device.id])
        for device in layout.devices()
        if below[device.id] == {disk.id} and device.id not in members and sizes[device.id] < device.size
    }
    return {device: lacking for device, lacking in found.items() if lacking}


def scarce_notes(layout: Layout, rooms: Mapping[str, int], roomy: int, size: int) -> tuple[str, ...]:
    """A sentence for each.

    Args:
        roomy: bytes of the smallest disk that has the room. size: of the target.
    """
    larger = f" A target of {roomy} bytes ({format_size(roomy)}) has the room." if roomy > size else ""
    return tuple(
        f"{_called(layout, device)} has no room for one more kernel with its initramfs ({format_size(room)}): all its "
        f"files fit, but updates of the kernel may fail; and if this machine's disk controller needs drivers that the "
        f"initramfs lacks, boot repair may fail to make it again, and the system does not start.{larger}"
        for device, room in rooms.items()
    )


def marked(step: Step, rooms: Mapping[str, int], devices: Mapping[str, str]) -> Step:
    """A step that makes such a filesystem says so; any other is as it was.

    Args:
        devices: by volume, the partition or device that it was captured from.
    """
    if not isinstance(step, ShrinkVolume | RemakeVolume):
        return step
    return msgspec.structs.replace(step, kernel_room=rooms.get(devices[step.volume], 0))


def after_words(called: str, room: int) -> tuple[str, ...]:
    """What the report says when it was done; nothing where there is room.

    Args:
        called: the partition or device. room: as of the step.
    """
    if not room:
        return ()
    return (
        f"{called}: no room for one more kernel with its initramfs ({format_size(room)}), as the plan says: make room "
        "before the system updates its kernel",
    )


def _called(layout: Layout, device: str) -> str:
    """A partition or device as people know it, at the beginning of a sentence."""
    for disk in layout.disks:
        for part in disk.table.partitions if disk.table else ():
            if part.id == device:
                return f"Partition {part.number}"
    for container in layout.containers:
        if isinstance(container, VolumeGroup):
            for volume in container.volumes:
                if volume.id == device:
                    return f"The logical volume {container.name}/{volume.name}"
        elif container.id == device:
            return f"What lies in {container_name(container)}"
    return device
