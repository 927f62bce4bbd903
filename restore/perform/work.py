"""The work: what carrying out one plan has at hand, for whoever carries out a step."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from core.events import Event, Meter, Sink, Stage
from core.process import Runner
from images.model.layout import Disk, Layout, Partition, PartitionTable
from images.model.manifest import Manifest
from images.stack.keys import Keys
from images.store.backend import Heard, deaf
from images.store.repository import Repository
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable, MakeUnique, RestoreVolume, ShrinkVolume, Step, VerifyVolume, container_of
from restore.planning.surveyed import volume_name
from restore.shrink.result import Shrunk
from restore.stack.alive import Alive
from restore.stack.device import open_device
from restore.stack.lvm import is_thin
from restore.stream.ground import StreamCount
from restore.stream.journal import Journal
from restore.stream.placed import Placed
from restore.stream.stream import Streamer
from restore.target.candidates import Candidate
from restore.target.partitions import partition_node
from restore.target.target import Target
from restore.together import Halt


class Outcome(msgspec.Struct, frozen=True):
    """What one step did. ``boot``, ``warnings``: lines for people."""

    count: StreamCount = StreamCount()
    verified: int = 0
    boot: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Conduct(msgspec.Struct, frozen=True, kw_only=True):
    """How a plan is carried out, where that changes nothing about what comes of it.

    Attributes:
        journal: the file that remembers what is done; None: none is kept.
        discard: tell the targets which ranges nobody needs.
        scratch: the folder for scratch files; None: TMPDIR's.
    """

    journal: Path | None = None
    discard: bool = True
    scratch: Path | None = None


class Work:
    """One plan under way.

    Attributes:
        targets, streamers: by source disk, filled while the disks are held open; then by device of the stack, while
            that is held open.
        shrunk: by volume, filled by what is prepared before the first write.
        alive: the stack's devices that are there now.
        keys: what opens encrypted containers. heard: takes signs of life of what has no bytes to count.
        proven: the volumes that the plan reads back. verifies: these are all that it writes.
        renewed: what the root of a system lies on, by its id, that has new identities, and the old ones in its
            initramfs: boot repair makes it again. Empty when there is none.
        journal: what an earlier run did, and this one does. halt: ends the work on all disks.
    """

    def __init__(
        self,
        plan: Plan,
        repository: Repository,
        manifest: Manifest,
        candidates: Mapping[str, Candidate],
        runner: Runner,
        sink: Sink,
        keys: Keys | None = None,
        conduct: Conduct | None = None,
        heard: Heard = deaf,
    ) -> None:
        self.plan = plan
        self.repository = repository
        self.manifest = manifest
        self.candidates = candidates
        self.runner = runner
        self.sink = sink
        self.keys = keys or Keys()
        self.conduct = conduct or Conduct()
        self.heard = heard
        self.halt = Halt()
        self.journal = Journal(self.conduct.journal, plan, candidates)
        self.alive = Alive()
        self._held = contextlib.ExitStack()
        self.renewed = ""
        self.shrunk: dict[str, Shrunk] = {}
        self.targets: dict[str, Target] = {}
        self.streamers: dict[str, Streamer] = {}
        proven = {step.volume for step in plan.steps if isinstance(step, VerifyVolume)}
        proven |= {step.volume for step in plan.steps if isinstance(step, ShrinkVolume) and step.verify}
        written = {step.volume for step in plan.steps if isinstance(step, RestoreVolume | ShrinkVolume)}
        self.proven = frozenset(proven)
        self.verifies = bool(proven) and written <= proven
        total = sum(step.data for step in plan.steps if isinstance(step, RestoreVolume))
        self.comparing = Meter(sink, Stage.COMPARE, total, message="Looking")
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
        return Placed(volume, offset, where, self.manifest.layout.device(disk).sector_size)

    def partition(self, disk: str, number: int) -> Partition:
        """A partition of the table the plan makes; StopIteration when it has none of that number."""
        return next(part for part in self._tables[disk].partitions if part.number == number)

    def node(self, device: str) -> str:
        """The node of a disk, a partition the plan makes, or a device of the stack; it lasts until :meth:`close`."""
        if not self.alive.has(device):
            if device in self.candidates:
                return self.candidates[device].node
            for disk, table in self._tables.items():
                for partition in (part for part in table.partitions if part.id == device):
                    candidate = self.candidates[disk]
                    closer = contextlib.ExitStack()
                    opened = partition_node(candidate.node, partition, candidate.sector_size, self.runner)
                    self.alive.add(device, closer.enter_context(opened))
                    self.alive.on_close(closer.close)
        return self.alive.node(device)

    def hold(self, device: str) -> None:
        """Have a device of the stack among ``targets`` and ``streamers``; what is there already stays."""
        if device not in self.targets:
            again = any(streamer.resume for streamer in self.streamers.values())
            found = self.manifest.layout.device(device)
            opened = open_device(self.node(device), found.sector_size, thin=is_thin(self.manifest.layout, device))
            self.targets[device] = self._held.enter_context(opened)
            self.streamers[device] = self.streamer(self.targets[device], resume=again)

    def streamer(self, target: Target, *, resume: bool) -> Streamer:
        """A streamer to a target, among as many as there are disks."""
        return Streamer(
            self.repository,
            target,
            resume=resume,
            share=max(1, len(self.candidates)),
            discard=self.conduct.discard,
            halt=self.halt.check,
        )

    def let_go(self) -> None:
        """Flush and let go of all devices of the stack, so that others can use them."""
        for device in [device for device in self.targets if device not in self.candidates]:
            self.targets.pop(device).flush()
            del self.streamers[device]
        self._held.close()

    def close(self) -> None:
        """Let go of the whole stack. Doing it again is harmless. Raises LiferaftError."""
        try:
            self.let_go()
        finally:
            self._held.close()
            self.alive.close()

    def last_proof(self, device: str) -> VerifyVolume | None:
        """The last read-back of a disk or device: what is proven then, stays so."""
        steps = (step for step in self.plan.steps if isinstance(step, VerifyVolume) and step.disk == device)
        return max(steps, key=self.plan.steps.index, default=None)

    def rebuilt(self) -> Layout:
        """The layout with its containers as the plan makes them."""
        made = {step.disk: container for step in self.plan.steps if (container := container_of(step)) is not None}
        containers = tuple(made.get(container.id, container) for container in self.manifest.layout.containers)
        return msgspec.structs.replace(self.manifest.layout, containers=containers)

    def restored(self, disk: str) -> Disk:
        """The disk as it is when the plan is done: the manifest's, with the plan's table and identities."""
        table: PartitionTable | None = self._tables.get(disk)
        made = msgspec.structs.replace(self.manifest.layout.disk(disk), table=table)
        if made.filesystem is None:
            return made
        # That of a disk without a table stands in no table of the plan.
        new = {
            renewal.old: renewal.new
            for step in self.plan.steps
            if isinstance(step, MakeUnique)
            for renewal in step.renewals
            if (renewal.disk, renewal.number) == (disk, 0)
        }
        uuid = new.get(made.filesystem.uuid, made.filesystem.uuid)
        return msgspec.structs.replace(made, filesystem=msgspec.structs.replace(made.filesystem, uuid=uuid))


class Performer(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of step is carried out.

    Attributes:
        perform: does it; called with the step and the work.
        holding: while the target is held open and locked; else afterwards, when the kernel knows its partitions.
        alone: not at the same time for several disks.
        tools: programs it runs.
        loops: it needs a block device of a partition, which for an image file takes root.
        prepare: what is done before the first write to any target; a context that lasts until the targets are let go.
        against: why the step cannot be carried out on this machine; none when it can.
    """

    # A step of one kind goes to the performer of that kind: the registry's keys say so, the type checker cannot.
    perform: Callable[[Any, Work], Outcome]
    holding: bool
    alone: bool = False
    tools: Callable[[Step], tuple[str, ...]] = lambda step: ()
    loops: bool = False
    prepare: Callable[[Any, Work], contextlib.AbstractContextManager[None]] | None = None
    against: Callable[[Any], tuple[str, ...]] = lambda step: ()
