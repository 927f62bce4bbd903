"""Files of XFS that share extents: a copy of them takes more, and the plan knows how much. Needs root."""

import os
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.sources import open_source
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore
from restore.filesystems.xfs_shared import shared_bytes
from tests.disk.test_remake import loop, mounted, part
from tests.flow.disks import MIB, blank, need, run

#: Start and size in MiB.
PLACE = (1, 400)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """XFS with one file of 64 MiB and four that are made of the same extents; and one of many small shared pieces."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    need("losetup", "sfdisk", "mkfs.xfs", "mount", "xfs_io", "cp", "xfs_db")
    source = blank(tmp_path / "source.img", 420 * MIB)
    run("sfdisk", "-q", source, stdin=f"label: gpt\nstart={MIB // 512},size={PLACE[1] * MIB // 512}\n")
    with part(source, PLACE, 512) as node:
        run("mkfs.xfs", "-q", "-m", "reflink=1", node)
        with mounted(node, tmp_path / "place") as place:
            (place / "one").write_bytes(os.urandom(64 * MIB))
            for number in range(4):
                run("cp", "--reflink=always", place / "one", place / f"copy{number}")
            (place / "pieces").write_bytes(os.urandom(8 * MIB))
            # Every other block of it, so that the tree of reference counts is more than one leaf.
            words = [
                word
                for block in range(0, 2048, 2)
                for word in ("-c", f"reflink {place}/pieces {block * 4096} {block * 4096} 4096")
            ]
            run("xfs_io", "-f", *words, place / "other")
    return source


def test_what_files_share_is_counted(disk: Path) -> None:
    with part(disk, PLACE, 512) as node:
        levels = run(
            "xfs_db",
            "-r",
            "-c",
            "agf 0",
            "-c",
            "print refcntlevel",
            "-c",
            "agf 1",
            "-c",
            "print refcntlevel",
            "-c",
            "agf 2",
            "-c",
            "print refcntlevel",
            "-c",
            "agf 3",
            "-c",
            "print refcntlevel",
            node,
        )
        assert "= 2" in levels, "no tree has more than one level: its walk would not be tested"
        with open_source(node) as source:
            # Four more copies of 64 MiB, and 1024 blocks of 4 KiB once more.
            assert shared_bytes(source) == 4 * 64 * MIB + 1024 * 4096


def test_a_copy_that_would_not_fit_is_refused_in_the_plan(disk: Path, tmp_path: Path) -> None:
    """What is allocated would fit easily; with five files of 64 MiB for one the disk is too small."""
    repo, runner = str(tmp_path / "repo"), SystemRunner()
    with loop(disk) as node:
        capture_disks([node], repo, name="", runner=runner, sink=ignore)
    target = blank(tmp_path / "target.img", 330 * MIB)
    choices = RestoreChoices(boot=BootChoice.NO, estimate=False)
    with pytest.raises(RefusedError, match="too small"):
        plan_restore(repo, "latest", [target], choices, runner)
