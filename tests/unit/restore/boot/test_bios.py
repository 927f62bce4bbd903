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
from restore.boot.bios import bios_disks, read_boot_code

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
        # A root on both of which nothing is known.
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
    below = (holder,) if holder else ()
    assert bios_disks("/dev/a", below, disks, codes.__getitem__) == ((wanted,) if wanted else ())


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        # Debian's installer on a mirror: GRUB on both.
        ((BIOS_BOOT, GRUB), (BIOS_BOOT, GRUB), ("/dev/a", "/dev/b")),
        ((ACTIVE, GRUB), (QUIET, GRUB), ("/dev/a", "/dev/b")),
        # A dos table became a GPT: its boot code is gone, its place is new.
        ((BIOS_BOOT, NONE), (BIOS_BOOT, NONE), ("/dev/a", "/dev/b")),
        # It was started from one alone.
        ((ACTIVE, GRUB), (QUIET, NONE), ("/dev/a",)),
        ((QUIET, NONE), (ACTIVE, GRUB), ("/dev/b",)),
        # What starts another system stays.
        ((ACTIVE, GRUB), (NTFS, WINDOWS), ("/dev/a",)),
        ((BIOS_BOOT, GRUB), (BIOS_BOOT, WINDOWS), ("/dev/a",)),
        ((NTFS, WINDOWS), (NTFS, WINDOWS), ()),
    ],
)
def test_every_disk_of_a_mirror_that_started_it_gets_grub(
    first: tuple[Disk, bytes], second: tuple[Disk, bytes], wanted: tuple[str, ...]
) -> None:
    # The third starts something of its own, and /boot does not lie on it.
    disks = {"/dev/a": first[0], "/dev/b": second[0], "/dev/c": NTFS}
    codes = {"/dev/a": first[1], "/dev/b": second[1], "/dev/c": WINDOWS}
    assert bios_disks("/dev/a", ("/dev/a", "/dev/b"), disks, codes.__getitem__) == wanted


def test_grub_is_known_by_its_own_boot_code(tmp_path: Path) -> None:
    if not BOOT_IMG.exists():
        pytest.skip("grub-pc-bin is not installed")
    disk = tmp_path / "disk"
    disk.write_bytes(BOOT_IMG.read_bytes() + bytes(4096))
    # Both start: that it was GRUB's makes the second the one.
    disks = {"/dev/a": NTFS, str(disk): NTFS}
    found = bios_disks("/dev/a", (), disks, lambda node: WINDOWS if node == "/dev/a" else read_boot_code(node))
    assert found == (str(disk),)
