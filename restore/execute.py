"""Carrying out a confirmed plan, step by step, with a report.

Nothing is written before the digest matched, every target was found again and guarded, and the
repository still has every chunk.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.errors import DamagedError, DeviceError, LiferaftError, ProcessError, RefusedError
from core.events import Event, Sink, Stage
from core.process import Runner, find_tool
from core.units import format_size
from hooks.contract import HookContext, HookStage
from hooks.run import run_hooks
from images.model.manifest import Manifest
from images.store.repository import Repository
from restore.ground import StreamCount
from restore.partitions import reread_table
from restore.perform import PERFORMERS
from restore.perform.work import Outcome, Performer, Work
from restore.plan import Plan, TargetDisk
from restore.planner import survey_chunks
from restore.report import Report, StepReport
from restore.stack.keys import Keys
from restore.steps import CreateTable, Step
from restore.stream import Streamer
from restore.table import compare, rehearse_table
from restore.targets import Candidate, find_target, open_target

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
) -> Report:
    """Carry out a plan.

    Args:
        confirm: the plan's digest, given back by whoever read the plan.
        hooks: the site's hooks folder, run before the first write and after the last.
        keys: what opens the encrypted containers of the plan.

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
    sink(Event(stage=Stage.PREFLIGHT, message="Checking the recovery point and the targets"))
    candidates, manifest = _preflight(plan, repository, runner)
    nodes = tuple(candidate.node for candidate in candidates.values())
    run_hooks(hooks, _context(HookStage.BEFORE_RESTORE, plan, nodes), runner, sink)
    report = _Execution(Work(plan, repository, manifest, candidates, runner, sink, keys or Keys())).run()
    warnings = run_hooks(hooks, _context(HookStage.AFTER_RESTORE, plan, nodes), runner, sink)
    return msgspec.structs.replace(report, warnings=report.warnings + warnings)


def _context(stage: HookStage, plan: Plan, nodes: tuple[str, ...]) -> HookContext:
    return HookContext(stage=stage, repository=plan.repository, recovery_point=plan.recovery_point, disks=nodes)


def _preflight(plan: Plan, repository: Repository, runner: Runner) -> tuple[dict[str, Candidate], Manifest]:
    """Find every target again and collect every reason against. Nothing is written.

    Returns:
        the targets by source disk, and the recovery point's manifest.

    Raises:
        RefusedError: with all reasons. DamagedError: chunks are missing.
    """
    reasons: list[str] = []
    candidates: dict[str, Candidate] = {}
    for target in plan.targets:
        candidate = find_target(target, repository.backend.location, runner)
        reasons += candidate.obstacles
        if (candidate.size, candidate.sector_size) != (target.size, target.sector_size):
            reasons.append(f"{candidate.node} has {candidate.size} bytes, the plan was made for {target.size}")
        elif candidate.contents not in ((), target.destroys) and not carries_table(plan, target, candidate, runner):
            reasons.append(f"{candidate.node} holds other things now than when the plan was made")
        candidates[target.source] = candidate
    reasons += _missing_means(plan, candidates)
    if not reasons:
        reasons += _impossible_tables(plan, candidates, runner)
    if reasons:
        raise RefusedError(f"The restore was refused: {reasons[0]}. Nothing was written.", reasons=tuple(reasons))
    manifest = repository.manifest(plan.recovery_point)
    survey_chunks(repository, plan.recovery_point, manifest)
    return candidates, manifest


def _missing_means(plan: Plan, candidates: dict[str, Candidate]) -> list[str]:
    """Tools and rights that a later step would miss."""
    tools: list[str] = []
    reasons: list[str] = []
    for step in plan.steps:
        performer = PERFORMERS[type(step)]
        tools += performer.tools(step)
        target = candidates.get(step.disk)
        if performer.loops and (target is None or target.file) and os.geteuid() != 0:
            reasons.append(f"inside an image file and for a device of the stack this needs root: {step.describe()}")
    return list(dict.fromkeys(reasons)) + [
        f"the program {tool} is not installed" for tool in dict.fromkeys(tools) if find_tool(tool) is None
    ]


def _impossible_tables(plan: Plan, candidates: dict[str, Candidate], runner: Runner) -> list[str]:
    """Tables that the tools refuse, found on a scratch file and not on the target."""
    reasons = []
    for step in plan.steps:
        if isinstance(step, CreateTable):
            candidate = candidates[step.disk]
            try:
                rehearse_table(step.table, candidate.size, runner, sector_size=candidate.sector_size)
            except RefusedError as error:
                reasons.append(error.message.rstrip("."))
    return reasons


def carries_table(plan: Plan, target: TargetDisk, candidate: Candidate, runner: Runner) -> bool:
    """Whether a target carries the plan's table already: an earlier restore of the same plan got that far."""
    tables = (step.table for step in plan.steps if isinstance(step, CreateTable) and step.disk == target.source)
    table = next(tables, None)
    if table is None:
        return False
    try:
        return not compare(candidate.node, table, runner, sector_size=candidate.sector_size)
    except (ProcessError, DamagedError, DeviceError, RefusedError):
        return False


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

    def __init__(self, work: Work) -> None:
        self._work = work
        self._reports: list[StepReport] = []
        self._outcomes: list[Outcome] = []

    def run(self) -> Report:
        """All steps, in order: those that need the targets held, then those on their filesystems."""
        started = time.monotonic()
        work = self._work
        with contextlib.ExitStack() as stack:
            for disk, candidate in work.candidates.items():
                target = stack.enter_context(open_target(candidate))
                work.targets[disk] = target
                resume = carries_table(work.plan, work.plan.target(disk), candidate, work.runner)
                work.streamers[disk] = Streamer(work.repository, target, resume=resume)
            with _half_way():
                self._do_all(holding=True)
                for target in work.targets.values():
                    target.flush()
        with _half_way():
            for candidate in work.candidates.values():
                reread_table(candidate.node, work.runner)
            with _closing(work):
                self._do_all(holding=False)
        report = self._report(time.monotonic() - started)
        work.say(Stage.DONE, f"{format_size(report.written)} written")
        return report

    def _do_all(self, *, holding: bool) -> None:
        for step in self._work.plan.steps:
            performer = PERFORMERS[type(step)]
            # A device of the stack is there only when the disks below it are free.
            held = performer.holding and step.disk in self._work.candidates
            if held is holding:
                if not performer.holding:
                    self._work.let_go()
                self._do(step, performer)

    def _do(self, step: Step, performer: Performer) -> None:
        started = time.monotonic()
        outcome = performer.perform(step, self._work)
        self._outcomes.append(outcome)
        self._reports.append(
            StepReport(
                step=step.describe(),
                seconds=round(time.monotonic() - started, 3),
                written=outcome.count.written,
                kept=outcome.count.kept,
                zeroed=outcome.count.zeroed,
                verified=outcome.verified,
            )
        )

    def _report(self, seconds: float) -> Report:
        plan = self._work.plan
        total = sum((outcome.count for outcome in self._outcomes), StreamCount())
        return Report(
            recovery_point=plan.recovery_point,
            name=plan.name,
            digest=plan.digest,
            targets=tuple(candidate.node for candidate in self._work.candidates.values()),
            steps=tuple(self._reports),
            seconds=seconds,
            written=total.written,
            kept=total.kept,
            zeroed=total.zeroed,
            verified=self._work.verifies,
            boot=tuple(line for outcome in self._outcomes for line in outcome.boot),
            warnings=tuple(line for outcome in self._outcomes for line in outcome.warnings),
        )
