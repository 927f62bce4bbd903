"""disk → image → disk on plain files: every kind of disk, same size, larger and smaller."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner
from images.capture import CaptureResult
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.report import Report
from tests.flow.disks import DISKS, MIB, blank, ext_files, fat_files, gpt_disk, need, partition_file, run, table_of

Capture = Callable[[Path], CaptureResult]
#: Where each disk's ext filesystems lie: offset and size in bytes.
EXT = {
    "gpt": [(67584 * 512, 262144 * 512)],
    "dos": [(2048 * 512, 131072 * 512), (135168 * 512, 131072 * 512)],
    "cloud": [(131072 * 512, 262144 * 512)],
    "bare": [(0, 64 * MIB)],
}


def restore(repo: Path, target: Path, choices: RestoreChoices | None = None) -> Report:
    runner = SystemRunner()
    plan = plan_restore(str(repo), "latest", [target], choices or RestoreChoices(), runner)
    return run_plan(plan, plan.digest, runner, ignore)


@pytest.mark.parametrize("kind", DISKS)
def test_every_byte_that_counts_comes_back(kind: str, tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = DISKS[kind](tmp_path / "source.img", tree)
    before = disk.read_bytes()
    capture(disk)
    target = blank(tmp_path / "target.img", disk.stat().st_size)
    report = restore(tmp_path / "repo", target)
    assert disk.read_bytes() == before, "the source was written"
    assert report.verified
    if kind != "bare":
        assert table_of(target) == table_of(disk)
        assert target.read_bytes()[:440] == before[:440]
    for start, size in EXT[kind]:
        files = ext_files(partition_file(target, start, size))
        assert files == ext_files(partition_file(disk, start, size))
        assert len(files) > 60


def test_the_gap_behind_a_dos_table_comes_back(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = DISKS["dos"](tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 300 * MIB)
    restore(tmp_path / "repo", target)
    assert target.read_bytes()[512:MIB] == disk.read_bytes()[512:MIB]


def test_the_esp_is_equal_file_by_file(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 200 * MIB)
    restore(tmp_path / "repo", target)
    esp = partition_file(target, MIB, 32 * MIB)
    assert fat_files(esp) == {path.name: path.read_bytes() for path in (tree / "etc").iterdir()}


def test_swap_keeps_uuid_and_label(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 200 * MIB)
    restore(tmp_path / "repo", target)
    start = 329728 * 512
    assert target.read_bytes()[start : start + 4096] == disk.read_bytes()[start : start + 4096]


def test_a_larger_disk_is_filled_when_asked(tmp_path: Path, tree: Path, capture: Capture) -> None:
    need("losetup", "resize2fs")

    if os.geteuid() != 0:
        pytest.skip("growing a filesystem inside an image file needs root for a loop device")
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 400 * MIB)
    restore(tmp_path / "repo", target, RestoreChoices(grow=True))
    size = (399 - 32 - 33) * MIB
    part = partition_file(target, 67584 * 512, size)
    assert ext_files(part) == ext_files(partition_file(disk, 67584 * 512, 262144 * 512))
    assert f"Block count:              {size // 1024}" in run("dumpe2fs", "-h", part)


def test_a_disk_smaller_than_the_source_takes_what_fits(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 194 * MIB)
    restore(tmp_path / "repo", target)
    assert table_of(target) == table_of(disk)


def test_a_second_capture_stores_almost_nothing(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = gpt_disk(tmp_path / "source.img", tree)
    first = capture(disk)
    second = capture(disk)
    assert second.stored == 0
    assert second.id != first.id


def test_one_changed_block_stores_one_chunk_and_its_pages(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    with disk.open("r+b") as stream:
        stream.seek(67584 * 512)
        stream.write(b"boot")
    # The chunk, and the one page of a volume below 256 MiB.
    assert capture(disk).new_records == 2


def test_a_restore_that_is_run_again_keeps_what_matches(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 200 * MIB)
    first = restore(tmp_path / "repo", target)
    second = restore(tmp_path / "repo", target)
    assert second.kept > 0.5 * first.written
    assert ext_files(partition_file(target, 67584 * 512, 262144 * 512))


def test_nothing_outside_the_plan_is_touched(tmp_path: Path, tree: Path, capture: Capture) -> None:
    """What lies behind the last partition and before the backup table keeps its old bytes."""
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 400 * MIB)
    before = target.read_bytes()
    restore(tmp_path / "repo", target)
    assert target.read_bytes()[200 * MIB : 399 * MIB] == before[200 * MIB : 399 * MIB]
