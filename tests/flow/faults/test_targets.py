"""Targets that are one disk, or another one by now, and several disks at the same time."""

import errno
import json
import os
import threading
from pathlib import Path

import msgspec
import pytest

from core.errors import DeviceError, RefusedError, StoppedError
from core.units import MIB
from restore.plan.steps import VerifyVolume
from restore.together import Halt
from tests.flow.faulty import (
    OLD,
    TARGET_SIZE,
    Door,
    assert_rest_untouched,
    assert_restored,
    carry_out,
    old_target,
    plan,
)
from tests.flow.small import CHUNK, START


@pytest.mark.parametrize("kind", ["symlink", "hard link", "another spelling"])
def test_two_targets_that_are_one_disk_are_refused(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, target: Path, kind: str
) -> None:
    other = tmp_path / "other.img"
    if kind == "symlink":
        other.symlink_to(target)
    elif kind == "hard link":
        other.hardlink_to(target)
    else:
        (tmp_path / "folder").mkdir()
        other = tmp_path / "folder" / ".." / "target.img"
    before = target.read_bytes()
    with pytest.raises(RefusedError, match=r"twice|same"):
        plan(two_disks[0], target, other)
    assert target.read_bytes() == before


def test_a_plan_whose_targets_became_one_disk_is_refused(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, target: Path
) -> None:
    other = old_target(tmp_path / "other.img")
    made = plan(two_disks[0], target, other)
    other.unlink()
    other.hardlink_to(target)
    before = target.read_bytes()
    with pytest.raises(RefusedError, match=r"twice|same"):
        carry_out(made)
    assert target.read_bytes() == before


def test_steps_for_a_disk_without_a_target_are_refused(two_disks: tuple[Path, Path, Path], tmp_path: Path) -> None:
    targets = [old_target(tmp_path / name) for name in ("one.img", "other.img")]
    made = plan(two_disks[0], *targets)
    before = [target.read_bytes() for target in targets]
    with pytest.raises(RefusedError) as raised:
        carry_out(msgspec.structs.replace(made, targets=made.targets[:1]))
    assert any("no target for disk1" in reason for reason in raised.value.reasons), raised.value.reasons
    assert [target.read_bytes() for target in targets] == before


def test_a_report_says_verified_only_of_all_that_was_written(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, door: Door
) -> None:
    """Nor is a journal believed of a volume that nobody reads back."""
    targets = [old_target(tmp_path / name) for name in ("one.img", "other.img")]
    made = plan(two_disks[0], *targets)
    steps = tuple(step for step in made.steps if not (isinstance(step, VerifyVolume) and step.disk == "disk1"))
    made = msgspec.structs.replace(made, steps=steps)
    report = carry_out(made)
    assert [proof.verified for proof in report.volumes] == [4 * MIB, 0]
    assert not report.verified
    journal = tmp_path / "journal"

    def stop(number: int, offset: int, length: int) -> None:
        if offset >= START:
            raise StoppedError("stopped")

    fresh = [old_target(target) for target in targets]
    door.before_write = stop
    with pytest.raises(StoppedError):
        carry_out(made, journal=journal)
    door.before_write = lambda number, offset, length: None
    head = journal.read_text().splitlines()[0]
    lie = json.dumps({"volume": "disk1-part1", "first": 0, "end": 64})
    journal.write_text(f"{head}\n{lie}\n")
    carry_out(made)
    with fresh[1].open("r+b") as stream:
        stream.seek(START + CHUNK)
        stream.write(b"stale")
    door.reads.clear()
    carry_out(made, journal=journal)
    assert_restored(fresh[1], two_disks[2])


def test_a_target_that_is_exchanged_after_the_preflight_is_refused(
    repository: Path, target: Path, tmp_path: Path
) -> None:
    """Nothing is said of the time between: a hook runs as long as it likes, and so does making something smaller."""
    stage = tmp_path / "hooks" / "before-restore"
    stage.mkdir(parents=True)
    precious = old_target(tmp_path / "precious.img")
    hook = stage / "exchange"
    hook.write_text(f"#!/bin/sh\nexec mv {precious} {target}\n")
    hook.chmod(0o755)
    with pytest.raises(RefusedError, match="is not the disk or file any more"):
        carry_out(plan(repository, target), hooks=tmp_path / "hooks")
    assert target.read_bytes() == bytes([OLD]) * TARGET_SIZE


def test_two_disks_are_restored_at_the_same_time(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, target: Path, door: Door
) -> None:
    repo, first, second = two_disks
    other = old_target(tmp_path / "other.img")
    made = plan(repo, target, other)
    # Each disk waits at its first chunk until the other one is there: one after the other would never get further.
    barrier = threading.Barrier(2, timeout=60)
    seen: set[int] = set()

    def meet(number: int, offset: int, length: int) -> None:
        if offset == START and threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            barrier.wait()

    door.before_write = meet
    report = carry_out(made)
    assert report.verified
    assert {proof.target for proof in report.volumes} == {str(target), str(other)}
    for file, source in ((target, first), (other, second)):
        assert_restored(file, source)
    assert [step.step for step in report.steps] == [step.describe() for step in made.steps]


def test_when_one_disk_fails_the_other_is_stopped(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, _, _ = two_disks
    other = old_target(tmp_path / "other.img")
    made = plan(repo, target, other)
    monkeypatch.setattr("restore.stream.stream.BATCH", CHUNK)
    real, failed, halted = os.pwritev, threading.Event(), threading.Event()
    halt = Halt.set
    late: list[int] = []

    def tell(self: Halt) -> None:
        halt(self)
        halted.set()

    def pwritev(descriptor: int, views: list[memoryview], offset: int) -> int:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        # Not at the end of the disk: there the table goes, one disk after the other.
        inside = START <= offset < 5 * MIB
        if name == str(other) and inside:
            failed.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if name == str(target) and inside:
            # Writes that were under way when the other disk failed end after all has been told to stop.
            assert failed.wait(60) and halted.wait(20)
            late.append(offset)
        return real(descriptor, views, offset)

    monkeypatch.setattr("restore.target.target.os.pwritev", pwritev)
    monkeypatch.setattr(Halt, "set", tell)
    before = set(threading.enumerate())
    with pytest.raises(DeviceError, match=r"^disk1: .*other\.img: writing .* failed: Input/output error") as raised:
        carry_out(made)
    assert "other disks were stopped" in raised.value.hint
    assert set(threading.enumerate()) <= before
    assert len(late) < 64, "the sound disk was written to its end"
    for name, file in (("disk0", target), ("disk1", other)):
        assert_rest_untouched(made, name, file)
