"""A destination that really is full: small filesystems on loop devices. Needs root."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ExitCode
from core.events import ignore
from core.process import SystemRunner
from images.store.backend import FullError
from images.store.check import Depth, check
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from tests.flow.disks import MIB, blank, need, run
from tests.flow.small import noise_disk, opened

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")

#: How each filesystem is made, and MiB: of it, of the ballast that is thrown away when there is no room left.
KINDS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], 64, 34),
    "xfs": (["mkfs.xfs", "-q", "-f"], 320, 200),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], 256, 150),
}


@contextlib.contextmanager
def mounted(file: Path, place: Path) -> Iterator[Path]:
    place.mkdir()
    run("mount", "-o", "loop", file, place)
    try:
        yield place
    finally:
        run("umount", place)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_full_then_room_is_made_then_it_goes_on(tmp_path: Path, kind: str) -> None:
    words, size, ballast = KINDS[kind]
    need(words[0], "mount")
    file = tmp_path / "small.img"
    with file.open("wb") as stream:
        stream.truncate(size * MIB)
    run(*words, file)
    disk = noise_disk(tmp_path / "disk.img", mebibytes=40)
    with mounted(file, tmp_path / "small") as place:
        with (place / "ballast").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, ballast * MIB)
            os.fsync(stream.fileno())
        repo = place / "repo"
        with pytest.raises(FullError) as caught:
            _capture(disk, repo)
        assert caught.value.code is ExitCode.FAILED
        assert "No space left on device" in caught.value.message
        assert "are missing, by estimate" in caught.value.message
        assert "again" in caught.value.hint
        kept = _sound(repo)
        room = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        # All but the end of what there was room for is kept.
        assert kept > 5 * MIB
        assert room < 6 * MIB
        # Again while it is still full: nothing is lost, nothing is stored twice.
        with pytest.raises(FullError):
            _capture(disk, repo)
        assert _sound(repo) >= kept
        (place / "ballast").unlink()
        os.sync()
        result_stored = _capture(disk, repo)
        assert result_stored < 39 * MIB + 64 * 1024 - kept + MIB
        target = blank(tmp_path / "target.img", 41 * MIB)
        runner = SystemRunner()
        plan = plan_restore(str(repo), "latest", [target], RestoreChoices(), runner)
        assert run_plan(plan, plan.digest, runner, ignore).verified
    start = 1 * MIB
    assert target.read_bytes()[start : 40 * MIB] == disk.read_bytes()[start:]


def _capture(disk: Path, repo: Path) -> int:
    return capture_disks([disk], str(repo), name="n", runner=SystemRunner(), sink=ignore).stored


def _sound(repo: Path) -> int:
    """Bytes in packs, all of which an index names; nothing half-written is left."""
    assert not list(repo.rglob("*.partial"))
    repository = opened(repo)
    assert repository.points() == ()
    result = check(repository, Depth(data=True), sink=ignore)
    # Readers that cannot list folders do not need an index before a recovery point uses it.
    assert {damage.kind.value for damage in result.damages} <= {"catalogue"}, result.damages
    packs = {path.stem: path.stat().st_size for path in (repo / "packs").rglob("*.pack")}
    named = {pack.hex(): size for pack, size in repository.indexes().pack_sizes().items()}
    assert packs == named
    return sum(packs.values())
