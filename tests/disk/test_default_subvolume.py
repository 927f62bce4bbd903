"""The subvolume of a btrfs that is mounted when none is named, by what btrfs-progs and the kernel say. Needs root.

openSUSE's root is such a one, below folders and other subvolumes: a snapshot of snapper's.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner
from images.browse.tree import Tree
from images.browse.view import root_in
from images.model.filesystem import FilesystemKind
from images.store.connect import open_repository
from rescue.jobs.browse import OpenPoint
from rescue.jobs.capture import capture_disks
from restore.planning.kernels import Kernels, kernels_on
from tests.disk.test_browse import mounted
from tests.flow.disks import MIB, need, run

KERNEL, INITRAMFS = 2 * MIB + 11, 3 * MIB + 7


def _snapshot(top: Path, number: int) -> Path:
    return top / "@" / ".snapshots" / str(number) / "snapshot"


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """As openSUSE's installer leaves a btrfs (libstorage-ng, snapper's installation-helper), and one snapshot later."""
    need("mkfs.btrfs", "btrfs")
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk.img"
    disk.touch()
    os.truncate(disk, 128 * MIB)
    run("mkfs.btrfs", "-q", "-f", disk)
    with mounted(disk, tmp_path / "mnt", "subvolid=5") as top:
        for name in ("@", "@/home", "@/.snapshots"):
            run("btrfs", "subvolume", "create", top / name)
        (top / "@/boot/grub2").mkdir(parents=True)
        run("btrfs", "subvolume", "create", top / "@/boot/grub2/i386-pc")
        for number in (1, 2):
            _snapshot(top, number).parent.mkdir()
            run("btrfs", "subvolume", "create", _snapshot(top, number))
            for folder in ("etc", "boot"):
                (_snapshot(top, number) / folder).mkdir()
            (_snapshot(top, number) / "etc/fstab").write_text(f"# of snapshot {number}\n")
            (_snapshot(top, number) / "boot/vmlinuz-6.4.0-default").write_bytes(os.urandom(KERNEL + number))
            (_snapshot(top, number) / "boot/initrd-6.4.0-default").write_bytes(os.urandom(INITRAMFS))
    yield disk


def _tree(image: Path, folder: Path) -> Tree:
    capture_disks([image], str(folder / "repo"), name="", runner=SystemRunner(), sink=ignore)
    point = OpenPoint(open_repository(str(folder / "repo")), "latest")
    (volume,) = point.manifest.volumes
    return point.tree(volume)


@pytest.mark.parametrize("number", [1, 2])
def test_kernels_and_fstab_are_those_of_the_default_subvolume(number: int, image: Path, tmp_path: Path) -> None:
    with mounted(image, tmp_path / "mnt", "subvolid=5") as top:
        run("btrfs", "subvolume", "set-default", _snapshot(top, number))
    with mounted(image, tmp_path / "mnt", "ro") as seen:
        fstab = (seen / "etc/fstab").read_text()
    tree = _tree(image, tmp_path)
    assert tree.default.path == f"/@/.snapshots/{number}/snapshot"
    assert kernels_on(tree.source, FilesystemKind.BTRFS) == Kernels(KERNEL + number + INITRAMFS)
    found = root_in(tree)
    assert found is not None and found[1] == fstab == f"# of snapshot {number}\n"


def test_without_one_it_is_the_top(image: Path, tmp_path: Path) -> None:
    tree = _tree(image, tmp_path)
    assert tree.default == tree.root
    assert kernels_on(tree.source, FilesystemKind.BTRFS) == Kernels()
