"""Filesystems grown by half on loop devices: checked by their own tools, every file and identity as before."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.errors import ProcessError, RefusedError
from core.process import SystemRunner
from images.model.layout import FilesystemKind
from restore.filesystems.grow import GROWERS, grow_filesystem, tools_to_grow
from tests.disk.volumes import KINDS, Volume
from tests.flow.disks import MIB, need, run
from tests.unit.images.filesystems.real import make_tree

UUID = "01234567-89ab-cdef-0123-456789abcdef"
#: How each is made, with a label, and what its own tool says of its size afterwards: command, pattern, bytes of a unit.
MAKE = {
    FilesystemKind.EXT2: "mke2fs -q -F -t ext2 -b 4096 -L lifted -U " + UUID + " {}",
    FilesystemKind.EXT3: "mke2fs -q -F -t ext3 -b 1024 -L lifted -U " + UUID + " {}",
    FilesystemKind.EXT4: "mke2fs -q -F -t ext4 -b 4096 -L lifted -U " + UUID + " {}",
    FilesystemKind.NTFS: "mkntfs -q -F -f -L lifted {}",
    FilesystemKind.XFS: "mkfs.xfs -q -f -L lifted -m uuid=" + UUID + " {}",
    FilesystemKind.BTRFS: "mkfs.btrfs -q -f -L lifted -U " + UUID + " {}",
}
SIZE = {
    FilesystemKind.EXT2: ("dumpe2fs -h {}", r"Block count:\s+(\d+)", 4096),
    FilesystemKind.EXT3: ("dumpe2fs -h {}", r"Block count:\s+(\d+)", 1024),
    FilesystemKind.EXT4: ("dumpe2fs -h {}", r"Block count:\s+(\d+)", 4096),
    FilesystemKind.NTFS: ("ntfsinfo -f -m {}", r"Volume Size in Clusters: (\d+)", 4096),
    FilesystemKind.XFS: ("xfs_db -r -c sb -c print {}", r"dblocks = (\d+)", 4096),
    FilesystemKind.BTRFS: ("btrfs inspect-internal dump-super {}", r"total_bytes\s+(\d+)", 1),
}
#: Nothing is written by these, and any fault fails them. A grown NTFS is marked for a check; ntfsresize looks anyway.
CHECK = {FilesystemKind.NTFS: "ntfsresize -c -f -f -P {}"}
BEFORE = {FilesystemKind.XFS: 100, FilesystemKind.BTRFS: 290}


@pytest.fixture(scope="module", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield make_tree(Path(folder) / "tree", 1)


@contextlib.contextmanager
def loop(path: Path) -> Iterator[Path]:
    node = run("losetup", "--find", "--show", path).strip()
    try:
        yield Path(node)
    finally:
        run("losetup", "--detach", node)


def _volume(kind: FilesystemKind, folder: Path, size: int) -> Volume:
    like = KINDS[kind]
    need(*like.tools, *tools_to_grow(kind), "blkid")
    own = msgspec.structs.replace(like, make=MAKE[kind], sizes=(size, 0, 0), check=CHECK.get(kind, like.check))
    return Volume(own, folder, 512)


def _identity(node: Path) -> str:
    return run("blkid", "-p", "-o", "export", "-s", "UUID", "-s", "LABEL", "-s", "TYPE", node).split("\n", 1)[1]


def _size(kind: FilesystemKind, node: Path) -> int:
    command, pattern, unit = SIZE[kind]
    found = re.search(pattern, run(*command.format(node).split()))
    assert found
    return int(found[1]) * unit


@pytest.mark.parametrize("kind", MAKE)
def test_grown_by_half_it_is_clean_and_holds_every_file(kind: FilesystemKind, tmp_path: Path, tree: Path) -> None:
    size = BEFORE.get(kind, 64)
    volume = _volume(kind, tmp_path, size)
    volume.fill(tree)
    files = volume.digests()
    os.truncate(volume.path, size * MIB * 3 // 2)
    with volume.device() as node:
        identity, before = _identity(node), _size(kind, node)
        assert grow_filesystem(str(node), kind, SystemRunner()) == ()
        assert _identity(node) == identity
        assert "lifted" in identity
        grown = _size(kind, node)
    # Where no whole block group, allocation group or cluster fits any more, the last bytes stay free.
    assert before <= size * MIB
    assert size * MIB * 3 // 2 - MIB <= grown <= size * MIB * 3 // 2
    volume.check(volume.path)
    assert volume.digests() == files


def test_windows_is_told_to_check_a_grown_ntfs_and_a_marked_one_is_left_alone(tmp_path: Path) -> None:
    volume = _volume(FilesystemKind.NTFS, tmp_path, 48)
    os.truncate(volume.path, 60 * MIB)
    with volume.device() as node:
        assert "Volume Flags: 0x0000" in run("ntfsinfo", "-m", node)
        assert grow_filesystem(str(node), FilesystemKind.NTFS, SystemRunner()) == ()
        assert "Volume Flags: 0x0001" in run("ntfsinfo", "-f", "-m", node)
    os.truncate(volume.path, 80 * MIB)
    before = volume.path.read_bytes()
    with volume.device() as node:
        (said,) = grow_filesystem(str(node), FilesystemKind.NTFS, SystemRunner())
    assert said.startswith("the volume keeps its size, because it was not cleanly unmounted")
    assert volume.path.read_bytes() == before


def test_what_e2fsck_mended_is_said(tmp_path: Path) -> None:
    volume = _volume(FilesystemKind.EXT4, tmp_path, 48)
    run("debugfs", "-w", "-R", "set_super_value free_blocks_count 77", volume.path)
    os.truncate(volume.path, 64 * MIB)
    with volume.device() as node:
        assert grow_filesystem(str(node), FilesystemKind.EXT4, SystemRunner()) == (
            "e2fsck mended the filesystem before it was grown",
        )
    volume.check(volume.path)


def test_a_filesystem_that_cannot_be_mended_unasked_is_not_grown(tmp_path: Path) -> None:
    volume = _volume(FilesystemKind.EXT4, tmp_path, 48)
    # The root folder is gone: "preen" does not decide about that.
    run("debugfs", "-w", "-R", "clri <2>", volume.path)
    os.truncate(volume.path, 64 * MIB)
    before = run("dumpe2fs", "-h", volume.path)
    with volume.device() as node, pytest.raises(ProcessError, match="e2fsck") as caught:
        grow_filesystem(str(node), FilesystemKind.EXT4, SystemRunner())
    assert "restored and verified" in caught.value.hint
    count = re.search(r"Block count:.*", before)
    assert count
    assert count[0] in run("dumpe2fs", "-h", volume.path)


@pytest.mark.parametrize("page", [4096, 65536])
@pytest.mark.parametrize("named", [True, False])
def test_swap_keeps_uuid_label_and_page_size(page: int, named: bool, tmp_path: Path) -> None:
    need("mkswap", "blkid")
    path = tmp_path / "swap.img"
    with path.open("wb") as stream:
        stream.truncate(32 * MIB)
    words = ("-L", "lifted", "-U", UUID) if named else ("-U", "clear")
    run("mkswap", "-q", "-p", str(page), *words, path)
    os.truncate(path, 48 * MIB)
    with loop(path) as node:
        before = run("blkid", "-p", "-o", "export", node)
        assert grow_filesystem(str(node), FilesystemKind.SWAP, SystemRunner()) == ()
        after = run("blkid", "-p", "-o", "export", node)
    # blkid tells the size of a swap area (FSSIZE) and of its pages (FSBLOCKSIZE) only where it is new enough.
    assert [line for line in after.splitlines() if not line.startswith("FSLASTBLOCK")] == [
        line for line in before.splitlines() if not line.startswith("FSLASTBLOCK")
    ]
    content = path.read_bytes()
    assert content[page - 10 : page] == b"SWAPSPACE2"
    assert int.from_bytes(content[1028:1032], "little") == 48 * MIB // page - 1


def test_swap_that_holds_a_hibernated_system_is_left_alone(tmp_path: Path) -> None:
    need("mkswap")
    path = tmp_path / "swap.img"
    with path.open("wb") as stream:
        stream.truncate(32 * MIB)
    run("mkswap", "-q", path)
    with path.open("r+b") as stream:
        stream.seek(4096 - 10)
        stream.write(b"S1SUSPEND\0")
    before = path.read_bytes()
    with loop(path) as node:
        (said,) = grow_filesystem(str(node), FilesystemKind.SWAP, SystemRunner())
    assert said == "the swap area keeps its size, because it holds the memory of a hibernated system"
    assert path.read_bytes() == before


def test_a_btrfs_on_two_devices_is_left_alone(tmp_path: Path) -> None:
    need("mkfs.btrfs", "btrfs")
    paths = [tmp_path / "one.img", tmp_path / "two.img"]
    for path in paths:
        with path.open("wb") as stream:
            stream.truncate(150 * MIB)
    with loop(paths[0]) as one, loop(paths[1]) as two:
        run("mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "raid1", one, two)
        (said,) = grow_filesystem(str(one), FilesystemKind.BTRFS, SystemRunner())
    run("btrfs", "device", "scan", "--forget")
    assert said == "the filesystem keeps its size, because it lies on 2 devices"


def test_what_cannot_be_grown_is_refused() -> None:
    for kind in set(FilesystemKind) - set(GROWERS):
        with pytest.raises(RefusedError, match="cannot be grown"):
            grow_filesystem("/nowhere", kind, SystemRunner())
