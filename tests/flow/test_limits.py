"""How far a filesystem can grow: refused in the plan, where its own tools would refuse after the restore."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.model.layout import FilesystemKind
from images.sources import open_source
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from rescue.jobs.restore_check import check_plan
from restore.filesystems.limits import limit
from restore.plan.plan import Plan
from restore.plan.steps import GrowFilesystem
from restore.planning.rules import parse_rule
from tests.flow.disks import MIB, blank, need, run

TIB = 1 << 40


def sparse(path: Path, size: int) -> Path:
    path.touch()
    try:
        os.truncate(path, size)
    except OSError as error:
        pytest.skip(f"no file of {size} bytes can be made here: {error.strerror}")
    return path


@pytest.mark.parametrize(
    ("words", "size"), [("-b 1024 -O ^64bit", 4 * TIB), ("-b 4096 -O ^64bit", 16 * TIB), ("-b 1024 -O 64bit", 0)]
)
def test_ext_ends_where_its_block_numbers_do(words: str, size: int, tmp_path: Path) -> None:
    """ext4(5), "64bit": without it, 2^32 blocks; the last number is none."""
    need("mke2fs")
    volume = sparse(tmp_path / "ext", 16 * MIB)
    run("mke2fs", "-q", "-t", "ext4", *words.split(), volume)
    with open_source(volume) as source:
        found = limit(source, FilesystemKind.EXT4)
    assert (found.size if found else 0) == (size - int(words.split()[1]) if size else 0)


def test_resize2fs_draws_the_same_line(tmp_path: Path) -> None:
    need("mke2fs", "resize2fs", "e2fsck")
    volume = sparse(tmp_path / "ext", 16 * MIB)
    run("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-O", "^64bit", volume)
    sparse(volume, 5 * TIB)
    before = run("dumpe2fs", "-h", volume)
    run("resize2fs", "-f", volume, success=(1,))
    assert run("dumpe2fs", "-h", volume).count("Block count:              16384") == before.count("16384") > 0


def test_ntfs_and_swap_count_in_32_bits(tmp_path: Path) -> None:
    need("mkntfs", "mkswap")
    ntfs, swap = sparse(tmp_path / "ntfs", 20 * MIB), sparse(tmp_path / "swap", MIB)
    run("mkntfs", "-q", "-F", "-Q", "-c", "4096", ntfs)
    run("mkswap", "-q", "--pagesize", "4096", swap)
    for path, kind in ((ntfs, FilesystemKind.NTFS), (swap, FilesystemKind.SWAP)):
        with open_source(path) as source:
            found = limit(source, kind)
        assert found is not None
        assert found.size == 16 * TIB - 4096


def counting_in_32_bits(folder: Path) -> tuple[str, Path]:
    """A repository with one ext4 of 1 KiB blocks, which ends at 4 TiB, and a target of 5 TiB."""
    need("mke2fs", "sfdisk")
    disk, repo = blank(folder / "disk.img", 20 * MIB), str(folder / "repo")
    run("sfdisk", "-q", disk, stdin="label: gpt\nstart=2048, size=32768\n")
    volume = sparse(folder / "ext", 16 * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-O", "^64bit", volume)
    with disk.open("r+b") as stream:
        stream.seek(MIB)
        stream.write(volume.read_bytes())
    capture_disks([disk], repo, name="", runner=SystemRunner(), sink=ignore)
    return repo, sparse(folder / "target.img", 5 * TIB)


def test_growing_beyond_it_is_refused_in_the_plan(tmp_path: Path) -> None:
    repo, target = counting_in_32_bits(tmp_path)
    with pytest.raises(RefusedError, match=r"partition 1: ext4 cannot grow to 5\.00 TiB: without the feature 64bit"):
        plan_restore(repo, "latest", [target], RestoreChoices(grow=True, estimate=False), SystemRunner())
    fitting = RestoreChoices(rules=(parse_rule("1=grow:3T"),), estimate=False)
    (grown,) = (
        step
        for step in plan_restore(repo, "latest", [target], fitting, SystemRunner()).steps
        if isinstance(step, GrowFilesystem)
    )
    assert grown.size == 3 * TIB


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ("both", "disk0, partition 1: ext4 cannot grow to 4.50 TiB: without the feature 64bit"),
        # It is grown to its partition, whatever the step says.
        ("partition", "disk0, partition 1: ext4 cannot grow to 4.50 TiB: without the feature 64bit"),
        ("kind", "disk0, partition 1: the plan grows its xfs, and disk0-part1 holds ext4"),
        ("content", "disk0, partition 1: the plan grows its ext4, and puts none there"),
    ],
)
def test_an_edited_plan_is_held_to_the_same_limits(edit: str, reason: str, tmp_path: Path) -> None:
    """``--check`` says it, and so does the restore, before it writes."""
    repo, target = counting_in_32_bits(tmp_path)
    fitting = RestoreChoices(rules=(parse_rule("1=grow:3T"),), estimate=False)
    plan = plan_restore(repo, "latest", [target], fitting, SystemRunner())
    check_plan(plan, repo, SystemRunner())
    document, size = json.loads(msgspec.json.encode(plan)), 9 * TIB // 2
    (table,) = (step["table"] for step in document["steps"] if step["do"] == "create-table")
    (grown,) = (step for step in document["steps"] if step["do"] == "grow-filesystem")
    if edit in ("both", "partition"):
        table["partitions"][0]["sector_count"] = size // 512
    if edit == "both":
        grown["size"] = size
    if edit == "kind":
        grown["kind"] = "xfs"
    if edit == "content":
        document["steps"] = [
            step for step in document["steps"] if step["do"] not in ("restore-volume", "verify-volume")
        ]
    changed = msgspec.json.decode(msgspec.json.encode(document), type=Plan)
    with pytest.raises(RefusedError) as checked:
        check_plan(changed, repo, SystemRunner())
    assert [found for found in checked.value.reasons if found.startswith(reason)], checked.value.reasons
    assert len(checked.value.reasons) == 1
    with pytest.raises(RefusedError, match="Nothing was written"):
        run_plan(changed, changed.digest, SystemRunner(), ignore, repository=repo, journal=tmp_path / "journal")
    with target.open("rb") as stream:
        assert not any(stream.read(MIB))


def test_a_fat_of_more_than_2_tib_is_refused_in_the_plan(tmp_path: Path) -> None:
    """Its boot sector counts sectors in 32 bits (Microsoft, "FAT: General Overview of On-Disk Format")."""
    need("mkfs.fat", "sfdisk")
    disk, repo = blank(tmp_path / "disk.img", 80 * MIB), str(tmp_path / "repo")
    run("sfdisk", "-q", disk, stdin="label: gpt\nstart=2048, size=143360\n")
    volume = sparse(tmp_path / "fat", 70 * MIB)
    run("mkfs.fat", "-F", "32", volume)
    with disk.open("r+b") as stream:
        stream.seek(MIB)
        stream.write(volume.read_bytes())
    capture_disks([disk], repo, name="", runner=SystemRunner(), sink=ignore)
    target = sparse(tmp_path / "target.img", 4 * TIB)
    choices = RestoreChoices(rules=(parse_rule("1=grow:3T"),), estimate=False)
    with pytest.raises(RefusedError, match=r"partition 1 cannot be made anew: A fat32 volume cannot have 3\.00 TiB"):
        plan_restore(repo, "latest", [target], choices, SystemRunner())
