"""A system whose root is a subvolume of btrfs: found, and mounted as its own fstab says. Needs root."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.process import SystemRunner
from images.model.filesystem import Filesystem
from images.model.layout import FilesystemKind, Partition, PartitionRole
from restore.boot.held import Held, HeldPartition
from restore.boot.mounts import Root, find_root, mounted_system
from tests.disk.test_loop_disks import loop
from tests.flow.disks import MIB, blank, need, run


def uuid_of(node: Path) -> str:
    return run("blkid", "--probe", "-s", "UUID", "-o", "value", node).strip()


def held(node: Path) -> dict[str, Held]:
    """The device as a partition that is known to hold this btrfs."""
    filesystem = Filesystem(kind=FilesystemKind.BTRFS, uuid=uuid_of(node))
    partition = Partition(
        id="disk0-part1",
        number=1,
        start_lba=0,
        sector_count=1,
        type="",
        role=PartitionRole.PRIMARY,
        filesystem=filesystem,
    )
    return {str(node): HeldPartition(partition=partition, disk="", partuuid="")}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Path]:
    need("mkfs.btrfs", "btrfs", "mount")
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if "btrfs" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no btrfs")
    disk = blank(tmp_path / "disk", 128 * MIB)
    run("mkfs.btrfs", "-q", "-f", disk)
    with loop(disk) as found:
        yield found


def make(node: Path, place: Path, names: tuple[str, ...], fstab: str) -> None:
    """Subvolumes at the top; the first is the system, and the others but @home are snapshots of it."""
    place.mkdir()
    run("mount", "-o", "subvolid=5", node, place)
    try:
        system = place / names[0]
        run("btrfs", "subvolume", "create", system)
        for name in ("etc", "usr/lib", "home", "dev", "proc", "sys", "run"):
            (system / name).mkdir(parents=True)
        (system / "etc/fstab").write_text(fstab.format(uuid_of(node)))
        (system / "usr/lib/os-release").write_text("ID=test\n")
        (system / "name").write_text(names[0])
        for name in names[1:]:
            if name == "@home":
                run("btrfs", "subvolume", "create", place / name)
                (place / name / "user").touch()
                continue
            run("btrfs", "subvolume", "snapshot", system, place / name)
            (place / name / "name").write_text(name)
    finally:
        run("umount", place)


@pytest.mark.parametrize(
    ("names", "fstab", "wanted"),
    [
        (
            ("@", "@home", "@0-before-upgrade"),
            "UUID={0} / btrfs subvol=/@ 0 0\nUUID={0} /home btrfs subvol=@home 0 0\n",
            "@",
        ),
        (
            ("main", "@home", "a-snapshot"),
            "UUID={0} / btrfs rw,subvol=main 0 0\nUUID={0} /home btrfs subvol=/@home 0 0\n",
            "main",
        ),
        # An fstab that does not name it (the kernel's command line does): by the name that installers give.
        (
            ("root", "@home", "a-snapshot"),
            "UUID={0} / btrfs defaults 0 0\nUUID={0} /home btrfs subvol=@home 0 0\n",
            "root",
        ),
    ],
)
def test_the_root_is_found_in_its_subvolume(
    node: Path, tmp_path: Path, names: tuple[str, ...], fstab: str, wanted: str
) -> None:
    make(node, tmp_path / "place", names, fstab)
    runner, said = SystemRunner(), list[str]()
    found = find_root(held(node), runner, said.append)
    assert found == Root(str(node), wanted)
    assert not said
    with mounted_system(found, held(node), runner) as mounted:
        assert (mounted.root / "name").read_text() == wanted
        assert (mounted.root / "home/user").exists()
        assert mounted.absent == ()
    assert str(node) not in Path("/proc/mounts").read_text()


def test_another_disk_with_the_same_uuid_is_not_mounted_instead(node: Path, tmp_path: Path) -> None:
    """The disk that was captured is in the machine beside the restored one: the kernel knows both by one UUID."""
    fstab = "UUID={0} / btrfs subvol=@ 0 0\n"
    make(node, tmp_path / "place", ("@",), fstab)
    run("sync")
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / "disk").read_bytes())
    runner = SystemRunner()
    with loop(copy) as other:
        run("mount", "-o", "subvol=@", node, tmp_path / "place")
        (tmp_path / "place" / "name").write_text("the first")
        run("umount", tmp_path / "place")
        run("btrfs", "device", "scan")
        for disk, name in ((other, "@"), (node, "the first"), (other, "@")):
            nodes = held(disk)
            found = find_root(nodes, runner, lambda text: None)
            assert found == Root(str(disk), "@")
            with mounted_system(found, nodes, runner) as mounted:
                assert (mounted.root / "name").read_text() == name


def test_a_btrfs_without_a_system_has_no_root(node: Path, tmp_path: Path) -> None:
    assert find_root(held(node), SystemRunner(), lambda text: None) is None
