"""The work: what carrying out one plan has at hand, for whoever carries out a step."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from core.events import Event, Meter, Sink, Stage
from core.process import Runner
from images.model.layout import Disk, Partition, PartitionTable
from images.model.manifest import Manifest
from images.store.repository import Repository
from restore.plan import Plan
from restore.planner import volume_name
from restore.steps import CreateTable, RestoreVolume, Step, VerifyVolume
from restore.stream import Placed, StreamCount, Streamer
from restore.targets import Candidate, Target


class Outcome(msgspec.Struct, frozen=True):
    """What one step did. ``boot``, ``warnings``: lines for people."""

    count: StreamCount = StreamCount()
    verified: int = 0
    boot: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Work:
    """One plan under way. ``targets`` and ``streamers``, by source disk, are filled while the disks are held open."""

    def __init__(
        self,
        plan: Plan,
        repository: Repository,
        manifest: Manifest,
        candidates: Mapping[str, Candidate],
        runner: Runner,
        sink: Sink,
    ) -> None:
        self.plan = plan
        self.repository = repository
        self.manifest = manifest
        self.candidates = candidates
        self.runner = runner
        self.sink = sink
        self.targets: dict[str, Target] = {}
        self.streamers: dict[str, Streamer] = {}
        self.verifies = any(isinstance(step, VerifyVolume) for step in plan.steps)
        total = sum(step.data for step in plan.steps if isinstance(step, RestoreVolume))
        self.writing = Meter(sink, Stage.STREAM, total, message="Writing")
        self.reading_back = Meter(sink, Stage.VERIFY, total, message="Reading back")
        self._tables = {step.disk: step.table for step in plan.steps if isinstance(step, CreateTable)}

    def say(self, stage: Stage, text: str) -> None:
        """Tell whoever watches."""
        self.sink(Event(stage=stage, message=text))

    def placed(self, disk: str, volume_id: str, offset: int) -> Placed:
        """A volume at its place on the target of ``disk``."""
        volume = self.manifest.volume(volume_id)
        where = volume_name(self.plan.recovery_point, self.manifest, volume)
        return Placed(volume, offset, where, self.manifest.layout.disk(disk).sector_size)

    def partition(self, disk: str, number: int) -> Partition:
        """A partition of the table the plan makes; StopIteration when it has none of that number."""
        return next(part for part in self._tables[disk].partitions if part.number == number)

    def restored(self, disk: str) -> Disk:
        """The disk as it is when the plan is done: the manifest's, with the plan's table."""
        table: PartitionTable | None = self._tables.get(disk)
        return msgspec.structs.replace(self.manifest.layout.disk(disk), table=table)


class Performer(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of step is carried out.

    Attributes:
        perform: does it; called with the step and the work.
        holding: while the target is held open and locked; else afterwards, when the kernel knows its partitions.
        tools: programs it runs.
        loops: it needs a block device of a partition, which for an image file takes root.
    """

    # A step of one kind goes to the performer of that kind: the registry's keys say so, the type checker cannot.
    perform: Callable[[Any, Work], Outcome]
    holding: bool
    tools: Callable[[Step], tuple[str, ...]] = lambda step: ()
    loops: bool = False
