"""Small restores in which something goes wrong: a disk of noise, a target full of something else, faults at its door.

Faults are put where the program meets the operating system, below everything that could handle them wrongly.
"""

import errno
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from core.events import Event, Sink, Stage, ignore
from core.process import SystemRunner
from core.units import MIB
from images.model.extents import Extent, gaps, merge
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable, RestoreVolume, WipeSignatures, WriteHead
from restore.report import Report
from tests.flow.small import START

#: What a target holds before: no byte of it is in the recovery point by design.
OLD = 0xA5
TARGET_SIZE = 9 * MIB
CHOICES = RestoreChoices(boot=BootChoice.NO)


def old_target(path: Path, size: int = TARGET_SIZE) -> Path:
    """A target full of something else."""
    path.write_bytes(bytes([OLD]) * size)
    return path


def plan(repository: Path | str, *targets: Path, point: str = "latest") -> Plan:
    names = targets if len(targets) == 1 else [f"disk{number}={target}" for number, target in enumerate(targets)]
    return plan_restore(str(repository), point, names, CHOICES, SystemRunner())


def carry_out(made: Plan, sink: Sink = ignore, **options: object) -> Report:
    """A plan, with its own digest."""
    return run_plan(made, made.digest, SystemRunner(), sink, **options)  # type: ignore[arg-type]


def in_plan(made: Plan, disk: str) -> list[Extent]:
    """Every byte of a target that a plan may write: where its steps lie, and the sectors that hold a table."""
    found = [Extent(0, 512)]
    for step in (step for step in made.steps if step.disk == disk):
        if isinstance(step, WipeSignatures | WriteHead):
            found += step.extents
        elif isinstance(step, RestoreVolume):
            found.append(Extent(step.offset, step.offset + step.size))
        elif isinstance(step, CreateTable):
            assert step.table.kind == "dos"
    return list(merge(sorted(found)))


def assert_rest_untouched(made: Plan, disk: str, target: Path) -> None:
    """Outside the plan's ranges every byte is what it was."""
    content = target.read_bytes()
    rest = list(gaps(in_plan(made, disk), Extent(0, len(content))))
    assert sum(extent.size for extent in rest) > MIB, "nothing is outside, nothing would be tested"
    for extent in rest:
        assert content[extent.start : extent.end] == bytes([OLD]) * extent.size


class Door:
    """Where a target is written and read: counts, and lets in what a test puts there.

    Attributes:
        writes: (offset, length) of each. before_write: called with the number of the write, its offset and length.
        failing: bytes that cannot be written. turned: bytes that read with a turned bit.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[tuple[int, int]] = []
        self.reads: list[tuple[int, int]] = []
        self.before_write: Callable[[int, int, int], None] = lambda number, offset, length: None
        self.failing: set[int] = set()
        self.turned: set[int] = set()
        self.error = errno.EIO
        self._pwritev, self._preadv = os.pwritev, os.preadv
        monkeypatch.setattr("restore.target.target.os.pwritev", self._write)
        monkeypatch.setattr("restore.target.target.os.preadv", self._read)

    def _guards(self, descriptor: int) -> bool:
        """Whether it is a target's; before the first write, tables are tried out on files of no importance."""
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix == ".img"

    def _write(self, descriptor: int, views: list[memoryview], offset: int) -> int:
        if not self._guards(descriptor):
            return self._pwritev(descriptor, views, offset)
        length = sum(len(view) for view in views)
        self.before_write(len(self.writes), offset, length)
        self.writes.append((offset, length))
        if any(offset <= at < offset + length for at in self.failing):
            raise OSError(self.error, os.strerror(self.error))
        return self._pwritev(descriptor, views, offset)

    def _read(self, descriptor: int, views: list[memoryview], offset: int) -> int:
        count = self._preadv(descriptor, views, offset)
        if not self._guards(descriptor):
            return count
        self.reads.append((offset, count))
        for at in self.turned:
            if offset <= at < offset + count:
                views[0][at - offset] ^= 1
        return count


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def assert_stall_told(events: list[Event], message: str) -> None:
    """What was waited for, for how long, and when it went on. A slow machine may have stalled elsewhere, too."""
    stalled = [event for event in events if event.stalled and event.message == message]
    assert stalled, [event.message for event in events]
    assert {event.stage for event in stalled} == {Stage.PREFLIGHT}
    assert max(event.stalled for event in stalled) > 0.5
    after = events[events.index(stalled[-1]) + 1]
    assert (after.stage, after.stalled) == (Stage.PREFLIGHT, 0.0)
    assert re.fullmatch(rf"{re.escape(message)}: it goes on after \d s", after.message)


def assert_restored(target: Path, disk: Path) -> None:
    """The partition, whole."""
    size = disk.stat().st_size
    assert target.read_bytes()[START:size] == disk.read_bytes()[START:]
