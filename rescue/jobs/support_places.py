"""Where a support bundle, or another file for people, can be saved by someone who has a stick and knows no path.

Offered are FAT and exFAT filesystems on removable or USB disks, which are mounted for the moment of writing, the stick
on which the medium lies as a file, which is made writable for that moment, and what the person has mounted to write
themselves. Not offered is what a machine boots from (an ESP on a USB disk too) and what
has a journal: that may be the machine's own disk in a USB case.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.events import Sink
from core.process import Runner
from core.units import format_size
from images.probe import BlockDevice, block_devices
from rescue.jobs.mounting import mounted_to_write, writable_meanwhile
from rescue.jobs.repositories import PLACE
from rescue.jobs.support import bundle_path, save_support_bundle

_STICKS = ("vfat", "exfat")
#: Where live-boot mounts the filesystem with the ISO in it, read-only (findiso=).
_FINDISO = "/run/live/findiso"
#: The ESP, as lsblk names it on GPT and on dos tables.
_ESP = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef")


class SupportPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A place for a file.

    Attributes:
        name: for people.
        folder: where it is mounted already; empty when it is not.
        device: the node to mount otherwise; kind: its filesystem.
        carries_medium: the running system's ISO lies on it, so it is mounted already.
        stays: the running system's medium is on the same stick, which must stay attached.
    """

    name: str
    folder: str = ""
    device: str = ""
    kind: str = ""
    carries_medium: bool = False
    stays: bool = False


def support_places(runner: Runner) -> tuple[SupportPlace, ...]:
    """What can be offered now; sticks first."""
    devices = block_devices(runner)
    mounted = [place for disk in devices for place in _mounted(disk)]
    return (*(stick for disk in devices for stick in _sticks(disk)), *mounted)


def save_to_place(place: SupportPlace, runner: Runner, sink: Sink) -> str:
    """Save the bundle there; returns the name of the file. What was mounted for it is unmounted, so it is on the stick.

    Raises:
        ProcessError: the stick cannot be mounted or made writable, or not be let go. DeviceError: it cannot be written.
    """
    with opened_place(place, "support", runner) as folder:
        path = bundle_path(folder, datetime.datetime.now(datetime.UTC))
        save_support_bundle(path, runner, sink)
        return path.name


@contextlib.contextmanager
def opened_place(place: SupportPlace, purpose: str, runner: Runner) -> Iterator[Path]:
    """The folder of a place, which can be written meanwhile; in the end it is as it was, and what was written is there.

    Args:
        purpose: a word for the folder where it is mounted.

    Raises:
        ProcessError: it cannot be mounted or made writable, or not be let go. DeviceError: nowhere to mount it.
    """
    if place.carries_medium:
        with writable_meanwhile(Path(_FINDISO), runner) as folder:
            yield folder
    elif place.folder:
        yield Path(place.folder)
    else:
        with mounted_to_write(place.device, place.kind, purpose, runner) as folder:
            yield folder


def _sticks(disk: BlockDevice) -> Iterator[SupportPlace]:
    if not (disk.rm or disk.tran == "usb") or disk.ro:
        return
    stays = any(Path("/run/live") in Path(place).parents for _, place in disk.mounts())
    for device in disk.descendants():
        places = [place for place in device.mountpoints if place]
        carries = places == [_FINDISO]
        used = device.ro or device.children or (places and not carries)
        if device.fstype not in _STICKS or used or (device.parttype or "").lower() in _ESP:
            continue
        words = (device.label or "", format_size(device.size), "on", (disk.model or "").strip() or disk.name)
        name = " ".join(word for word in words if word)
        yield SupportPlace(name=name, device=device.name, kind=device.fstype, carries_medium=carries, stays=stays)


def _mounted(disk: BlockDevice) -> Iterator[SupportPlace]:
    """What the person has mounted, and can be written."""
    for device, place in disk.mounts():
        folder = Path(place)
        ours = folder == Path("/") or PLACE in folder.parents or Path("/run/live") in folder.parents
        if not ours and folder.is_dir() and os.access(folder, os.W_OK):
            yield SupportPlace(name=f"{place}, {device.fstype or 'mounted'} on {device.name}", folder=place)
