"""The kernel counts what is written to a disk: a capture writes nothing, whatever state the disk is in. Needs root."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.capture import capture_disks
from tests.disk.test_full_destination import mounted
from tests.disk.test_loop_disks import loop
from tests.flow.disks import MIB, gpt_disk, make_tree, need, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")

KINDS = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_unclean_volume_stays_unclean(tmp_path: Path, kind: str) -> None:
    """Copied while it is mounted: whoever mounts it, even read-only, replays its journal, and that is writing."""
    need(KINDS[kind][0], "mount", "losetup")
    live, disk = tmp_path / "live.img", tmp_path / "disk.img"
    with live.open("wb") as stream:
        stream.truncate(320 * MIB)
    run(*KINDS[kind], live)
    with mounted(live, tmp_path / "mounted") as place:
        make_tree(place / "tree")
        os.sync()
        (place / "last").write_bytes(b"x" * 100_000)
        descriptor = os.open(place / "last", os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        shutil.copyfile(live, disk)
    _is_not_written(disk, tmp_path / "repo")


def test_a_whole_disk_is_not_written(tmp_path: Path) -> None:
    need("sfdisk", "mke2fs", "mkfs.vfat", "mcopy", "mkswap", "losetup")
    _is_not_written(gpt_disk(tmp_path / "disk.img", make_tree(tmp_path / "tree")), tmp_path / "repo")


def test_the_count_sees_writers(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(MIB))
    with loop(disk) as node:
        before = _written(node)
        with node.open("r+b", buffering=0) as stream:
            stream.write(bytes(4096))
            os.fsync(stream.fileno())
        assert _written(node) > before


def _is_not_written(disk: Path, repo: Path) -> None:
    """A capture through a device that could be written."""
    before, times = _digest(disk), (disk.stat().st_mtime_ns, disk.stat().st_ctime_ns)
    with loop(disk) as node:
        assert (Path("/sys/block") / node.name / "ro").read_text().strip() == "0"
        count = _written(node)
        capture_disks([node], str(repo), name="n", runner=SystemRunner(), sink=ignore)
        os.sync()
        assert _written(node) == count
    assert (_digest(disk), (disk.stat().st_mtime_ns, disk.stat().st_ctime_ns)) == (before, times)


def _written(node: Path) -> tuple[int, int, int]:
    """Writes, sectors written and discards that a block device has completed (Documentation/block/stat.rst)."""
    fields = [int(word) for word in (Path("/sys/block") / node.name / "stat").read_text().split()]
    return fields[4], fields[6], fields[11] if len(fields) > 11 else 0


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
