"""Smaller disks on plain files: what is needed at least, by the tools' own judgement; what goes wrong, and goes on."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from core.errors import DamagedError, RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.capture import CaptureResult
from images.model.extents import Extent
from images.sources import open_source
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable, ShrinkVolume, WipeSignatures, WriteHead
from restore.report import Report
from restore.shrink.ext import least_ext
from restore.shrink.leftovers import end_dead_mounts
from restore.shrink.mount import obstacle
from restore.shrink.ntfs import least_ntfs
from tests.flow.disks import MIB, blank, ext_files, gpt_disk, make_tree, need, partition_file, run

Capture = Callable[[Path], CaptureResult]
SMALLER = 130 * MIB
ROOT = (67584 * 512, 262144 * 512)

FUSE = pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "FUSE")

EXT = {
    "1k": "-t ext4 -b 1024",
    "4k": "-t ext4 -b 4096",
    "small-flex": "-t ext4 -b 1024 -G 4",
    "no-flex": "-t ext4 -b 1024 -O ^flex_bg",
    "meta-bg": "-t ext4 -b 1024 -O meta_bg,^resize_inode",
    "sparse-super2": "-t ext4 -b 1024 -O sparse_super2",
    "all-supers": "-t ext2 -b 1024 -O ^sparse_super,^resize_inode",
    "ext3": "-t ext3 -b 1024 -N 20000",
}


@pytest.fixture(scope="module")
def large_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("large") / "tree", files=300)


@pytest.mark.parametrize("kind", EXT)
def test_ext_can_be_made_as_small_as_is_said_and_not_much_smaller(kind: str, tmp_path: Path, large_tree: Path) -> None:
    """resize2fs makes it that small and e2fsck finds nothing; at four fifths of it resize2fs finds no room."""
    need("mke2fs", "resize2fs", "e2fsck")
    image = tmp_path / "ext"
    run("mke2fs", "-q", *EXT[kind].split(), "-d", large_tree, image, "120M")
    with open_source(image) as source:
        found = least_ext(source)
    assert found.shrinks and not found.estimate
    assert found.size < 90 * MIB
    less = shutil.copyfile(image, tmp_path / "less")
    run("resize2fs", "-f", image, f"{found.size // 1024}K")
    run("e2fsck", "-f", "-n", image)
    # 1: it found no room
    run("resize2fs", "-f", less, f"{found.size * 4 // 5 // 1024}K", success=(1,))


@pytest.mark.parametrize("feature", ["bigalloc", "stable_inodes"])
def test_ext_that_cannot_be_made_smaller_says_why(feature: str, tmp_path: Path) -> None:
    need("mke2fs")
    image = tmp_path / "ext"
    run("mke2fs", "-q", "-t", "ext4", "-O", feature, image, "64M")
    with open_source(image) as source:
        found = least_ext(source)
    assert not found.shrinks
    assert feature in found.reason
    assert found.size == 64 * MIB


def test_ext_without_its_journal_is_not_made_smaller(tmp_path: Path) -> None:
    """e2fsck does not check it while the device of its journal is away."""
    need("mke2fs", "debugfs")
    image = tmp_path / "ext"
    run("mke2fs", "-q", "-t", "ext4", image, "64M")
    run("debugfs", "-w", "-R", "set_super_value journal_inum 0", image)
    with open_source(image) as source:
        found = least_ext(source)
    assert found.reason == "its journal is on another device"


def test_what_ntfs_needs_is_not_below_what_ntfsresize_says(tmp_path: Path) -> None:
    need("mkntfs", "ntfscp", "ntfsresize")
    image, file = tmp_path / "ntfs", tmp_path / "file"
    with image.open("wb") as stream:
        stream.truncate(64 * MIB)
    run("mkntfs", "-q", "-F", "-f", "-c", "4096", image)
    file.write_bytes(random.Random(3).randbytes(9 * MIB))
    for name in ("one", "two"):
        run("ntfscp", "-f", image, file, name)
    with open_source(image) as source:
        found = least_ntfs(source)
    # "Minsize (in MB): 22", in millions of bytes, rounded up
    said = int(run("ntfsresize", "--info", "--info-mb-only", "-f", image).rsplit(":", 1)[1])
    assert (said - 1) * 10**6 <= found.size <= (said + 4) * 10**6
    assert found.estimate


def plan_smaller(repo: Path, target: Path) -> Plan:
    return plan_restore(str(repo), "latest", [target], RestoreChoices(), SystemRunner())


def carry_out(plan: Plan, scratch: Path | None = None) -> Report:
    return run_plan(plan, plan.digest, SystemRunner(), ignore, scratch=scratch)


def shrinking(plan: Plan) -> ShrinkVolume:
    return next(step for step in plan.steps if isinstance(step, ShrinkVolume))


def with_scratch(plan: Plan, scratch: int) -> Plan:
    """A plan whose step says that it needs another amount of scratch."""
    steps = tuple(
        msgspec.structs.replace(step, scratch=scratch) if isinstance(step, ShrinkVolume) else step
        for step in plan.steps
    )
    return msgspec.structs.replace(plan, steps=steps)


@FUSE
def test_every_file_comes_back_and_nothing_else_is_written(tmp_path: Path, tree: Path, capture: Capture) -> None:
    need("resize2fs", "fusermount3")
    disk = gpt_disk(tmp_path / "source.img", tree)
    files = ext_files(partition_file(disk, *ROOT))
    capture(disk)
    target = blank(tmp_path / "target.img", SMALLER)
    before = target.read_bytes()
    plan = plan_smaller(tmp_path / "repo", target)
    report = carry_out(plan)
    step = shrinking(plan)
    assert report.verified
    assert ext_files(partition_file(target, step.offset, step.size)) == files
    after = target.read_bytes()
    for extent in outside(plan, SMALLER):
        assert after[extent.start : extent.end] == before[extent.start : extent.end], extent


def outside(plan: Plan, size: int) -> list[Extent]:
    """What no step of the plan may touch: neither table nor partition, nothing that is wiped."""
    # both tables of a GPT disk, as the UEFI specification lays them out
    taken = [Extent(0, 34 * 512), Extent(size - 33 * 512, size)]
    for step in plan.steps:
        if isinstance(step, WipeSignatures | WriteHead):
            taken += step.extents
        elif isinstance(step, CreateTable):
            taken += [part.extent(512) for part in step.table.partitions]
    free, at = [], 0
    for extent in sorted(taken):
        if extent.start > at:
            free.append(Extent(at, extent.start))
        at = max(at, extent.end)
    return free


@FUSE
def test_too_little_scratch_is_refused_with_the_figures(tmp_path: Path, tree: Path, capture: Capture) -> None:
    capture(gpt_disk(tmp_path / "source.img", tree))
    target = blank(tmp_path / "target.img", SMALLER)
    before = target.read_bytes()
    plan = with_scratch(plan_smaller(tmp_path / "repo", target), 1 << 50)
    with pytest.raises(RefusedError, match=r"takes about 1024\.00 TiB of scratch, and .* has .* free .*--scratch.*F3"):
        carry_out(plan, tmp_path)
    assert target.read_bytes() == before


@FUSE
def test_a_damaged_chunk_is_met_before_anything_is_written(tmp_path: Path, tree: Path, capture: Capture) -> None:
    need("resize2fs", "fusermount3")
    capture(gpt_disk(tmp_path / "source.img", tree))
    target = blank(tmp_path / "target.img", SMALLER)
    before = target.read_bytes()
    plan = plan_smaller(tmp_path / "repo", target)
    for pack in (tmp_path / "repo" / "packs").rglob("*"):
        if pack.is_file():
            content = bytearray(pack.read_bytes())
            for place in range(4096, len(content), 4096):
                content[place] ^= 0x40
            pack.chmod(0o644)
            pack.write_bytes(content)
    with pytest.raises(DamagedError):
        carry_out(plan)
    assert target.read_bytes() == before


@FUSE
def test_run_again_it_keeps_what_matches_and_mends_the_rest(tmp_path: Path, tree: Path, capture: Capture) -> None:
    need("resize2fs", "fusermount3")
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", SMALLER)
    plan = plan_smaller(tmp_path / "repo", target)
    carry_out(plan)
    step = shrinking(plan)
    with target.open("r+b") as stream:
        stream.seek(step.offset + 10 * MIB)
        stream.write(random.Random(5).randbytes(MIB))
    again = next(found for found in carry_out(plan).steps if found.step == step.describe())
    # Pieces of 2 MiB, and few of them: the noise, the wiped ends and the time in the superblock change some.
    assert again.written > 0
    assert again.kept > 0
    assert again.verified >= again.written + again.kept
    assert ext_files(partition_file(target, step.offset, step.size)) == ext_files(partition_file(disk, *ROOT))


#: Mounts an overlay, says where, and waits to be killed.
_MOUNTS = """
import sys
from pathlib import Path
from core.process import SystemRunner
from images.overlay import open_overlay
from images.sources import open_source
from restore.shrink.mount import mounted_overlay
with open_source(Path(sys.argv[1])) as source, open_overlay(source, Path(sys.argv[2])) as overlay:
    with mounted_overlay(overlay, SystemRunner()) as path:
        print(path.parent, flush=True)
        sys.stdin.read()
"""


@FUSE
def test_what_a_killed_run_left_mounted_is_ended_by_the_next(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", MIB)
    words = [sys.executable, "-c", _MOUNTS, str(image), str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        dead = Path(killed.stdout.readline().strip())
        assert dead.is_mount()
        killed.kill()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(dead)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as alive:
        assert alive.stdout is not None
        other = Path(alive.stdout.readline().strip())
        assert other != dead
        # It ended the dead one before it mounted its own; a third leaves that one alone.
        assert not os.path.lexists(dead)
        assert end_dead_mounts(SystemRunner()) == ()
        assert os.listdir(other) == ["volume"]
        assert (other / "volume").stat().st_size == image.stat().st_size
        alive.communicate()
    assert alive.returncode == 0
    assert not os.path.lexists(other)
