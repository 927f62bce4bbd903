"""Used blocks of NTFS and exFAT that drivers wrote: fragmented, full, mounted. Needs root, loop devices and FUSE.

The drivers are ntfs-3g and exfat-fuse: kernels of rescue systems need not have their own.
"""

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dissect.ntfs import NTFS

from images.filesystems.detect import read_used
from images.model.extents import Extent
from images.sources import WindowSource, open_source
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, make_file, run, used

NTFS_TOOLS = ("losetup", "mkntfs", "ntfs-3g", "ntfsresize", "ntfsinfo", "ntfsfix", "partclone.ntfs")
EXFAT_TOOLS = ("losetup", "mkfs.exfat", "mount.exfat-fuse", "fsck.exfat", "dump.exfat", "partclone.exfat")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="FUSE is not available"),
    pytest.mark.skipif(bool(real.needs(*NTFS_TOOLS, *EXFAT_TOOLS)), reason=real.needs(*NTFS_TOOLS, *EXFAT_TOOLS)),
]

DRIVERS = {"ntfs": ("ntfs-3g", "-o"), "exfat": ("mount.exfat-fuse", "-o")}
LAYOUTS = {
    "ntfs-512": ("ntfs", 512, "mkntfs -Q -q -L disk"),
    "ntfs-4096": ("ntfs", 4096, "mkntfs -Q -q -L disk"),
    "ntfs-compressed": ("ntfs", 512, "mkntfs -Q -q -C -L disk"),
    "ntfs-clusters-of-512": ("ntfs", 512, "mkntfs -Q -q -c 512 -L disk"),
    "exfat-512": ("exfat", 512, "mkfs.exfat -c 4K -L disk"),
    "exfat-4096": ("exfat", 4096, "mkfs.exfat -L disk"),
    "exfat-clusters-of-512": ("exfat", 512, "mkfs.exfat -c 512 -L disk"),
}


@contextlib.contextmanager
def loop(path: Path, sector_size: int = 512) -> Iterator[Path]:
    device = run("losetup", "--find", "--show", "--sector-size", str(sector_size), path).strip()
    try:
        yield Path(device)
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(kind: str, device: Path, folder: Path, options: str = "rw") -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    run(*DRIVERS[kind], options, device, folder)
    try:
        yield folder
    finally:
        run("umount", folder)
        _wait_until_closed(device)


