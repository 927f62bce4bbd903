"""What a fresh XFS holds, as mkfs.xfs makes and the kernel mounts it: never less than is planned with. Needs root."""

import contextlib
import os
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from core.units import MIB
from images.sources import open_source
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.filesystems.xfs_coarser import coarser_bytes
from restore.filesystems.xfs_make import mkfs_words
from restore.filesystems.xfs_room import least_size, usable
from tests.disk.test_full_destination import mounted
from tests.disk.test_remake import loop, part
from tests.disk.test_remake import mounted as place_of
from tests.flow.disks import blank, need, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")

#: Filesystems as they were made at different times, and with what takes most room.
KINDS = {
    "today's": "",
    "without reflink": "-m reflink=0",
    "all trees": "-m rmapbt=1 -i size=2048 -n size=65536",
    "small blocks": "-m rmapbt=1 -b size=1024",
}
#: MiB; around 300 the log becomes larger.
SIZES = (16, 40, 64, 128, 299, 300, 301, 512, 900, 4096, 131_072, 1_500_000)
CONTENTS = (1, 30, 150, 211, 212, 260, 1000, 40_000, 900_000)


@pytest.mark.parametrize("kind", KINDS)
def test_no_less_is_there_than_was_planned_with(kind: str, tmp_path: Path) -> None:
    need("mkfs.xfs", "mount")
    old, new = tmp_path / "old", tmp_path / "new"
    with old.open("wb") as stream:
        stream.truncate(320 * MIB)
    run("mkfs.xfs", "-q", "-f", *KINDS[kind].split(), old)
    block_size = 1024 if "size=1024" in KINDS[kind] else 4096
    with open_source(old) as source:
        for number, size in enumerate(
            [*SIZES, *(least_size(content * MIB, block_size) // MIB for content in CONTENTS)]
        ):
            with new.open("wb") as stream:
                stream.truncate(size * MIB)
            run(*mkfs_words(source, size * MIB, 512, str(new)))
            with mounted(new, tmp_path / f"place{number}") as place:
                found = os.statvfs(place)
            new.unlink()
            assert usable(size * MIB, block_size) <= found.f_bavail * found.f_frsize, f"{size} MiB"
            if number >= len(SIZES):
                assert CONTENTS[number - len(SIZES)] * MIB <= found.f_bavail * found.f_frsize, f"{size} MiB"


@pytest.mark.parametrize("filled", [200, 345])
def test_a_full_xfs_of_before_is_not_begun_on_sectors_where_it_does_not_fit(filled: int, tmp_path: Path) -> None:
    """Its log has 6 MiB, one of today has 64: of the same size, a fresh one holds less than it did."""
    source, repo = blank(tmp_path / "source.img", 402 * MIB), str(tmp_path / "repo")
    run("sfdisk", "-q", source, stdin=f"label: gpt\nstart=2048, size={400 * MIB // 512}\n")
    with part(source, (1, 400), 512) as node:
        run("mkfs.xfs", "-q", "-l", "size=6m", "-m", "bigtime=0", "--unsupported", node)
        with place_of(node, tmp_path / "place") as place:
            # Not zeros, which are not stored: what counts is what was allocated.
            (place / "full").write_bytes(bytes([7]) * filled * MIB)
    with loop(source, 512, "--read-only") as node:
        capture_disks([node], repo, name="", runner=SystemRunner(), sink=ignore)
    choices = RestoreChoices(boot=BootChoice.NO, estimate=False)
    refused = pytest.raises(RefusedError, match=r"partition 1 cannot be made anew: a copy of its files needs")
    with loop(blank(tmp_path / "target.img", 402 * MIB), 4096) as node:
        with refused if filled > 300 else contextlib.nullcontext():
            plan_restore(repo, "latest", [node], choices, SystemRunner())


@pytest.mark.parametrize("every", [2, 3, 8, 40])
def test_a_file_of_many_holes_takes_no_more_in_larger_blocks_than_was_reckoned(every: int, tmp_path: Path) -> None:
    """Each piece wastes at both ends. The kernel may fill short holes, with extents of their own that hold nothing."""
    old, new = tmp_path / "old", tmp_path / "new"
    for path, block_size in ((old, 1024), (new, 4096)):
        with path.open("wb") as stream:
            stream.truncate(320 * MIB)
        run("mkfs.xfs", "-q", "-f", "-b", f"size={block_size}", path)
    with mounted(old, tmp_path / "from") as place:
        # As much in pieces that the inode holds, and in so many that they take a tree.
        for name, pieces in (("few", 8), ("many", 5000)):
            with (place / name).open("wb") as stream:
                for number in range(pieces):
                    stream.seek(number * every * 1024)
                    stream.write(bytes([7]) * 1024)
        with mounted(new, tmp_path / "to") as copy:
            before = os.statvfs(copy).f_bfree * 4096
            run("cp", "-a", "--sparse=always", place / "few", place / "many", copy)
            os.sync()
            taken = before - os.statvfs(copy).f_bfree * 4096
    with open_source(old) as source:
        reckoned = coarser_bytes(source, 4096)
    assert taken - 5008 * 1024 <= reckoned <= 4 * 5100 * 3072


@pytest.mark.parametrize("files", [1000, 8000])
def test_small_files_in_small_blocks_are_reckoned_in_the_blocks_of_4096_that_the_sectors_ask_for(
    files: int, tmp_path: Path
) -> None:
    """One KiB each: 8000 of them are 12 MiB with their inodes there, and 36 MiB here, where 40 are not enough."""
    source, repo = blank(tmp_path / "source.img", 42 * MIB), str(tmp_path / "repo")
    run("sfdisk", "-q", source, stdin=f"label: gpt\nstart=2048, size={40 * MIB // 512}\n")
    with part(source, (1, 40), 512) as node:
        run("mkfs.xfs", "-q", "-b", "size=1024", "--unsupported", node)
        with place_of(node, tmp_path / "place") as place:
            for number in range(files):
                (place / str(number)).write_bytes(bytes([1 + number % 255]) * 1024)
    with loop(source, 512, "--read-only") as node:
        capture_disks([node], repo, name="", runner=SystemRunner(), sink=ignore)
    choices = RestoreChoices(boot=BootChoice.NO, estimate=False)
    refused = pytest.raises(RefusedError, match=r"partition 1 cannot be made anew: a copy of its files needs")
    with loop(blank(tmp_path / "target.img", 42 * MIB), 4096) as node:
        with refused if files > 4000 else contextlib.nullcontext():
            plan = plan_restore(repo, "latest", [node], choices, SystemRunner())
            run_plan(plan, plan.digest, SystemRunner(), ignore, journal=tmp_path / "journal")
