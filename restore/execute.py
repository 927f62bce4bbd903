"""Carrying out a confirmed plan, step by step, with a report.

Nothing is written before the digest matched, every target was found again and guarded, and the
repository still has every chunk.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from core.errors import DeviceError, LiferaftError, RefusedError
from core.events import Event, Sink, Stage, Watch, ticking, watching
from core.process import Runner
from core.units import format_size
from hooks.contract import HookContext, HookStage
from hooks.run import run_hooks
from images.stack.keys import Keys
from images.store.repository import Repository
from images.store.second_try import SecondTry
from images.store.watched import Retries, watch_backend
from restore.perform import PERFORMERS
from restore.perform.work import Conduct, Outcome, Performer, Work
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable, RepairBoot, RestoreVolume, Step, VerifyVolume
from restore.preflight import carries_table, preflight, still_there
from restore.report import Report, StepReport, VolumeProof
from restore.stack.preflight import check_stack
from restore.stream.ground import StreamCount
from restore.stream.placed import Placed
from restore.stream.stream import Streamer
from restore.target.partitions import attached_disk, reread_table
from restore.target.target import open_target
from restore.together import together

_CHECKING = "Checking the recovery point and the targets"
_STACK = "Trying keys, and looking whether the stack can be made here"
_PREPARING = "Preparing what is written"
_COMPARING = "Looking whether the targets hold some of it already"
_AGAIN = "The target is not usable as it is. Run the same restore again: it goes on where it stopped."


def execute(
    plan: Plan,
    confirm: str,
    repository: Repository,
    runner: Runner,
    sink: Sink,
    *,
    hooks: Path | None = None,
    keys: Keys | None = None,
    conduct: Conduct | None = None,
) -> Report:
    """Carry out a plan.

    Args:
        confirm: the plan's digest, given back by whoever read the plan.
        hooks: the site's hooks folder, run before the first write and after the last.
        keys: what opens the encrypted containers of the plan.
        conduct: how it is carried out, where that changes nothing about what comes of it.

    Raises:
        RefusedError: the digest differs, a target is not there or not free, or tools are missing.
            Nothing was written.
        DamagedError: chunks are missing or damaged.
    """
    if confirm.lower() != plan.digest:
        raise RefusedError(
            f"The plan's digest is {plan.digest}, not {confirm}. Nothing was written.",
            hint="Read the plan and confirm the digest it shows; a changed plan has another digest.",
        )
    retries, watch = Retries(sink), Watch(sink, Stage.PREFLIGHT, _CHECKING)
    sink(Event(stage=Stage.PREFLIGHT, message=_CHECKING))
    conduct = conduct or Conduct()
    # From here on the data is wanted at any price: a damaged chunk is asked for in every other way, too.
    second = repository.otherwise = SecondTry(repository)
    watch_backend(repository.backend, watch, retries)
    with watching(watch):
        candidates, manifest = preflight(plan, repository, runner, conduct.journal, conduct.scratch, watch)
        with watch.doing(_STACK):
            opening = check_stack(plan, _patient(keys or Keys(), watch), repository, manifest, runner)
    nodes = tuple(candidate.node for candidate in candidates.values())
    run_hooks(hooks, _context(HookStage.BEFORE_RESTORE, plan, nodes), runner, sink)
    work = Work(plan, repository, manifest, candidates, runner, sink, opening, conduct, watch)
    finished = False
    try:
        report = _Execution(work, watch, retries).run()
        finished = True
    finally:
        work.journal.close(finished=finished)
    warnings = run_hooks(hooks, _context(HookStage.AFTER_RESTORE, plan, nodes), runner, sink)
    warnings = (*second.warnings, *([work.journal.problem] if work.journal.problem else []), *warnings)
    return msgspec.structs.replace(report, warnings=report.warnings + warnings, refetched=second.count)


def _patient(keys: Keys, watch: Watch) -> Keys:
    """The same keys; while a person types one more, nothing is missed."""
    if keys.ask is None:
        return keys
    ask = keys.ask

    def answer(container: str) -> str:
        with watch.asking():
            return ask(container)

    return msgspec.structs.replace(keys, ask=answer)


def _context(stage: HookStage, plan: Plan, nodes: tuple[str, ...]) -> HookContext:
    return HookContext(stage=stage, repository=plan.repository, recovery_point=plan.recovery_point, disks=nodes)


@contextlib.contextmanager
def _half_way() -> Iterator[None]:
    """From the first write on, "refused" would be a lie: it promises that nothing was written."""
    try:
        yield
    except RefusedError as error:
        raise LiferaftError(f"The restore stopped half-way: {error.message}", hint=_AGAIN) from None


@contextlib.contextmanager
def _closing(work: Work) -> Iterator[None]:
    """Close the stack in any case; what stopped the restore is told, not what then did not close."""
    try:
        yield
    except BaseException:
        try:
            work.close()
        except LiferaftError as error:
            work.sink(Event(stage=Stage.LAYOUT, message=error.message, warning=True))
        raise
    work.close()


class _Execution:
    """One run of a plan."""

    def __init__(self, work: Work, watch: Watch, retries: Retries) -> None:
        self._work = work
        self._watch = watch
        self._retries = retries
        self._lock = threading.Lock()
        self._alone = threading.Lock()
        self._done: dict[int, tuple[StepReport, Outcome]] = {}

    def run(self) -> Report:
        """All steps: those that need the targets held, on all disks at once, then in order what builds on them."""
        started = time.monotonic()
        work = self._work
        with contextlib.ExitStack() as prepared:
            with watching(self._watch), self._watch.doing(_PREPARING):
                for step in work.plan.steps:
                    if (prepare := PERFORMERS[type(step)].prepare) is not None:
                        prepared.enter_context(prepare(step, work))
                still_there(work.plan, work.repository, work.candidates, work.runner)
            self._do_held()
            with _half_way():
                for candidate in work.candidates.values():
                    reread_table(candidate.node, work.runner)
                with self._attached(), _closing(work):
                    self._do_late()
        report = self._report(time.monotonic() - started)
        work.say(Stage.DONE, f"{format_size(report.written)} written")
        return report

    def _do_held(self) -> None:
        """What needs the disks held, on all of them at once."""
        work = self._work
        with contextlib.ExitStack() as stack:
            with watching(self._watch), self._watch.doing(_COMPARING):
                for disk, candidate in work.candidates.items():
                    work.targets[disk] = stack.enter_context(open_target(candidate))
                    work.streamers[disk] = work.streamer(work.targets[disk], resume=self._matches(disk))
            work.journal.open()
            # From here on what waits for the repository is a stage that writes.
            self._retries.stage = Stage.STREAM
            with _half_way():
                together({disk: partial(self._hold, disk) for disk in work.candidates}, work.halt)
                for target in work.targets.values():
                    target.flush()

    @contextlib.contextmanager
    def _attached(self) -> Iterator[None]:
        """Image files as block devices with partitions, for the steps that are left and ask for one."""
        work = self._work
        wanted = {step.disk for step in work.plan.steps if PERFORMERS[type(step)].loops}
        if any(isinstance(step, RepairBoot) for step in work.plan.steps):
            # A system may lie on several of them, and GRUB's programs look at all that it lies on.
            wanted |= set(work.candidates)
        files = work.candidates
        with contextlib.ExitStack() as stack:
            attached = {
                disk: stack.enter_context(attached_disk(candidate.node, candidate.sector_size, work.runner))
                for disk, candidate in files.items()
                if disk in wanted
            }
            work.candidates = {
                disk: msgspec.structs.replace(candidate, node=attached.get(disk, candidate.node))
                for disk, candidate in files.items()
            }
            try:
                yield
            finally:
                work.candidates = files

    def _matches(self, disk: str) -> bool:
        """Whether it is worth looking what is on a target already: some of it was put there by such a plan."""
        work = self._work
        if carries_table(work.plan, work.plan.target(disk), work.candidates[disk], work.runner):
            return True
        if any(isinstance(step, CreateTable) and step.disk == disk for step in work.plan.steps):
            return False
        streamer = Streamer(work.repository, work.targets[disk])
        return any(streamer.resembles(self._placed(step)) for step in self._volumes(disk))

    def _volumes(self, disk: str) -> list[RestoreVolume]:
        return [step for step in self._work.plan.steps if isinstance(step, RestoreVolume) and step.disk == disk]

    def _placed(self, step: RestoreVolume) -> Placed:
        return self._work.placed(step.disk, step.volume, step.offset)

    def _hold(self, disk: str) -> None:
        """The steps of one disk that need it held. What it holds already is found before anything is wiped."""
        work = self._work
        if work.streamers[disk].resume:
            work.say(Stage.COMPARE, f"{disk}: looking for what is there already")
            with ticking(work.comparing):
                for volume in self._volumes(disk):
                    self._look(volume)
        for number, step in enumerate(work.plan.steps):
            performer = PERFORMERS[type(step)]
            if performer.holding and step.disk == disk:
                work.halt.check()
                self._do(number, step, performer)

    def _look(self, step: RestoreVolume) -> None:
        work, placed = self._work, self._placed(step)
        streamer = work.streamers[step.disk]
        # What the journal says is only believed where the end reads it back.
        if step.volume in work.proven and work.journal.began(step.disk):
            streamer.trust(placed, work.journal.done(step.volume, placed.chunks(work.repository.chunk_size)))
        streamer.look(placed, work.comparing)

    def _do_late(self) -> None:
        for number, step in enumerate(self._work.plan.steps):
            performer = PERFORMERS[type(step)]
            # A device of the stack is there only when the disks below it are free.
            if performer.holding and step.disk in self._work.candidates:
                continue
            if not performer.holding:
                self._work.let_go()
            self._do(number, step, performer)

    def _do(self, number: int, step: Step, performer: Performer) -> None:
        started = time.monotonic()
        with self._alone if performer.alone else contextlib.nullcontext(), self._named(step):
            outcome = performer.perform(step, self._work)
        report = StepReport(
            step=step.describe(),
            seconds=round(time.monotonic() - started, 3),
            written=outcome.count.written,
            kept=outcome.count.kept,
            zeroed=outcome.count.zeroed,
            discarded=outcome.count.discarded,
            verified=outcome.verified,
            rewritten=outcome.count.rewritten,
        )
        with self._lock:
            self._done[number] = report, outcome

    @contextlib.contextmanager
    def _named(self, step: Step) -> Iterator[None]:
        """A device that fails is told with what was being done, and by the name that does not change with the cable."""
        try:
            yield
        except DeviceError as error:
            disk = next((target for target in self._work.plan.targets if target.source == step.disk), None)
            name = f" ({disk.shown})" if disk is not None and not disk.file else ""
            error.within(f"{step.describe()}{name}")
            raise

    def _proofs(self) -> Iterator[VolumeProof]:
        """What proves each volume."""
        work = self._work
        verified = {
            (step.disk, step.volume): self._done[number][1].verified
            for number, step in enumerate(work.plan.steps)
            if isinstance(step, VerifyVolume)
        }
        for step in (step for step in work.plan.steps if isinstance(step, RestoreVolume)):
            candidate = work.candidates.get(step.disk)
            yield VolumeProof(
                volume=step.volume,
                root=work.manifest.volume(step.volume).root or "",
                target=candidate.node if candidate else step.disk,
                offset=step.offset,
                size=step.size,
                verified=verified.get((step.disk, step.volume), 0),
            )

    def _report(self, seconds: float) -> Report:
        plan = self._work.plan
        done = [self._done[number] for number in sorted(self._done)]
        outcomes = [outcome for _, outcome in done]
        total = sum((outcome.count for outcome in outcomes), StreamCount())
        return Report(
            recovery_point=plan.recovery_point,
            name=plan.name,
            digest=plan.digest,
            targets=tuple(candidate.node for candidate in self._work.candidates.values()),
            steps=tuple(report for report, _ in done),
            seconds=seconds,
            written=total.written,
            kept=total.kept,
            zeroed=total.zeroed,
            discarded=total.discarded,
            rewritten=total.rewritten,
            volumes=tuple(self._proofs()),
            verified=self._work.verifies,
            boot=tuple(line for outcome in outcomes for line in outcome.boot),
            warnings=tuple(line for outcome in outcomes for line in outcome.warnings),
        )
