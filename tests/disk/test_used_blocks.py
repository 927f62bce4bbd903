"""Used blocks of filesystems that the kernel wrote: mounted, frozen, unmounted. Needs root and loop devices."""

import contextlib
import gzip
import json
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.process import SystemRunner
from images.filesystems.detect import read_used
from images.filesystems.partclone import Partclone
from images.model.extents import Extent, clip, total
from images.sources import WindowSource, open_source
from tests.disk.volumes import KINDS, Volume
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, dumpe2fs_used, make_file, run, used, whole

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
def loop(path: Path, *options: str) -> Iterator[Path]:
    device = run("losetup", "--find", "--show", *options, path).strip()
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


class CrossCheck:
    """Ours against theirs, state by state, on one volume."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._ask = Partclone(SystemRunner()).read

    def holds(self, *, files: bool = True, by_partclone: bool = False) -> list[Extent]:
        """The map is believed and covers partclone's; a copy of it is sound and holds every file."""
        volume = self._volume
        expected = volume.digests()
        with volume.device() as device, open_source(device) as source:
            answer = read_used(source, self._ask)
            extents = list(answer.extents())
            size = source.size
            if by_partclone and volume.kind.partclone and not real.needs(volume.kind.partclone):
                real.assert_covers(extents, partclone_used(volume.kind.partclone, device, volume.path.parent))
        assert answer.trusted, answer.reason
        real.assert_sound(extents, size)
        # NTFS keeps a copy of its boot sector in the last sector of the partition, too
        assert total(clip(extents, Extent(volume.size, max(size, volume.size)))) <= 4096
        copy = real.restore_copy(volume.path, extents)
        volume.check(copy)
        assert volume.digests(copy) == expected
        assert bool(expected) == files
        return extents


def partclone_used(tool: str, device: Path, folder: Path) -> list[Extent]:
    """What partclone says of a device; its files go to ``folder``."""
    link = folder / "device"
    link.unlink(missing_ok=True)
    link.symlink_to(device)
    return real.partclone_used(tool, link)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real.make_tree(tmp_path_factory.mktemp("files") / "tree", 11)


@pytest.mark.parametrize("name", KINDS)
def test_every_state_of_every_filesystem(tmp_path: Path, files: Path, name: str) -> None:
    kind = KINDS[name]
    if missing := real.needs(*kind.tools):
        pytest.skip(missing)
    volume = Volume(kind, tmp_path, 512)
    cross = CrossCheck(volume)
    empty = total(cross.holds(files=False))
    volume.fill(files)
    filled = total(cross.holds())
    assert filled > empty + 2 * MIB
    volume.thin_out()
    thin = total(cross.holds(by_partclone=True))
    assert thin < filled or name.startswith("btrfs")  # partclone keeps more there than it must
    volume.fill_up()
    assert total(cross.holds()) > filled
    for megabytes in kind.sizes[1:]:
        if megabytes:
            if megabytes * MIB < volume.size:
                volume.empty_again()
            volume.resize(megabytes)
            cross.holds(by_partclone=megabytes == kind.sizes[-1])


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("fat12", "ext3", "xfs-rmap", "btrfs-mixed")])
def test_sectors_of_4096_bytes(tmp_path: Path, files: Path, name: str) -> None:
    kind = KINDS[name]
    if missing := real.needs(*kind.tools):
        pytest.skip(missing)
    volume = Volume(kind, tmp_path, 4096)
    volume.fill(files)
    volume.thin_out()
    CrossCheck(volume).holds()


def test_xfs_that_is_mounted_or_frozen_needs_recovery(tmp_path: Path, files: Path) -> None:
    """fsfreeze leaves a record in the log on purpose, so that files deleted while open are freed after a crash."""
    if missing := real.needs(*KINDS["xfs"].tools):
        pytest.skip(missing)
    volume = Volume(KINDS["xfs"], tmp_path, 512)
    with volume.mounted() as folder:
        shutil.copytree(files, folder / "tree")
        run("fsfreeze", "--freeze", folder)
        frozen = Path(shutil.copyfile(volume.path, tmp_path / "frozen"))
        run("fsfreeze", "--unfreeze", folder)
    assert "its log needs recovery" in whole(frozen)
    expected = volume.digests()
    assert volume.digests(frozen) == expected  # mounts, plays the log and unmounts
    answer, extents = used(frozen)
    assert answer.trusted, answer.reason
    assert volume.digests(real.restore_copy(frozen, extents)) == expected


def test_btrfs_with_a_log_tree_is_not_believed(tmp_path: Path) -> None:
    """What was synced since the last commit lies in no tree that partclone walks."""
    if missing := real.needs(*KINDS["btrfs"].tools, "partclone.btrfs"):
        pytest.skip(missing)
    volume = Volume(KINDS["btrfs"], tmp_path, 512)
    with volume.mounted() as folder:
        run("sync", "-f", folder)
        with (folder / "synced").open("wb") as file:
            file.write(bytes(range(256)) * 4000)
            file.flush()
            os.fsync(file.fileno())
        crashed = Path(shutil.copyfile(volume.path, tmp_path / "crashed"))
    assert int(re.search(r"^log_root\s+(\d+)$", run("btrfs", "inspect-internal", "dump-super", crashed), re.M)[1])
    with open_source(crashed) as source:
        answer = read_used(source, Partclone(SystemRunner()).read)
        assert list(answer.extents()) == [Extent(0, source.size)]
    assert answer.reason.startswith("its log needs recovery")


