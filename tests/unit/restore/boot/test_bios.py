"""The disk that gets GRUB: never Windows', and the one that its system is started from."""

from pathlib import Path

import pytest

from images.model.filesystem import Filesystem
from images.model.layout import (
    Disk,
    DiskIdentity,
    FilesystemKind,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from restore.boot.bios import bios_disk, read_boot_code

#: Boot code of three kinds, by what it says on the screen; Windows' is from its own MBR (Windows 7 and later).
GRUB, WINDOWS, NONE = b"\xeb\x63GRUB \0Geom\0Hard Disk", b"\x33\xc0Invalid partition table\0", bytes(440)
BOOT_IMG = Path("/usr/lib/grub/i386-pc/boot.img")


def _disk(kind: FilesystemKind, *, active: bool = False, role: PartitionRole = PartitionRole.PRIMARY) -> Disk:
    part = Partition(
        id="part1",
        number=1,
        start_lba=2048,
        sector_count=2048,
        type="0x07",
        role=role,
        active=active,
        filesystem=Filesystem(kind=kind),
    )
    table = PartitionTable(kind=TableKind.DOS, identifier="0x1", partitions=(part,))
    return Disk(id="disk", identity=DiskIdentity(), size=1 << 30, sector_size=512, table=table)


NTFS = _disk(FilesystemKind.NTFS, active=True)
ACTIVE = _disk(FilesystemKind.EXT4, active=True)
BIOS_BOOT = _disk(FilesystemKind.UNKNOWN, role=PartitionRole.BIOS_BOOT)
QUIET = _disk(FilesystemKind.EXT4)


@pytest.mark.parametrize(
    ("first", "second", "holder", "wanted"),
    [
        # Windows on the first disk, a Linux with a GRUB of its own on the second.
        ((NTFS, WINDOWS), (ACTIVE, GRUB), "/dev/b", "/dev/b"),
        ((NTFS, WINDOWS), (ACTIVE, NONE), "/dev/b", "/dev/b"),
        ((NTFS, WINDOWS), (BIOS_BOOT, NONE), "/dev/b", "/dev/b"),
        ((NTFS, WINDOWS), (QUIET, NONE), "/dev/b", "/dev/b"),
        # The root on LVM of both: GRUB is where it was.
        ((NTFS, WINDOWS), (QUIET, GRUB), "", "/dev/b"),
        # GRUB on the first disk starts both, though the second has a flag of its own.
        ((NTFS, GRUB), (ACTIVE, NONE), "/dev/b", "/dev/a"),
        ((NTFS, GRUB), (QUIET, NONE), "/dev/b", "/dev/a"),
        ((NTFS, GRUB), (ACTIVE, GRUB), "/dev/b", "/dev/b"),
        # No boot code that anything could be lost of.
        ((NTFS, NONE), (QUIET, NONE), "/dev/b", "/dev/a"),
        # Two disks of a mirror, and a root that nothing is started from.
        ((BIOS_BOOT, GRUB), (BIOS_BOOT, GRUB), "", "/dev/a"),
        ((ACTIVE, NONE), (QUIET, NONE), "/dev/b", "/dev/a"),
        ((ACTIVE, NONE), (QUIET, NONE), "/dev/a", "/dev/a"),
        # Nothing but Windows.
        ((NTFS, WINDOWS), (NTFS, WINDOWS), "/dev/b", None),
        ((NTFS, WINDOWS), (NTFS, WINDOWS), "", None),
    ],
)
def test_grub_goes_where_its_system_is_started(
    first: tuple[Disk, bytes], second: tuple[Disk, bytes], holder: str, wanted: str | None
) -> None:
    disks = {"/dev/a": first[0], "/dev/b": second[0]}
    codes = {"/dev/a": first[1], "/dev/b": second[1]}
    assert bios_disk("/dev/a", holder, disks, codes.__getitem__) == wanted


def test_grub_is_known_by_its_own_boot_code(tmp_path: Path) -> None:
    if not BOOT_IMG.exists():
        pytest.skip("grub-pc-bin is not installed")
    disk = tmp_path / "disk"
    disk.write_bytes(BOOT_IMG.read_bytes() + bytes(4096))
    # Both start: that it was GRUB's makes the second the one.
    disks = {"/dev/a": NTFS, str(disk): NTFS}
    assert bios_disk("/dev/a", "", disks, lambda node: WINDOWS if node == "/dev/a" else read_boot_code(node)) == str(
        disk
    )
