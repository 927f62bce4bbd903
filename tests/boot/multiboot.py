"""Sticks that start GRUB and have an ISO as a file on them: how people keep several systems on one.

GRUB's menu entry is the one of docs/medium.md, read from there. BIOS finds GRUB where grub-install puts it, in LBA 0
and the gap behind it (GRUB's manual, "BIOS installation"); UEFI finds it on the ESP, by the fallback path of removable
media (UEFI specification, 3.5.1.1).
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from core.process import Runner
from core.units import MIB
from images.tables.c_gpt import ESP_TYPE
from tests.boot.machine import Firmware
from tests.boot.place import TREE
from tests.unit.images.filesystems.exfat_image import Volume

_BIOS, _UEFI = Path("/usr/lib/grub/i386-pc"), Path("/usr/lib/grub/x86_64-efi")
_MODULES = (
    "part_msdos part_gpt fat exfat iso9660 loopback search search_fs_file normal configfile linux serial terminal test "
    "regexp echo true minicmd all_video sleep"
)
#: What firmware whose Secure Boot is on starts: Microsoft signed shim, Debian what shim looks for beside itself.
_SIGNED = {
    "BOOTX64.EFI": Path("/usr/lib/shim/shimx64.efi.signed"),
    "grubx64.efi": Path("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
}
#: Where GRUB looks for its menu: as grub-install puts it, and as Debian's signed GRUB has it built in.
_MENU, _SIGNED_MENU = "/boot/grub/grub.cfg", "/EFI/debian/grub.cfg"
#: The GPT's partition type of FAT, exFAT and NTFS ("basic data"; UEFI specification's reserved names, from Windows).
_DATA_TYPE = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
#: Bytes before the first partition, and of the small FAT filesystem with GRUB's menu.
_GAP, _START = MIB, 16 * MIB
#: Where the partition with the ISO begins, in bytes; and what lies behind it, for the second GPT.
DATA_OFFSET, _END = _GAP + _START, MIB
#: Bytes of LBA 0 in front of the disk's signature and table.
_BOOT_CODE = 440


class Holds(StrEnum):
    """The filesystem that the ISO lies on, by the kernel's name."""

    FAT = "vfat"
    EXFAT = "exfat"

    @property
    def iso_path(self) -> str:
        """Where it lies there: as documented, or where a test can put it (the root, by a short name)."""
        return "/iso/liferaft-amd64.iso" if self is Holds.FAT else "/liferaft.iso"


@dataclass(frozen=True)
class Start:
    """How a stick starts.

    Attributes:
        signed: with Debian's signed GRUB, which Secure Boot lets through. It cannot read exFAT, as docs/medium.md says.
    """

    firmware: Firmware
    signed: bool = False


def make_stick(path: Path, iso: Path, holds: Holds, start: Start, runner: Runner) -> Path:
    """The stick as a raw file: one partition with GRUB's menu (for UEFI the ESP), one with the ISO and some room."""
    parts = (_start_volume(path, holds, start, runner), _data_volume(path, iso, holds, runner))
    place, lines = _GAP, []
    for part, kind in zip(parts, _partition_types(holds, start), strict=True):
        size = part.stat().st_size
        lines.append(f"start={place // 512}, size={size // 512}, type={kind}\n")
        place += size
    with path.open("wb") as stream:
        stream.truncate(place + _END)
    label = "dos" if start.firmware is Firmware.BIOS else "gpt"
    runner.run(["sfdisk", "--quiet", str(path)], stdin=f"label: {label}\n" + "".join(lines))
    with path.open("r+b") as stream:
        stream.seek(_GAP)
        for part in parts:
            stream.write(part.read_bytes())
            part.unlink()
    if start.firmware is Firmware.BIOS:
        _put_bios_grub(path, runner)
    return path