def test_btrfs_keeps_both_copies_of_data(tmp_path: Path, files: Path) -> None:
    """partclone's map has the first one only; the other would be garbage that btrfs reads when the first one fails."""
    kind = msgspec.structs.replace(KINDS["btrfs"], make="mkfs.btrfs -q -f -d dup -m dup {}")
    if missing := real.needs(*kind.tools, "partclone.btrfs"):
        pytest.skip(missing)
    volume = Volume(kind, tmp_path, 512)
    volume.fill(files)
    CrossCheck(volume).holds()


def test_partclone_sees_a_part_of_a_disk(tmp_path: Path, files: Path) -> None:
    """At an offset, in a file and on a device, with sectors of both sizes; and the loop devices go away again."""
    if missing := real.needs("mkfs.f2fs", "sload.f2fs", "fsck.f2fs", "dump.f2fs", "partclone.f2fs"):
        pytest.skip(missing)
    path = make_file(tmp_path / "f2fs", 100 * MIB)
    run("mkfs.f2fs", "-q", "-f", path)
    before = set(run("losetup", "--list", "--noheadings").splitlines())
    ask = Partclone(SystemRunner()).read
    with open_source(path) as source:
        assert total(read_used(source, ask).extents()) < 20 * MIB
    run("sload.f2fs", "-f", files, path, codes=(0, 1))
    disk = make_file(tmp_path / "disk", 110 * MIB)
    with disk.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(path.read_bytes())
    answers = []
    with open_source(disk) as source:
        answers.append(read_used(WindowSource(source, 3 * MIB, 100 * MIB), ask))
    for sector_size in (512, 4096):
        with loop(disk, f"--sector-size={sector_size}") as device, open_source(device) as source:
            answers.append(read_used(WindowSource(source, 3 * MIB, 100 * MIB), ask))
    # The kernel may still have been letting go of an earlier test's loop device.
    assert set(run("losetup", "--list", "--noheadings").splitlines()) <= before
    extents = list(answers[0].extents())
    assert [answer.reason for answer in answers] == ["", "", ""]
    assert all(answer.trusted and list(answer.extents()) == extents for answer in answers)
    copy = real.restore_copy(path, extents)
    run("fsck.f2fs", "--dry-run", "-f", copy)
    # nothing here reads f2fs: every whole block of every file must be somewhere in the copy, among the random garbage
    content = copy.read_bytes()
    blocks = {content[offset : offset + 4096] for offset in range(0, len(content), 4096)}
    for file in files.rglob("*.bin"):
        data = file.read_bytes()
        assert {data[offset : offset + 4096] for offset in range(0, len(data) // 4096 * 4096, 4096)} <= blocks


@pytest.mark.skipif(not real.DATA.is_dir(), reason=real.NO_DATA)
@pytest.mark.skipif(bool(real.needs("qemu-img", "partclone.btrfs")), reason="qemu-img or partclone are missing")
@pytest.mark.parametrize("name", ["Xfs/Data/xfs5.vhdx", "Btrfs/Data/btrfs.vhdx"])
def test_disks_that_hyper_v_wrote(tmp_path: Path, name: str) -> None:
    """Equal to partclone's map of them, but for what we keep on purpose."""
    place = f"LTRData+DiscUtils/Tests/LibraryTests/{name}"
    container, disk = tmp_path / "disk.vhdx", tmp_path / "disk.raw"
    container.write_bytes(gzip.decompress((real.DATA / f"{place}.gz").read_bytes()))
    run("qemu-img", "convert", "-O", "raw", container, disk)
    truth = json.loads((real.TRUTH / f"{place}.gt.json").read_text())
    sectors = truth["sfdisk"]["partitions"][0]
    partclone = truth["partitions"][0]["partclone"]
    with open_source(disk) as source:
        window = WindowSource(source, sectors["start"] * 512, sectors["size"] * 512)
        answer = read_used(window, Partclone(SystemRunner()).read)
        extents = list(answer.extents())
    assert answer.trusted, answer.reason
    assert answer.filesystem.uuid == truth["partitions"][0]["blkid"]["UUID"]
    kept = 16 * 4096 if "Xfs" in name else MIB  # four free lists of four blocks; what is in front of all block groups
    size = partclone["bitmap_popcount"] * partclone["block_size"]
    assert size <= total(extents) <= size + kept


@pytest.mark.skipif(not real.DATA.is_dir(), reason=real.NO_DATA)
@pytest.mark.skipif(bool(real.needs("btrfs", "partclone.btrfs")), reason="btrfs-progs or partclone are missing")
@pytest.mark.parametrize("name", sorted(path.name for path in real.DATA.glob("kdave+btrfs-progs/**/*.raw.xz")))
def test_damaged_btrfs(tmp_path: Path, name: str) -> None:
    """A copy of what is believed has exactly the faults that btrfs check finds in the original."""
    path = tmp_path / "fs.raw"
    path.write_bytes(lzma.decompress(next(real.DATA.glob(f"kdave+btrfs-progs/**/{name}")).read_bytes()))
    with open_source(path) as source:
        answer = read_used(source, Partclone(SystemRunner()).read)
        extents = list(answer.extents())
        real.assert_sound(extents, source.size)
    if not answer.trusted:
        assert answer.reason
        return
    found = [
        subprocess.run(
            ["btrfs", "check", "--readonly", "--check-data-csum", item], capture_output=True, text=True, timeout=60
        )
        for item in (path, real.restore_copy(path, extents))
    ]
    assert found[0].returncode == found[1].returncode
    assert found[0].stderr == found[1].stderr
