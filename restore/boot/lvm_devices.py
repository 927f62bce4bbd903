"""LVM's own list of devices in a restored system: entries for the disks that are there now.

Where a system keeps ``/etc/lvm/devices/system.devices`` (lvmdevices(8); so do RHEL, Fedora and their like), LVM looks
at the devices in it and at no others, and knows a disk by its WWN or serial number: on another disk it finds no volume
group, in the initramfs neither. The system's own lvmdevices writes the entries again, for it alone knows what its
version wants there. Without the file LVM looks at all devices: that is what is left where the tool cannot be used.

Only entries of restored physical volumes that were in the list before are written; others belong to disks that were not
restored. An entry that names what lies below by an identity of ours (LUKS, array, logical volume) holds on any disk.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from core.errors import LiferaftError
from core.files import write_atomically
from core.process import Runner
from restore.boot.inside import run_inside
from restore.boot.within import folder_within
from restore.stack.mountable import ListedVolume

#: Below the root; its name in an initramfs, too.
PLACE = "etc/lvm/devices/system.devices"
#: Where it goes when it cannot be written: LVM reads files of the names it was told, and nobody tells it this one.
_ASIDE = "system.devices.before-restore"
#: Kinds of entries that do not depend on the disk (lvmdevices(8), "Device ID types").
_LASTING = frozenset({"crypt_uuid", "md_uuid", "lvmlv_uuid"})
#: What an image file that is attached here is known by: on the machine it is made for it will be something else.
_PASSING = "loop_file"
#: Debian has no link of the name lvmdevices. A list that is switched off in the configuration would be refused.
_WORDS = ("lvm", "lvmdevices", "--config", "devices/use_devicesfile=1", "--yes")


class Entry(msgspec.Struct, frozen=True):
    """A device in the list. ``kind``, ``name``: by what it is known; ``pvid``: of the physical volume on it."""

    kind: str
    name: str
    pvid: str


class Renewed(msgspec.Struct, frozen=True):
    """What became of the list: ``done`` for the report, ``warning`` for the user; both empty when it was right."""

    done: str = ""
    warning: str = ""

    @property
    def changed(self) -> bool:
        """Whether it is another one than before."""
        return bool(self.done or self.warning)


def parse_entries(text: str) -> tuple[Entry, ...]:
    """The devices in a list. LVM writes no spaces into the values (lib/device/device_id.c, device_ids_write)."""
    lines = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    fields = (dict(word.partition("=")[::2] for word in line) for line in lines)
    return tuple(
        Entry(found["IDTYPE"], found.get("IDNAME", ""), found.get("PVID", "")) for found in fields if "IDTYPE" in found
    )


def renew_devices(root: Path, volumes: Sequence[ListedVolume], runner: Runner) -> Renewed:
    """Have the system's own tool write the entries of restored physical volumes again.

    Args:
        root: the mounted system, with its kernel's filesystems. volumes: those that were restored.
    """
    folder = folder_within(root, PLACE.rpartition("/")[0])
    path = folder / PLACE.rpartition("/")[2] if folder is not None else root
    if not path.is_file() or path.is_symlink():
        return Renewed()
    before = path.read_bytes()
    old = parse_entries(before.decode(errors="replace"))
    listed = {entry.pvid for entry in old if entry.kind not in _LASTING}
    wanted = [volume for volume in volumes if volume.pvid in listed]
    if not wanted:
        return Renewed()
    try:
        for volume in wanted:
            run_inside(root, (*_WORDS, "--delpvid", volume.pvid), runner)
            run_inside(root, (*_WORDS, "--adddev", volume.node), runner)
    except LiferaftError as error:
        return _aside(path, before, error.message.rstrip("."))
    new = parse_entries(path.read_text(errors="replace")) if path.is_file() else ()
    now = {entry.pvid: entry.kind for entry in new}
    lacking = [volume.node for volume in wanted if volume.pvid not in now]
    if lacking:
        return _aside(path, before, f"lvmdevices did not add {', '.join(lacking)}")
    if any(now[volume.pvid] == _PASSING for volume in wanted):
        return _aside(path, before, "these disks are no hardware of this machine")
    if set(new) == set(old):
        _put_back(path, before)
        return Renewed()
    return Renewed(done=f"/{PLACE} names the disks of this machine")


def _put_back(path: Path, before: bytes) -> None:
    """As it was, where there is room for that: on a full filesystem it stays as the tool left it."""
    if not path.is_file() or path.read_bytes() != before:
        with contextlib.suppress(OSError):
            write_atomically(path, before)


def _aside(path: Path, before: bytes, why: str) -> Renewed:
    aside = path.with_name(_ASIDE)
    # First out of LVM's way: a list without its entries hides every disk, and writing needs room that may be lacking.
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
    _put_back(aside, before)
    return Renewed(
        warning=f"LVM's list of devices could not be written for the restored disks ({why}) and is now "
        f"/{PLACE.rpartition('/')[0]}/{_ASIDE}: LVM looks at all devices until vgimportdevices makes a list again"
    )
