"""Old signatures at both ends of a target are gone after wiping, and nothing else has changed. Judged by libblkid."""

import random
import struct
import subprocess
import zlib
from pathlib import Path
from uuid import UUID

import pytest

from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind
from restore.target.signatures import signature_extents
from restore.target.target import Target
from tests.flow.disks import MIB, need, run

SIZE = 96 * MIB
START, LENGTH = 16 * MIB, 64 * MIB
TABLE = PartitionTable(
    kind=TableKind.GPT,
    identifier=str(UUID(int=1)),
    partitions=(
        Partition(
            id="part1", number=1, start_lba=START // 512, sector_count=LENGTH // 512, type=str(UUID(int=2)),
            role=PartitionRole.PRIMARY, uuid=UUID(int=3),
        ),
    ),
    entry_count=128,
)  # fmt: skip


def md(version: str, size: int) -> tuple[int, bytes]:
    """A superblock of md and where it lies: md(4), include/linux/raid/md_p.h."""
    if version == "0.90":
        at = (size & ~0xFFFF) - 0x10000
        return at, struct.pack("<IIIIIIII", 0xA92B4EFC, 0, 90, 0, 0, 1, 0, 1).ljust(4096, b"\0")
    at = {"1.0": (size // 512 - 16) // 8 * 8 * 512, "1.1": 0, "1.2": 4096}[version]
    block = bytearray(4096)
    struct.pack_into("<II", block, 0, 0xA92B4EFC, 1)
    block[16:32] = bytes(range(16))
    struct.pack_into("<iIQ", block, 72, 1, 0, size // 512)
    struct.pack_into("<QQQ", block, 128, 0, size // 512, at // 512)
    struct.pack_into("<I", block, 220, 2)
    total = sum(struct.unpack("<65I", block[:260]))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32))
    return at, bytes(block)


def lvm(size: int) -> tuple[int, bytes]:
    """A physical volume's label in sector 1 (lvm2, lib/format_text/layout.h)."""
    sector = bytearray(512)
    struct.pack_into("<8sQII8s", sector, 0, b"LABELONE", 1, 0, 32, b"LVM2 001")
    sector[32:64] = b"abcdefghijklmnopqrstuvwxyz012345"
    struct.pack_into("<Q", sector, 64, size)
    crc = 0xF597A6CF
    table = [0] * 256
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        table[number] = value
    for byte in sector[20:]:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    struct.pack_into("<I", sector, 16, crc)
    return 512, bytes(sector)


def zfs(number: int, size: int) -> tuple[int, bytes]:
    """One of the four labels: its uberblocks, 128 KiB behind its start (OpenZFS, include/sys/vdev_impl.h)."""
    at = number * 262144 if number < 2 else size // 262144 * 262144 - (4 - number) * 262144
    blocks = struct.pack("<QQQ", 0x00BAB10C, 5000, 1).ljust(1024, b"\0") * 128
    return at + 131072, blocks


def seen(disk: Path, offset: int = 0, size: int = SIZE) -> str:
    """What libblkid makes of a range; nothing when it finds nothing."""
    done = subprocess.run(
        ["/usr/sbin/blkid", "-p", "-o", "export", "-O", str(offset), "-S", str(size), disk],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 2), done.stderr
    return done.stdout


OLD = {
    "md 0.90": (lambda size: [md("0.90", size)], "linux_raid_member"),
    "md 1.0": (lambda size: [md("1.0", size)], "linux_raid_member"),
    "md 1.1": (lambda size: [md("1.1", size)], "linux_raid_member"),
    "md 1.2": (lambda size: [md("1.2", size)], "linux_raid_member"),
    "lvm": (lambda size: [lvm(size)], "LVM2_member"),
    "zfs": (lambda size: [zfs(number, size) for number in range(4)], "zfs_member"),
    "zfs, last labels": (lambda size: [zfs(number, size) for number in (2, 3)], "zfs_member"),
}  # fmt: skip


@pytest.mark.parametrize("place", ["disk", "partition"])
@pytest.mark.parametrize("kind", OLD)
def test_an_old_signature_is_gone(kind: str, place: str, tmp_path: Path) -> None:
    need("blkid")
    offset, size = (0, SIZE) if place == "disk" else (START, LENGTH)
    blocks, name = OLD[kind]
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(SIZE)
        for at, content in blocks(size):
            file.seek(offset + at)
            file.write(content)
    assert f"TYPE={name}" in seen(disk, offset, size)
    wipe(disk)
    assert seen(disk, offset, size) == ""


def wipe(disk: Path) -> None:
    with disk.open("r+b") as file:
        target = Target(str(disk), file.fileno(), SIZE, 512)
        for extent in signature_extents(SIZE, TABLE, 512):
            target.zero(extent.start, extent.size)


def test_nothing_else_changes(tmp_path: Path) -> None:
    before = random.Random(5).randbytes(MIB) * (SIZE // MIB)
    disk = tmp_path / "disk"
    disk.write_bytes(before)
    wipe(disk)
    after = bytearray(disk.read_bytes())
    extents = signature_extents(SIZE, TABLE, 512)
    assert [(extent.start // MIB, extent.end // MIB) for extent in extents] == [(0, 1), (16, 17), (79, 80), (95, 96)]
    for extent in extents:
        assert not any(after[extent.start : extent.end])
        after[extent.start : extent.end] = before[extent.start : extent.end]
    assert zlib.crc32(after) == zlib.crc32(before)


def test_a_gpt_s_back_is_wiped(tmp_path: Path) -> None:
    """A disk wiped at its front alone is a GPT disk again after a look by any partitioning tool."""
    need("sfdisk", "wipefs")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    run("sfdisk", "-q", disk, stdin="label: gpt\nsize=2048\n")
    wipe(disk)
    assert run("wipefs", disk) == ""
