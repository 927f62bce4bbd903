"""Used blocks of filesystems that the kernel wrote: mounted, frozen, unmounted. Needs root and loop devices."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.filesystems.detect import read_used
from images.sources import open_source
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, dumpe2fs_used, make_file, run, used

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root"),
    pytest.mark.skipif(bool(real.needs("losetup", "mke2fs", "fsfreeze")), reason="util-linux or e2fsprogs are missing"),
]

LAYOUTS = {
    "ext2": "-t ext2 -b 1024",
    "ext3": "-t ext3",
    "ext4": "-t ext4",
    "ext4-1k": "-t ext4 -b 1024",
    "ext4-no-csum": "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit",
    "ext4-bigalloc": "-t ext4 -O bigalloc",
    "ext4-meta-bg": "-t ext4 -b 1024 -O meta_bg,^resize_inode",
}


@contextlib.contextmanager
def mounted(device: Path, folder: Path, options: str = "rw") -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    run("mount", "-o", options, device, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


@contextlib.contextmanager
def loop(path: Path) -> Iterator[Path]:
    device = run("losetup", "--find", "--show", path).strip()
    try:
        yield Path(device)
    finally:
        run("losetup", "--detach", device)


def work(folder: Path, tree: Path) -> None:
    """What a machine does to a filesystem: files come, go, grow and are allocated ahead."""
    shutil.copytree(tree, folder / "tree")
    shutil.copytree(tree, folder / "going")
    for number, item in enumerate(sorted((folder / "going").rglob("*.bin"))):
        if number % 3:
            item.unlink()
    if "ext4" in folder.parent.name:
        run("fallocate", "-l", "9M", folder / "ahead")
    os.sync()


@pytest.mark.parametrize("name", LAYOUTS)
def test_unmounted_filesystem(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Equal to dumpe2fs; a copy of the used extents is clean and holds every file."""
    folder = tmp_path_factory.mktemp(f"{name}-")
    tree = real.make_tree(folder / "source", 3)
    path = make_file(folder / "fs.img", 200 * MIB)
    run("mke2fs", "-q", "-F", *LAYOUTS[name].split(), path)
    with loop(path) as device, mounted(device, folder / "mnt") as mount:
        work(mount, tree)
        with open_source(device) as source:
            answer = read_used(source)
            assert not answer.trusted
            assert "mounted, or was not cleanly unmounted" in answer.reason
    answer, extents = used(path)
    assert answer.trusted, answer.reason
    assert extents == dumpe2fs_used(path)
    copy = real.restore_copy(path, extents)
    run("e2fsck", "-fn", copy)
    with loop(path) as device, mounted(device, folder / "mnt", "ro") as mount:
        expected = real.digests(mount)
    with loop(copy) as device, mounted(device, folder / "mnt", "ro") as mount:
        assert real.digests(mount) == expected
    assert len(expected) > len(real.digests(tree))


@pytest.mark.parametrize("name", ["ext3", "ext4", "ext4-no-csum", "ext4-bigalloc"])
def test_frozen_filesystem_is_believed(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """fsfreeze (and so LVM's snapshot) leaves a clean journal: the map counts, also with files open and deleted."""
    folder = tmp_path_factory.mktemp(f"{name}-")
    tree = real.make_tree(folder / "source", 3)
    path = make_file(folder / "fs.img", 200 * MIB)
    run("mke2fs", "-q", "-F", *LAYOUTS[name].split(), path)
    with loop(path) as device, mounted(device, folder / "mnt") as mount:
        work(mount, tree)
        expected = real.digests(mount)
        with (mount / "open and deleted").open("wb") as file:
            file.write(bytes(range(256)) * 4000)
            (mount / "open and deleted").unlink()
            run("fsfreeze", "--freeze", mount)
            try:
                with open_source(device) as source:
                    answer = read_used(source)
                    extents = list(answer.extents())
                snapshot = Path(shutil.copyfile(device, folder / "snapshot.img"))
            finally:
                run("fsfreeze", "--unfreeze", mount)
    assert answer.trusted, answer.reason
    copy = real.restore_copy(snapshot, extents)
    with loop(copy) as device, mounted(device, folder / "mnt") as mount:
        assert real.digests(mount) == expected
    run("e2fsck", "-fn", copy)


def test_active_swap_is_its_header(tmp_path: Path) -> None:
    path = make_file(tmp_path / "swap", 20 * MIB)
    path.chmod(0o600)
    run("mkswap", path)
    with loop(path) as device:
        run("swapon", device)
        try:
            with open_source(device) as source:
                answer = read_used(source)
                assert answer.trusted
                assert [extent.size for extent in answer.extents()] == [4096]
        finally:
            run("swapoff", device)
