"""Real block devices: loop disks with sectors of 512 and 4096 bytes. Needs root."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.probe import probe_machine
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from tests.flow.disks import MIB, blank, ext_files, make_tree, need, partition_file, run

EXT_START, EXT_SIZE = 34 * MIB, 96 * MIB


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("losetup", "sfdisk", "mke2fs", "debugfs", "e2fsck", "resize2fs", "mount")
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    return make_tree(tmp_path_factory.mktemp("tree") / "tree")


@contextlib.contextmanager
def loop(file: Path, sector_size: int = 512, *options: str) -> Iterator[Path]:
    node = run("losetup", "--find", "--show", f"--sector-size={sector_size}", *options, file).strip()
    try:
        yield Path(node)
    finally:
        run("losetup", "--detach", node)


def _source(path: Path, tree: Path, sector_size: int) -> Path:
    """GPT with an opaque 32 MiB partition of zeros and an ext4, made through the loop device."""
    with path.open("wb") as stream:
        stream.truncate(160 * MIB)
    unit = sector_size
    with loop(path, sector_size) as node:
        run(
            "sfdisk", "-q", node,
            stdin=f"label: gpt\nstart={MIB // unit},size={32 * MIB // unit},name=first\n"
            f"start={EXT_START // unit},size={EXT_SIZE // unit},name=root\n",
        )  # fmt: skip
    run("mke2fs", "-q", "-b", "4096", "-d", tree, "-E", f"offset={EXT_START}", path, f"{EXT_SIZE // 1024}K")
    return path


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_device_to_device(sector_size: int, tmp_path: Path, tree: Path) -> None:
    source = _source(tmp_path / "source.img", tree, sector_size)
    target = blank(tmp_path / "target.img", 240 * MIB)
    runner, repo = SystemRunner(), str(tmp_path / "repo")
    with loop(source, sector_size, "--read-only") as node:
        capture_disks([node], repo, name="", runner=runner, sink=ignore)
        table = run("sfdisk", "--dump", node).replace(str(node), "")
    with loop(target, sector_size) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(grow=True), runner)
        report = run_plan(plan, plan.digest, runner, ignore)
        assert report.verified
        assert not report.warnings
        restored = run("sfdisk", "--dump", node).replace(str(node), "")
    wanted = [line.split("size=")[0] for line in table.splitlines() if "start=" in line or "label-id" in line]
    assert [
        line.split("size=")[0] for line in restored.splitlines() if "start=" in line or "label-id" in line
    ] == wanted
    grown = partition_file(target, EXT_START, (239 - 34) * MIB)
    assert ext_files(grown) == ext_files(partition_file(source, EXT_START, EXT_SIZE))


def test_a_target_with_other_sectors_is_refused_with_the_reason(tmp_path: Path, tree: Path) -> None:
    source = _source(tmp_path / "source.img", tree, 512)
    runner, repo = SystemRunner(), str(tmp_path / "repo")
    capture_disks([source], repo, name="", runner=runner, sink=ignore)
    with loop(blank(tmp_path / "target.img", 240 * MIB), 4096) as node:
        with pytest.raises(RefusedError, match="sectors of 4096"):
            plan_restore(repo, "latest", [node], RestoreChoices(), runner)


def _filesystem_as_target(folder: Path, tree: Path) -> tuple[str, Path, Path]:
    """A repository, a target that is one ext2, and a folder to mount it at."""
    source, target, repo = _source(folder / "source.img", tree, 512), folder / "target.img", str(folder / "repo")
    with target.open("wb") as stream:
        stream.truncate(200 * MIB)
    run("mke2fs", "-q", target)
    capture_disks([source], repo, name="", runner=SystemRunner(), sink=ignore)
    place = folder / "mounted"
    place.mkdir()
    return repo, target, place


def test_a_mounted_target_is_refused_and_untouched(tmp_path: Path, tree: Path) -> None:
    repo, target, place = _filesystem_as_target(tmp_path, tree)
    runner = SystemRunner()
    with loop(target) as node:
        run("mount", node, place)
        try:
            with pytest.raises(RefusedError, match=f"mounted on {place}"):
                plan_restore(repo, "latest", [node], RestoreChoices(), runner)
            with pytest.raises(RefusedError, match="attached as"):
                plan_restore(repo, "latest", [target], RestoreChoices(), runner)
        finally:
            run("umount", place)
    run("e2fsck", "-f", "-n", target)


def test_a_target_that_is_mounted_after_planning_is_refused(tmp_path: Path, tree: Path) -> None:
    repo, target, place = _filesystem_as_target(tmp_path, tree)
    runner = SystemRunner()
    with loop(target) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(), runner)
        run("mount", node, place)
        try:
            with pytest.raises(RefusedError, match="is mounted on"):
                run_plan(plan, plan.digest, runner, ignore)
        finally:
            run("umount", place)
    run("e2fsck", "-f", "-n", target)


def test_the_disk_that_carries_the_repository_is_no_target(tmp_path: Path, tree: Path) -> None:
    stick = tmp_path / "stick.img"
    with stick.open("wb") as stream:
        stream.truncate(300 * MIB)
    run("mke2fs", "-q", stick)
    source = _source(tmp_path / "source.img", tree, 512)
    place = tmp_path / "stick"
    place.mkdir()
    runner = SystemRunner()
    with loop(stick) as node:
        run("mount", node, place)
        try:
            run("rmdir", place / "lost+found")
            repo = str(place / "repo")
            capture_disks([source], repo, name="", runner=runner, sink=ignore)
            with pytest.raises(RefusedError) as caught:
                plan_restore(repo, "latest", [node], RestoreChoices(), runner)
            assert any("carries the repository" in reason for reason in caught.value.reasons)
            with pytest.raises(RefusedError) as caught:
                capture_disks([node], repo, name="", runner=runner, sink=ignore)
            assert any("the source is never written" in reason for reason in caught.value.reasons)
        finally:
            run("umount", place)


def test_the_probe_sees_this_machine(tmp_path: Path) -> None:
    machine = probe_machine(SystemRunner())
    assert machine.ram > 0
    for disk in machine.disks:
        assert disk.size > 0
        assert disk.sector_size in (512, 4096)


def test_a_disk_of_a_filesystem_on_two_is_not_captured_while_that_is_mounted(tmp_path: Path) -> None:
    """lsblk says of one of them alone where it is mounted."""
    need("losetup", "mkfs.btrfs", "mount", "umount")
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    disks = [blank(tmp_path / f"{number}.img", 300 * MIB) for number in (1, 2)]
    place, repo = tmp_path / "mounted", str(tmp_path / "repo")
    place.mkdir()
    with loop(disks[0]) as first, loop(disks[1]) as second:
        run("mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", first, second)
        run("mount", first, place)
        try:
            for node in (first, second):
                with pytest.raises(
                    RefusedError, match=rf"cannot be captured: {node} is (mounted on|held by the kernel)"
                ):
                    capture_disks([node], repo, name="", runner=SystemRunner(), sink=ignore)
        finally:
            run("umount", place)
        capture_disks([second], repo, name="", runner=SystemRunner(), sink=ignore)
