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
from core.events import Event, Meter, Sink, Stage, ticking
from core.process import Runner, find_tool
from core.units import format_size
from hooks.contract import HookContext, HookStage
from hooks.run import run_hooks
from images.model.layout import Disk, PartitionTable
from images.model.manifest import Manifest
from images.store.repository import Repository
from restore.boot.repair import repair_boot
from restore.grow import TOOLS as GROW_TOOLS
from restore.grow import grow_filesystem
from restore.partitions import partition_node, reread_table
from restore.plan import (
    CreateTable,
    GrowFilesystem,
    Plan,
    RepairBoot,
    RestoreVolume,
    Step,
    TargetDisk,
    VerifyVolume,
    WipeSignatures,
    WriteHead,
    describe,
)
from restore.planner import survey_chunks, volume_name
from restore.report import Report, StepReport
from restore.stream import Placed, StreamCount, Streamer
from restore.table import compare, create_table, rehearse_table
from restore.targets import Candidate, Target, find_target, open_target

_AGAIN = "The target is not usable as it is. Run the same restore again: it goes on where it stopped."
_WRITING = (WipeSignatures, CreateTable, WriteHead, RestoreVolume, VerifyVolume)


class Outcome(msgspec.Struct, frozen=True):
    """What one step did."""

    count: StreamCount = StreamCount()
    verified: int = 0
    boot: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def execute(
    plan: Plan,
    confirm: str,
    repository: Repository,
    runner: Runner,
    sink: Sink,
    *,
    hooks: Path | None = None,
) -> Report:
    """Carry out a plan.

    Args:
        confirm: the plan's digest, given back by whoever read the plan.
        hooks: the site's hooks folder, run before the first write and after the last.

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
    report = _Execution(plan, repository, manifest, candidates, runner, sink).run()
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
    tools = ["sfdisk"] if any(isinstance(step, CreateTable) for step in plan.steps) else []
    reasons: list[str] = []
    for step in plan.steps:
        if isinstance(step, GrowFilesystem):
            tools += GROW_TOOLS
            if candidates[step.disk].file and os.geteuid() != 0:
                reasons.append("growing a filesystem inside an image file needs root, for a loop device")
    return reasons + [
        f"the program {tool} is not installed" for tool in dict.fromkeys(tools) if find_tool(tool) is None
    ]


def _impossible_tables(plan: Plan, candidates: dict[str, Candidate], runner: Runner) -> list[str]:
    """Tables that the tools refuse, found on a scratch file and not on the target."""
    reasons = []
    for step in plan.steps:
        if isinstance(step, CreateTable) and candidates[step.disk].sector_size == 512:
            try:
                rehearse_table(step.table, candidates[step.disk].size, runner)
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
        return not compare(candidate.node, table, runner)
    except (ProcessError, DamagedError):
        return False


@contextlib.contextmanager
def _half_way() -> Iterator[None]:
    """From the first write on, "refused" would be a lie: it promises that nothing was written."""
    try:
        yield
    except RefusedError as error:
        raise LiferaftError(f"The restore stopped half-way: {error.message}", hint=_AGAIN) from None


class _Execution:
    """One run of a plan."""

    def __init__(
        self,
        plan: Plan,
        repository: Repository,
        manifest: Manifest,
        candidates: dict[str, Candidate],
        runner: Runner,
        sink: Sink,
    ) -> None:
        self._plan = plan
        self._repository = repository
        self._manifest = manifest
        self._candidates = candidates
        self._runner = runner
        self._sink = sink
        self._tables = {step.disk: step.table for step in plan.steps if isinstance(step, CreateTable)}
        self._streamers: dict[str, Streamer] = {}
        self._verifies = any(isinstance(step, VerifyVolume) for step in plan.steps)
        self._targets: dict[str, Target] = {}
        self._meters = {
            RestoreVolume: Meter(sink, Stage.STREAM, plan.bytes_written(), message="Writing"),
            VerifyVolume: Meter(sink, Stage.VERIFY, plan.bytes_written(), message="Reading back"),
        }

    def run(self) -> Report:
        """All steps, in order: those that write the disk while it is held, then those on its filesystems."""
        started = time.monotonic()
        reports: list[StepReport] = []
        outcomes: list[Outcome] = []
        with contextlib.ExitStack() as stack:
            for disk, candidate in self._candidates.items():
                target = stack.enter_context(open_target(candidate))
                self._targets[disk] = target
                resume = carries_table(self._plan, self._plan.target(disk), candidate, self._runner)
                self._streamers[disk] = Streamer(self._repository, target, resume=resume)
            with _half_way():
                for step in self._plan.steps:
                    if isinstance(step, _WRITING):
                        self._do(step, reports, outcomes)
                for target in self._targets.values():
                    target.flush()
        with _half_way():
            for candidate in self._candidates.values():
                reread_table(candidate.node, self._runner)
            for step in self._plan.steps:
                if not isinstance(step, _WRITING):
                    self._do(step, reports, outcomes)
        total = sum((outcome.count for outcome in outcomes), StreamCount())
        report = Report(
            recovery_point=self._plan.recovery_point,
            name=self._plan.name,
            digest=self._plan.digest,
            targets=tuple(candidate.node for candidate in self._candidates.values()),
            steps=tuple(reports),
            seconds=time.monotonic() - started,
            written=total.written,
            kept=total.kept,
            zeroed=total.zeroed,
            verified=any(isinstance(step, VerifyVolume) for step in self._plan.steps),
            boot=tuple(line for outcome in outcomes for line in outcome.boot),
            warnings=tuple(line for outcome in outcomes for line in outcome.warnings),
        )
        self._sink(Event(stage=Stage.DONE, message=f"{format_size(total.written)} written"))
        return report

    def _do(self, step: Step, reports: list[StepReport], outcomes: list[Outcome]) -> None:
        started = time.monotonic()
        outcome = self._perform(step)
        outcomes.append(outcome)
        reports.append(
            StepReport(
                step=describe(step),
                seconds=round(time.monotonic() - started, 3),
                written=outcome.count.written,
                kept=outcome.count.kept,
                zeroed=outcome.count.zeroed,
                verified=outcome.verified,
            )
        )

    def _perform(self, step: Step) -> Outcome:
        match step:
            case WipeSignatures(disk=disk, extents=extents):
                self._say(Stage.LAYOUT, step)
                for extent in extents:
                    self._targets[disk].zero(extent.start, extent.size)
                self._targets[disk].flush()
            case CreateTable(disk=disk, table=table):
                self._say(Stage.LAYOUT, step)
                create_table(self._candidates[disk].node, table, self._runner)
            case WriteHead():
                self._say(Stage.LAYOUT, step)
                return Outcome(count=self._write_head(step))
            case RestoreVolume(disk=disk, volume=volume, offset=offset):
                self._say(Stage.STREAM, step)
                meter = self._meters[RestoreVolume]
                with ticking(meter):
                    count = self._streamers[disk].restore(
                        self._placed(disk, volume, offset),
                        meter,
                        self._meters[VerifyVolume] if self._verifies else None,
                    )
                return Outcome(count=count)
            case VerifyVolume(disk=disk, volume=volume, offset=offset):
                self._say(Stage.VERIFY, step)
                self._targets[disk].flush()
                meter = self._meters[VerifyVolume]
                with ticking(meter):
                    verified = self._streamers[disk].verify(self._placed(disk, volume, offset), meter)
                return Outcome(verified=verified)
            case GrowFilesystem(disk=disk, number=number, kind=kind):
                self._say(Stage.GROW, step)
                partition = next(part for part in self._tables[disk].partitions if part.number == number)
                candidate = self._candidates[disk]
                with partition_node(candidate.node, partition, candidate.sector_size, self._runner) as node:
                    mended = grow_filesystem(node, kind, self._runner)
                if mended:
                    return Outcome(warnings=(f"e2fsck mended the filesystem of partition {number} before growing it",))
            case RepairBoot(disk=disk, firmware=firmware):
                self._say(Stage.BOOT, step)
                fixed = repair_boot(
                    self._candidates[disk].node, self._restored(disk), firmware, self._runner, self._sink
                )
                return Outcome(boot=fixed.actions, warnings=fixed.warnings)
        return Outcome()

    def _write_head(self, step: WriteHead) -> StreamCount:
        """Boot code and gap go around the table that was made a moment ago."""
        volume = self._manifest.volume(step.volume)
        target = self._targets[step.disk]
        where = volume_name(self._plan.recovery_point, self._manifest, volume)
        chunk = self._repository.chunk_size
        head = bytearray(volume.size)
        for slot in self._repository.slots(volume, where):
            if slot.id is not None:
                plain = self._repository.read_chunk(slot.id, where)
                head[slot.number * chunk : slot.number * chunk + len(plain)] = plain
        sector_size = self._candidates[step.disk].sector_size
        written = 0
        for extent in step.extents:
            start, end = extent.start // sector_size * sector_size, -(-extent.end // sector_size) * sector_size
            sectors = bytearray(target.read_at(start, end - start))
            sectors[extent.start - start : extent.end - start] = head[extent.start : extent.end]
            target.write_at(start, bytes(sectors))
            if target.read_at(start, end - start) != sectors:
                raise DeviceError(f"{target.node}: the boot area that was written does not read back.")
            written += extent.size
        return StreamCount(written=written)

    def _placed(self, disk: str, volume_id: str, offset: int) -> Placed:
        volume = self._manifest.volume(volume_id)
        where = volume_name(self._plan.recovery_point, self._manifest, volume)
        return Placed(volume, offset, where, self._manifest.layout.disk(disk).sector_size)

    def _restored(self, disk: str) -> Disk:
        """The disk as it is now: the manifest's, with the plan's table."""
        table: PartitionTable | None = self._tables.get(disk)
        return msgspec.structs.replace(self._manifest.layout.disk(disk), table=table)

    def _say(self, stage: Stage, step: Step) -> None:
        self._sink(Event(stage=stage, message=describe(step)))
