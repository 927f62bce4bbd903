"""Disks restored to another size, by rules, onto another table: as planned, by sfdisk's and e2fsck's own words."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.capture import CaptureResult
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable
from restore.planning.rules import TableChoice, parse_rule
from tests.flow.disks import MIB, blank, dos_disk, ext_files, gpt_disk, need, partition_file, put_ext, put_swap, run

Capture = Callable[[Path], CaptureResult]


def restore(repo: Path, target: Path, choices: RestoreChoices) -> Plan:
    runner = SystemRunner()
    plan = plan_restore(str(repo), "latest", [target], choices, runner)
    report = run_plan(plan, plan.digest, runner, ignore)
    assert report.verified
    assert not report.warnings
    return plan


def rules(*texts: str) -> RestoreChoices:
    return RestoreChoices(rules=tuple(map(parse_rule, texts)))


def places(path: Path) -> dict[int, tuple[int, int]]:
    """Number to start and size in sectors, as sfdisk reads them."""
    entries = json.loads(run("sfdisk", "--json", path))["partitiontable"]["partitions"]
    return {int(entry["node"].removeprefix(str(path))): (entry["start"], entry["size"]) for entry in entries}


def planned(plan: Plan) -> dict[int, tuple[int, int]]:
    table = next(step.table for step in plan.steps if isinstance(step, CreateTable))
    return {part.number: (part.start_lba, part.sector_count) for part in table.partitions}


def files_at(disk: Path, start: int, size: int) -> dict[str, bytes | str]:
    """Files of the ext filesystem at sectors, checked by e2fsck."""
    return ext_files(partition_file(disk, start * 512, size * 512))


def test_what_is_dropped_is_gone_and_the_rest_stays(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 163 * MIB)
    plan = restore(tmp_path / "repo", target, rules("3=drop", "1=keep"))
    assert places(target) == planned(plan) == {1: (2048, 65536), 2: (67584, 262144)}
    assert files_at(target, 67584, 262144) == files_at(disk, 67584, 262144)
    assert any("Partition 3 is left out" in note for note in plan.notes)


def test_gaps_are_closed_for_a_smaller_disk(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = dos_disk(tmp_path / "source.img", tree)
    capture(disk)
    # 1 + 64, a MiB for the boot record of each logical one, 64 + 32.
    target = blank(tmp_path / "target.img", 163 * MIB)
    wanted = rules("1=move", "5=move", "6=move")
    with pytest.raises(RefusedError, match=f"smallest that would do has {163 * MIB} bytes"):
        plan_restore(
            str(tmp_path / "repo"), "latest", [blank(tmp_path / "less.img", 162 * MIB)], wanted, SystemRunner()
        )
    plan = restore(tmp_path / "repo", target, wanted)
    assert places(target) == planned(plan)
    assert {number: place for number, place in places(target).items() if number != 2} == {
        1: (2048, 131072),
        5: (135168, 131072),
        6: (268288, 65536),
    }
    assert files_at(target, 2048, 131072) == files_at(disk, 2048, 131072)
    assert files_at(target, 135168, 131072) == files_at(disk, 135168, 131072)


def test_a_disk_of_the_63_sector_time_is_aligned(tmp_path: Path, tree: Path, capture: Capture) -> None:
    need("fsck.vfat", "mcopy")
    disk = tmp_path / "source.img"
    with disk.open("wb") as stream:
        stream.truncate(160 * MIB)
    run(
        "sfdisk", "-q", disk,
        stdin="label: dos\nlabel-id: 0x12345678\nstart=63,size=65536,type=6\nstart=65599,size=220000,type=5\n"
        "start=65662,size=131072,type=83\nstart=196797,size=65536,type=82\n",
    )  # fmt: skip
    run("mkfs.vfat", "-h", "63", "-n", "OLD", "--offset=63", disk, str(65536 // 2))
    run("mcopy", "-s", "-i", f"{disk}@@{63 * 512}", *sorted((tree / "etc").iterdir()), "::")
    put_ext(disk, 65662 * 512, 131072 * 512, tree)
    put_swap(disk, 196797 * 512, 65536 * 512)
    capture(disk)
    target = blank(tmp_path / "target.img", 160 * MIB)
    plan = restore(tmp_path / "repo", target, rules())
    assert places(target) == planned(plan)
    # A MiB for the boot record in front of each logical one.
    assert {number: place for number, place in places(target).items() if number != 2} == {
        1: (2048, 65536),
        5: (69632, 131072),
        6: (202752, 65536),
    }
    assert files_at(target, 69632, 131072) == files_at(disk, 65662, 131072)
    old_fat = partition_file(target, 2048 * 512, 65536 * 512)
    run("fsck.vfat", "-n", old_fat)
    # Microsoft's FAT specification, 3.1: BPB_HiddSecs at byte 28.
    assert int.from_bytes(old_fat.read_bytes()[28:32], "little") == 2048


def test_a_dos_table_becomes_a_gpt_when_asked(tmp_path: Path, tree: Path, capture: Capture) -> None:
    disk = dos_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 200 * MIB)
    plan = restore(tmp_path / "repo", target, RestoreChoices(table=TableChoice.GPT, boot=BootChoice.NO))
    found = json.loads(run("sfdisk", "--json", target))["partitiontable"]
    assert found["label"] == "gpt"
    assert places(target) == planned(plan) == {1: (2048, 131072), 5: (135168, 131072), 6: (268288, 65536)}
    assert files_at(target, 135168, 131072) == files_at(disk, 135168, 131072)
    # Nothing of the old boot area lies over the new table or behind it.
    assert target.read_bytes()[34 * 512 : MIB] == bytes(MIB - 34 * 512)
    assert any("boot loader" in note for note in plan.notes)


def test_two_filesystems_share_a_larger_disk(tmp_path: Path, tree: Path, capture: Capture) -> None:
    need("losetup", "resize2fs")
    if os.geteuid() != 0:
        pytest.skip("growing a filesystem inside an image file needs root for a loop device")
    disk = dos_disk(tmp_path / "source.img", tree)
    capture(disk)
    target = blank(tmp_path / "target.img", 263 * MIB)
    plan = restore(tmp_path / "repo", target, rules("1=grow", "5=grow", "6=move"))
    # 263 - 163 MiB are left, and both have 64: 50 MiB each.
    assert places(target) == planned(plan)
    unit = MIB // 512
    assert {number: place for number, place in places(target).items() if number != 2} == {
        1: (unit, 114 * unit),
        5: (116 * unit, 114 * unit),
        6: (231 * unit, 32 * unit),
    }
    for old, new in ((2048, unit), (135168, 116 * unit)):
        part = partition_file(target, new * 512, 114 * MIB)
        assert ext_files(part) == files_at(disk, old, 131072)
        sizes = dict(line.split(":", 1) for line in run("dumpe2fs", "-h", part).splitlines() if ":" in line)
        assert int(sizes["Block count"]) * int(sizes["Block size"]) == 114 * MIB