def _partition_types(holds: Holds, start: Start) -> tuple[str, str]:
    if start.firmware is Firmware.UEFI:
        return str(ESP_TYPE), _DATA_TYPE
    return "c, bootable", "7" if holds is Holds.EXFAT else "c"


def _put_bios_grub(stick: Path, runner: Runner) -> None:
    core = stick.with_suffix(".core")
    argv = ["grub-mkimage", "-O", "i386-pc", "-d", str(_BIOS), "-p", "(hd0,msdos1)/boot/grub", "-o", str(core)]
    runner.run([*argv, "biosdisk", *_MODULES.split()])
    with stick.open("r+b") as stream:
        # As they come, boot.img looks for core.img in LBA 1, and that for the rest of itself in LBA 2.
        stream.write((_BIOS / "boot.img").read_bytes()[:_BOOT_CODE])
        stream.seek(512)
        assert core.stat().st_size < _GAP - 512
        stream.write(core.read_bytes())
    core.unlink()


def documented_entry(iso_path: str) -> str:
    """The menu entry of docs/medium.md, for an ISO there."""
    text = (TREE / "docs" / "medium.md").read_text()
    match = re.search(r"^    menuentry \"liferaft\" \{\n(?:     .*\n)+    \}\n", text, re.MULTILINE)
    assert match is not None, "docs/medium.md has the menu entry"
    entry, count = re.subn(r"set iso_path=\S+", f"set iso_path={iso_path}", match[0])
    assert count == 1
    return entry


def _start_volume(stick: Path, holds: Holds, start: Start, runner: Runner) -> Path:
    image, menu = stick.with_suffix(".start"), stick.with_suffix(".cfg")
    menu.write_text(f"set timeout=0\n{documented_entry(holds.iso_path)}")
    files = {_SIGNED_MENU if start.signed else _MENU: menu}
    if start.signed:
        files |= {f"/EFI/BOOT/{name}": path for name, path in _SIGNED.items()}
    elif start.firmware is Firmware.UEFI:
        # Without a device in the prefix, it is the one that GRUB was started from.
        files["/EFI/BOOT/BOOTX64.EFI"] = program = stick.with_suffix(".efi")
        argv = ["grub-mkimage", "-O", "x86_64-efi", "-d", str(_UEFI), "-p", "/boot/grub", "-o", str(program)]
        runner.run([*argv, *_MODULES.split()])
    runner.run(["mkfs.fat", "-C", "-n", "MULTIBOOT", str(image), str(_START // 1024)])
    folders = {str(folder): None for name in files for folder in reversed(PurePosixPath(name).parents[:-1])}
    runner.run(["mmd", "-i", str(image), *(f"::{folder}" for folder in folders)])
    for name, path in files.items():
        runner.run(["mcopy", "-i", str(image), str(path), f"::{name}"])
    menu.unlink()
    stick.with_suffix(".efi").unlink(missing_ok=True)
    return image


def _data_volume(stick: Path, iso: Path, holds: Holds, runner: Runner) -> Path:
    image = stick.with_suffix(".data")
    size = (iso.stat().st_size // MIB + 64) * MIB
    if holds is Holds.FAT:
        runner.run(["mkfs.fat", "-F", "32", "-C", "-n", "STICK", str(image), str(size // 1024)])
        runner.run(["mmd", "-i", str(image), "::/iso"])
        runner.run(["mcopy", "-i", str(image), str(iso), f"::{holds.iso_path}"])
        return image
    with image.open("wb") as stream:
        stream.truncate(size)
    runner.run(["mkfs.exfat", "-L", "STICK", str(image)])
    volume, content = Volume(image.read_bytes()), iso.read_bytes()
    count = -(-len(content) // volume.cluster)
    # From the volume's end: the first clusters are its own.
    first = volume.clusters + 2 - count
    volume.put(holds.iso_path.strip("/"), content, list(range(first, first + count)))
    image.write_bytes(volume.content)
    runner.run(["fsck.exfat", "-n", str(image)])
    return image