def _wait_until_closed(device: Path) -> None:
    """The driver is a process that goes on after umount has returned, and writes the last of it."""
    end = time.monotonic() + 30
    wanted = os.path.realpath(device)
    while any(_opens(process, wanted) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < end, f"{device} is still open"
        time.sleep(0.01)


def _opens(process: Path, wanted: str) -> bool:
    if process.name == str(os.getpid()):
        return False
    try:
        if (process / "comm").read_text().strip() not in ("ntfs-3g", "mount.exfat-fus", "mount.exfat"):
            return False
        return any(os.readlink(item) == wanted for item in (process / "fd").iterdir())
    except OSError:
        return False


def work(folder: Path, tree: Path) -> None:
    """Files come, go and are written by turns, so that both files and holes are in pieces."""
    shutil.copytree(tree, folder / "tree")
    shutil.copytree(tree, folder / "going")
    for number, item in enumerate(sorted((folder / "going").rglob("*.bin"))):
        if number % 3:
            item.unlink()
    files = [(folder / f"turn {number}").open("wb", buffering=0) for number in range(4)]
    for step in range(60):
        for number, file in enumerate(files):
            file.write(bytes([step, number]) * 3000)
    for file in files:
        file.close()
    (folder / "turn 1").unlink()


def assert_equals_tools(kind: str, path: Path, extents: list[Extent]) -> None:
    """A superset of partclone's, and as many clusters in use as the filesystem's own tool counts."""
    real.assert_covers(extents, real.partclone_used(f"partclone.{kind}", path))
    size = path.stat().st_size
    free = size - sum(extent.size for extent in extents)
    if kind == "ntfs":
        text = run("ntfsinfo", "-m", path)
        unit, count = (int(re.findall(rf"{name}: (\d+)", text)[0]) for name in ("Cluster Size", "Free Clusters"))
    else:
        text = run("dump.exfat", path)
        unit, count = (int(re.findall(rf"{name}:\s+(\d+)", text)[0]) for name in ("Cluster size", "Free Clusters"))
    assert free == unit * count


def assert_sound(kind: str, path: Path) -> None:
    if kind == "ntfs":
        run("ntfsresize", "--info", "--force", path)  # compares every file's clusters with $Bitmap
    else:
        run("fsck.exfat", "-n", path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_volume_that_a_driver_wrote(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    kind, sector_size, command = LAYOUTS[name]
    folder = tmp_path_factory.mktemp(f"{name}-")
    tree = real.make_tree(folder / "source", 11, accent="ö名")
    path = make_file(folder / "fs.img", 96 * MIB)
    options = "rw,compression" if name == "ntfs-compressed" else "rw"
    with loop(path, sector_size) as device:
        run(*command.split(), device)
        with mounted(kind, device, folder / "mnt", options) as mount:
            work(mount, tree)
            expected = real.digests(mount)
            if kind == "exfat":
                with open_source(device) as source:
                    answer = read_used(source)
                    assert "mounted, or was not cleanly unmounted" in answer.reason
        with open_source(device) as source:
            assert source.sector_size == sector_size
            answer = read_used(source)
            assert answer.trusted, answer.reason
            extents = list(answer.extents())
    assert used(path)[1] == extents
    assert answer.filesystem.label == "disk"
    assert answer.filesystem.uuid == run("blkid", "-p", "-o", "value", "-s", "UUID", path).strip()
    assert_equals_tools(kind, path, extents)
    copy = real.restore_copy(path, extents)
    with loop(copy, sector_size) as device:
        assert_sound(kind, device)
        with mounted(kind, device, folder / "mnt", "ro") as mount:
            assert real.digests(mount) == expected
    assert len(expected) > len(real.digests(tree))


@pytest.mark.parametrize("kind", ["ntfs", "exfat"])
def test_full_and_torn_to_pieces(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    """Thousands of small files until there is no room, every other one taken away, and the holes filled again.

    On NTFS the MFT itself then lies in more than a hundred runs.
    """
    folder = tmp_path_factory.mktemp(f"torn-{kind}-")
    path = make_file(folder / "fs.img", 12 * MIB)
    run(*("mkntfs -F -Q -q -c 512" if kind == "ntfs" else "mkfs.exfat -c 512 -b 512").split(), path)
    with loop(path) as device:
        with mounted(kind, device, folder / "mnt") as mount:
            for number in range(8):
                (mount / f"d{number}").mkdir()
            (mount / "fill").write_bytes(b"")
            count = _write_until_full(mount, "f", b"x" * 900)
            with contextlib.suppress(OSError), (mount / "fill").open("ab", buffering=0) as file:
                while file.write(b"y" * 512):
                    pass
            for number in range(0, count, 2):
                (mount / f"d{number % 8}" / f"f{number}").unlink()
            _write_until_full(
                mount, "g", b"" if kind == "ntfs" else b"z" * 1500, count // 8 if kind == "exfat" else count
            )
            expected = real.digests(mount)
    assert count > 2000
    assert len(expected) > count // 2
    answer, extents = used(path)
    assert answer.trusted, answer.reason
    assert len(extents) > 100
    assert_equals_tools(kind, path, extents)
    copy = real.restore_copy(path, extents)
    assert_sound(kind, copy)
    with loop(copy) as device, mounted(kind, device, folder / "mnt", "ro") as mount:
        assert real.digests(mount) == expected
    if kind == "ntfs":
        with path.open("rb") as file:
            assert len(NTFS(file).mft.get(0).dataruns()) > 100


#: Disks that Windows wrote, too large for the unit tests: clusters of 2 MiB, shadow copies, a GPT with an MSR.
WRITTEN_BY_WINDOWS = (
    "msuhanov+ntfs-samples/ntfs-2m.raw",
    "msuhanov+ntfs-samples/ntfs-lastaccess.raw",
    "msuhanov+ntfs-samples/ntfs-ramslack.raw",
    "msuhanov+dfir_ntfs/test_data/ntfs_index.raw",
    "msuhanov+dfir_ntfs/test_data/vss_1_vol.tar.gz.d/vss_1_vol.raw",
    "msuhanov+dfir_ntfs/test_data/vss_3_volstor.tar.gz.d/vss_3_volstor.raw",
)


def unpack(name: str, folder: Path) -> Path:
    """The disk in a sparse file."""
    packed, _, inner = name.partition(".d/")
    if inner:
        run("tar", "-C", folder, "-xzSf", real.DATA / packed)
        return folder / inner
    path = folder / Path(name).name
    with gzip.open(real.DATA / f"{name}.gz") as source, path.open("wb") as target:
        size = 0
        while piece := source.read(MIB):
            if piece.count(0) < len(piece):
                target.seek(size)
                target.write(piece)
            size += len(piece)
        target.truncate(size)
    return path


@pytest.mark.skipif(not real.TRUTH.is_dir(), reason=real.NO_DATA)
@pytest.mark.parametrize("name", WRITTEN_BY_WINDOWS)
def test_disks_of_other_projects(tmp_path: Path, name: str) -> None:
    """Equal to partclone's bitmaps of every NTFS partition, which were made elsewhere."""
    path = unpack(name, tmp_path)
    truth = json.loads((real.TRUTH / f"{name}.gt.json").read_text())
    table = json.loads(run("sfdisk", "--json", path))["partitiontable"]["partitions"]
    compared = 0
    with open_source(path) as source:
        for place, fact in zip(table, truth["partitions"], strict=True):
            if fact["blkid"].get("TYPE") != "ntfs":
                continue
            answer = read_used(WindowSource(source, place["start"] * 512, place["size"] * 512))
            assert answer.trusted, answer.reason
            assert answer.filesystem.uuid == fact["blkid"]["UUID"]
            assert answer.filesystem.label == fact["blkid"].get("LABEL", "").replace("\\ ", " ")
            partclone = fact["partclone"]
            bits = np.zeros(partclone["device_blocks"], dtype=np.uint8)
            for extent in answer.extents():
                bits[extent.start // partclone["block_size"] : -(-extent.end // partclone["block_size"])] = 1
            digest = hashlib.sha256(np.packbits(bits, bitorder="little").tobytes()).hexdigest()
            assert digest == partclone["bitmap_sha256"]
            compared += 1
    assert compared


def _write_until_full(mount: Path, prefix: str, content: bytes, most: int = 1 << 20) -> int:
    """How many files were written before the first that found no room, at most ``most``."""
    for number in range(most):
        path = mount / f"d{number % 8}" / f"{prefix}{number}"
        try:
            with path.open("wb", buffering=0) as file:
                if content and file.write(content) < len(content):
                    return number
        except OSError:
            return number
    return most
