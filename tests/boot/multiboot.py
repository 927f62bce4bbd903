"""Sticks that start GRUB and have an ISO as a file on them: how people keep several systems on one.

GRUB's menu entry is the one of docs/medium.md, read from there. BIOS finds GRUB where grub-install puts it, in LBA 0
and the gap behind it (GRUB's manual, "BIOS installation"). For UEFI they are not made.
"""

import re
from enum import StrEnum
from pathlib import Path

from core.process import Runner
from core.units import MIB
from tests.boot.place import TREE
from tests.unit.images.filesystems.exfat_image import Volume

_BIOS = Path("/usr/lib/grub/i386-pc")
_BIOS_MODULES = (
    "biosdisk part_msdos fat exfat iso9660 loopback search search_fs_file normal configfile linux serial terminal test "
    "regexp echo true minicmd all_video sleep"
)
#: Bytes before the first partition, and of the small FAT filesystem with GRUB's menu.
_GAP, _START = MIB, 16 * MIB
#: Where the partition with the ISO begins, in bytes.
DATA_OFFSET = _GAP + _START
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


def make_stick(path: Path, iso: Path, holds: Holds, runner: Runner) -> Path:
    """The stick as a raw file: one partition with GRUB's menu, one with the ISO and some room."""
    parts = (_start_volume(path, holds, runner), _data_volume(path, iso, holds, runner))
    kinds = ("c, bootable", "7" if holds is Holds.EXFAT else "c")
    place, lines = _GAP, []
    for part, kind in zip(parts, kinds, strict=True):
        size = part.stat().st_size
        lines.append(f"start={place // 512}, size={size // 512}, type={kind}\n")
        place += size
    with path.open("wb") as stream:
        stream.truncate(place)
    runner.run(["sfdisk", "--quiet", str(path)], stdin="label: dos\n" + "".join(lines))
    core = path.with_suffix(".core")
    argv = ["grub-mkimage", "-O", "i386-pc", "-d", str(_BIOS), "-p", "(hd0,msdos1)/boot/grub", "-o", str(core)]
    runner.run([*argv, *_BIOS_MODULES.split()])
    with path.open("r+b") as stream:
        # As they come, boot.img looks for core.img in LBA 1, and that for the rest of itself in LBA 2.
        stream.write((_BIOS / "boot.img").read_bytes()[:_BOOT_CODE])
        stream.seek(512)
        assert core.stat().st_size < _GAP - 512
        stream.write(core.read_bytes())
        stream.seek(_GAP)
        for part in parts:
            stream.write(part.read_bytes())
    for used in (core, *parts):
        used.unlink()
    return path


def documented_entry(iso_path: str) -> str:
    """The menu entry of docs/medium.md, for an ISO there."""
    text = (TREE / "docs" / "medium.md").read_text()
    match = re.search(r"^    menuentry \"liferaft\" \{\n(?:     .*\n)+    \}\n", text, re.MULTILINE)
    assert match is not None, "docs/medium.md has the menu entry"
    entry, count = re.subn(r"set iso_path=\S+", f"set iso_path={iso_path}", match[0])
    assert count == 1
    return entry


def _start_volume(stick: Path, holds: Holds, runner: Runner) -> Path:
    image, menu = stick.with_suffix(".start"), stick.with_suffix(".cfg")
    menu.write_text(f"set timeout=0\n{documented_entry(holds.iso_path)}")
    runner.run(["mkfs.fat", "-C", "-n", "MULTIBOOT", str(image), str(_START // 1024)])
    runner.run(["mmd", "-i", str(image), "::/boot", "::/boot/grub"])
    runner.run(["mcopy", "-i", str(image), str(menu), "::/boot/grub/grub.cfg"])
    menu.unlink()
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
