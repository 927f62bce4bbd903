"""Whole disks fitted to other disks on loop devices: Windows' layout grown, and sectors of 4096 bytes. Needs root."""

import json
import os
from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.report import Report
from tests.disk.test_loop_disks import loop
from tests.flow.disks import MIB, blank, ext_files, fat_files, make_tree, need, partition_file, put_fat, put_swap, run


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("losetup", "sfdisk", "mke2fs", "debugfs", "e2fsck", "resize2fs", "mkfs.vfat", "mcopy", "mkswap")
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    return make_tree(tmp_path_factory.mktemp("tree") / "tree")


def _restore(source: Path, target: Path, repo: Path, choices: RestoreChoices) -> tuple[Plan, Report]:
    runner = SystemRunner()
    capture_disks([source], str(repo), name="", runner=runner, sink=ignore)
    plan = plan_restore(str(repo), "latest", [target], choices, runner)
    return plan, run_plan(plan, plan.digest, runner, ignore)


def _places(node: Path) -> dict[int, tuple[int, int]]:
    """Number to start and size in sectors of the device, as sfdisk reads them."""
    entries = json.loads(run("sfdisk", "--json", node))["partitiontable"]["partitions"]
    return {int(entry["node"].removeprefix(f"{node}p")): (entry["start"], entry["size"]) for entry in entries}


def _put_ntfs(disk: Path, start: int, size: int, label: str) -> None:
    part = disk.with_suffix(".ntfs")
    with part.open("wb") as stream:
        stream.truncate(size)
    run("mkntfs", "-q", "-F", "-f", "-L", label, "-p", str(start // 512), "-s", "512", part)
    run("ntfscp", part, "/etc/services", "services")
    with disk.open("r+b") as stream:
        stream.seek(start)
        stream.write(part.read_bytes())
    part.unlink()


def test_windows_grows_and_its_recovery_partition_moves_to_the_new_end(tmp_path: Path, tree: Path) -> None:
    need("mkntfs", "ntfscp", "ntfscat", "ntfsresize", "ntfsinfo")
    source = tmp_path / "source.img"
    with source.open("wb") as stream:
        stream.truncate(120 * MIB)
    run(
        "sfdisk", "-q", source,
        stdin=f"label: gpt\nstart=2048,size={16 * 2048},type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n"
        f"size={64 * 2048},type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n"
        f"size={32 * 2048},type=DE94BBA4-06D1-4D40-A16A-BFD50179D6AC,attrs=\"RequiredPartition GUID:63\"\n",
    )  # fmt: skip
    _put_ntfs(source, 17 * MIB, 64 * MIB, "Windows")
    _put_ntfs(source, 81 * MIB, 32 * MIB, "Recovery")
    target = blank(tmp_path / "target.img", 200 * MIB)
    with loop(target) as node:
        _, report = _restore(source, node, tmp_path / "repo", RestoreChoices(grow=True))
        assert report.verified
        # 200 MiB, less 1 for the backup, 32 for the recovery partition, 17 in front.
        assert _places(node) == {1: (2048, 16 * 2048), 2: (17 * 2048, 150 * 2048), 3: (167 * 2048, 32 * 2048)}
    wanted = Path("/etc/services").read_bytes()
    for start, size, label in ((17, 150, "Windows"), (167, 32, "Recovery")):
        part = partition_file(target, start * MIB, size * MIB)
        assert run("ntfslabel", "-f", part).strip() == label
        assert run("ntfscat", "-f", part, "services").encode() == wanted
        boot = part.read_bytes()[:512]
        # The count of sectors before the partition, at 0x1c of the boot sector (ntfs-3g, layout.h: hidden_sectors).
        assert int.from_bytes(boot[0x1C:0x20], "little") == start * 2048
        run("ntfsresize", "--info", "--force", part)


def test_from_sectors_of_512_bytes_to_4096(tmp_path: Path, tree: Path) -> None:
    source = tmp_path / "source.img"
    with source.open("wb") as stream:
        stream.truncate(240 * MIB)
    run(
        "sfdisk", "-q", source,
        stdin=f"label: gpt\nstart=2048,size={64 * 2048},type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B,name=EFI\n"
        f"start={65 * 2048 + 8},size={96 * 2048},name=root\nsize={32 * 2048},"
        "type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F\n",
    )  # fmt: skip
    put_fat(source, MIB, 64 * MIB, tree / "etc")
    start = 65 * MIB + 4096
    run(
        "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, "-E", f"offset={start}", source, f"{96 * 1024}K"
    )  # fmt: skip
    put_swap(source, 162 * MIB, 32 * MIB)
    before = ext_files(partition_file(source, start, 96 * MIB))
    target = blank(tmp_path / "target.img", 240 * MIB)
    with loop(target, 4096) as node:
        plan, report = _restore(source, node, tmp_path / "repo", RestoreChoices())
        assert report.verified
        # In sectors of 4096 bytes; the second was 4 KiB off the boundary and is moved onto it.
        assert _places(node) == {1: (256, 64 * 256), 2: (66 * 256, 96 * 256), 3: (162 * 256, 32 * 256)}
        run("sgdisk", "-v", node)
    assert ext_files(partition_file(target, 66 * MIB, 96 * MIB)) == before
    esp = partition_file(target, MIB, 64 * MIB)
    assert fat_files(esp) == {path.name: path.read_bytes() for path in (tree / "etc").iterdir()}
    # BPB_BytsPerSec at byte 11 (Microsoft's FAT specification, 3.1).
    assert int.from_bytes(esp.read_bytes()[11:13], "little") == 4096
    assert any("count in sectors" in note for note in plan.notes)


def test_a_disk_without_a_table_comes_to_sectors_of_4096_bytes(tmp_path: Path, tree: Path) -> None:
    source = blank(tmp_path / "bare.img", 64 * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", tree, source)
    runner, repo = SystemRunner(), str(tmp_path / "repo")
    capture_disks([source], repo, name="", runner=runner, sink=ignore)
    with loop(blank(tmp_path / "target.img", 64 * MIB), 4096) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(), runner)
        assert run_plan(plan, plan.digest, runner, ignore).verified
        run("e2fsck", "-f", "-n", node)
