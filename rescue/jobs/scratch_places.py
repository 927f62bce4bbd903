"""Where the scratch files of a restore can go, for someone who has a disk and knows no path (docs/smaller.md).

Offered are where they go by themselves, what the person has mounted to write, and filesystems on removable or USB disks
that are no target. FAT and exFAT are not: a scratch file is as long as the volume, with holes that they do not know.
"""

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from core.errors import ProcessError, RefusedError
from core.process import Runner
from core.units import format_size
from images.model.layout import DiskIdentity
from images.probe import BlockDevice, block_devices, identity_of
from rescue.jobs.mounting import mounted_to_write
from rescue.jobs.repositories import PLACE
from restore.plan.plan import Plan
from restore.shrink.room import scratch_folder, scratch_of, too_little_scratch

#: Kinds with holes in their files that the kernel of the rescue system writes.
_KINDS = ("ext2", "ext3", "ext4", "xfs", "btrfs")


class ScratchPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A place for scratch files.

    Attributes:
        name: for people.
        folder: where it is mounted already; empty when it is not.
        device: the node to mount otherwise; kind: its filesystem.
        identity: of the disk that the device is on.
        reason: why it will not do; empty when nothing is known against it.
    """

    name: str
    folder: str = ""
    device: str = ""
    kind: str = ""
    identity: DiskIdentity = DiskIdentity()
    reason: str = ""


def scratch_places(plan: Plan, targets: Collection[str], runner: Runner) -> tuple[ScratchPlace, ...]:
    """What can be offered now, where it goes by itself first.

    Args:
        targets: nodes of the disks that the plan writes.
    """
    own = scratch_folder(None)
    found = [_folder(plan, own, f"{own}, as it goes by itself (memory, in the rescue system)")]
    disks = [disk for disk in block_devices(runner) if disk.name not in targets]
    for disk in disks:
        for device, place in _mounted(disk):
            found.append(_folder(plan, Path(place), f"{place}, {device.fstype or 'mounted'} on {device.name}"))
    for disk in disks:
        found += _unmounted(disk, scratch_of(plan))
    return tuple(found)


def place_of(plan: Plan, place: ScratchPlace | None) -> ScratchPlace | None:
    """The place as it was chosen; None for a plan that takes no scratch. That does not show it, and so nothing may be
    mounted for it: it was chosen for another plan, and mounting may be the harm that is feared for that disk."""
    return place if scratch_of(plan) else None


def scratch_reason(plan: Plan, place: ScratchPlace | None, targets: Collection[str], runner: Runner) -> str:
    """Why the scratch files of a plan cannot lie there; empty when they can, as far as is known of what is not mounted.

    Args:
        targets: nodes of the disks that the plan writes. The place may have been chosen when they were others.
    """
    place = place_of(plan, place)
    if place is not None and place.device:
        return _against_device(place, targets, runner)
    folder = Path(place.folder) if place is not None else None
    return next(iter(too_little_scratch(plan, scratch_folder(folder))), "")


@contextlib.contextmanager
def scratch_in(place: ScratchPlace | None, runner: Runner) -> Iterator[Path | None]:
    """The folder of a place, mounted if it has to be; None for where scratch files go by themselves.

    Raises:
        RefusedError: the device is another one than that which was chosen, or in use.
        ProcessError: it cannot be mounted.
    """
    if place is None or not place.device:
        yield Path(place.folder) if place is not None else None
        return
    against = _against_device(place, (), runner)
    if against:
        raise RefusedError(f"{against[0].upper()}{against[1:]}. Nothing was written.", hint="Choose the place again.")
    stack = contextlib.ExitStack()
    folder = stack.enter_context(mounted_to_write(place.device, place.kind, "scratch", runner))
    try:
        yield folder
    finally:
        # Nothing of scratch is needed any more: what became of the restore is what counts.
        with contextlib.suppress(ProcessError):
            stack.close()


def _against_device(place: ScratchPlace, targets: Collection[str], runner: Runner) -> str:
    """Between choosing and mounting somebody may have plugged in another disk, which has the name now."""
    for disk in block_devices(runner):
        for device in disk.descendants():
            if device.name == place.device:
                same = _name_of(device, disk) == place.name and identity_of(disk) == place.identity
                if not same:
                    return f"{place.device} is another disk now than the one that was chosen"
                if disk.name in targets:
                    return f"{place.device} is on a disk that will be erased"
                return f"{place.device} is mounted by now" if any(device.mountpoints) else ""
    return f"{place.device} is not there any more"


def _folder(plan: Plan, folder: Path, name: str) -> ScratchPlace:
    reason = next(iter(too_little_scratch(plan, folder)), "")
    with contextlib.suppress(OSError):
        status = os.statvfs(folder)
        name = f"{name}: {format_size(status.f_bavail * status.f_frsize)} free"
    return ScratchPlace(name=name, folder=str(folder), reason=reason)


def _mounted(disk: BlockDevice) -> Iterator[tuple[BlockDevice, str]]:
    """What the person has mounted, and can be written."""
    for device, place in disk.mounts():
        folder = Path(place)
        ours = folder == Path("/") or PLACE in folder.parents or Path("/run/live") in folder.parents
        if not ours and folder.is_dir() and os.access(folder, os.W_OK):
            yield device, place


def _unmounted(disk: BlockDevice, needed: int) -> Iterator[ScratchPlace]:
    if not (disk.rm or disk.tran == "usb") or disk.ro:
        return
    for device in disk.descendants():
        if device.fstype not in _KINDS or device.ro or device.children or any(device.mountpoints):
            continue
        small = "" if device.size > needed else f"it has {format_size(device.size)}"
        yield ScratchPlace(
            name=_name_of(device, disk),
            device=device.name,
            kind=device.fstype,
            identity=identity_of(disk),
            reason=small,
        )


def _name_of(device: BlockDevice, disk: BlockDevice) -> str:
    """A filesystem that is not mounted, for people."""
    model = (disk.model or "").strip() or disk.name
    label = f' "{device.label}"' if device.label else ""
    return f"{device.fstype}{label}, {format_size(device.size)}, on {model} ({device.name})"
