"""Preflight: everything that speaks against carrying out a plan, found before the first write.

It looks, and writes nothing.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from core.errors import DamagedError, DeviceError, ProcessError, RefusedError
from core.process import Runner, find_tool
from images.browse.point import ChunkCache
from images.model.manifest import Manifest
from images.store.backend import Heard, deaf
from images.store.repository import Repository
from restore.perform import PERFORMERS
from restore.plan.outgrown import outgrown
from restore.plan.plan import Plan, TargetDisk
from restore.plan.soundness import unfit, unsound
from restore.plan.steps import CreateTable
from restore.planning.matching import same_disks
from restore.planning.surveyed import of_steps, survey_chunks
from restore.shrink.room import ELSEWHERE, scratch_folder, too_little_scratch
from restore.stream.journal import Journal
from restore.table.table import compare, rehearse_table
from restore.target.candidates import Candidate, find_target


def preflight(
    plan: Plan,
    repository: Repository,
    runner: Runner,
    journal: Path | None,
    scratch: Path | None = None,
    alive: Heard = deaf,
) -> tuple[dict[str, Candidate], Manifest]:
    """Find every target again and collect every reason against. Nothing is written.

    Args:
        journal: where an earlier run of the plan may have left a journal.
        scratch: the folder for scratch files; None: TMPDIR's.
        alive: called whenever something moved.

    Returns:
        the targets by source disk, and the recovery point's manifest.

    Raises:
        RefusedError: with all reasons. DamagedError: chunks are missing.
    """
    reasons = list(unsound(plan))
    candidates: dict[str, Candidate] = {}
    for target in plan.targets:
        candidate = find_target(target, repository.backend.location, runner)
        candidates[target.source] = candidate
        alive(0)
    reasons += same_disks(tuple(candidates.values()))
    begun = Journal(journal, plan, candidates)
    for target in plan.targets:
        candidate = candidates[target.source]
        reasons += candidate.obstacles
        if (candidate.size, candidate.sector_size) != (target.size, target.sector_size):
            reasons.append(f"{candidate.node} has {candidate.size} bytes, the plan was made for {target.size}")
        elif candidate.contents not in ((), target.destroys) and not (
            (begun.began(target.source) and not begun.tabled(target.source))
            or carries_table(plan, target, candidate, runner)
        ):
            reasons.append(f"{candidate.node} holds other things now than when the plan was made")
    reasons += _missing_means(plan, candidates)
    reasons += [f"{reason} {ELSEWHERE}" for reason in too_little_scratch(plan, scratch_folder(scratch))]
    if not reasons:
        reasons += _impossible_tables(plan, candidates, runner)
    if reasons:
        raise RefusedError(f"The restore was refused: {reasons[0]}. Nothing was written.", reasons=tuple(reasons))
    manifest = repository.manifest(plan.recovery_point)
    reasons += unfit(plan, manifest)
    if reasons:
        raise RefusedError(
            f"The plan does not fit its recovery point: {reasons[0]}. Nothing was written.", reasons=tuple(reasons)
        )
    survey_chunks(repository, plan.recovery_point, of_steps(plan, manifest), alive)
    sector_sizes = {target.source: target.sector_size for target in plan.targets}
    reasons += outgrown(plan.steps, sector_sizes, ChunkCache(repository), plan.recovery_point, manifest)
    if reasons:
        raise RefusedError(f"The restore was refused: {reasons[0]}. Nothing was written.", reasons=tuple(reasons))
    return candidates, manifest


def still_there(plan: Plan, repository: Repository, candidates: Mapping[str, Candidate], runner: Runner) -> None:
    """Look at the targets once more: walking the maps, hooks and making filesystems smaller take their time.

    Raises:
        RefusedError: a target is gone, is another disk or file, or is not free any more. Nothing was written.
    """
    reasons: list[str] = []
    for target in plan.targets:
        before, now = candidates[target.source], find_target(target, repository.backend.location, runner)
        reasons += now.obstacles
        if (now.node, now.identity, now.size, now.inode) != (before.node, before.identity, before.size, before.inode):
            reasons.append(f"{before.node} is not the disk or file any more that it was when the restore began")
    if reasons:
        raise RefusedError(f"The restore was refused: {reasons[0]}. Nothing was written.", reasons=tuple(reasons))


def _missing_means(plan: Plan, candidates: dict[str, Candidate]) -> list[str]:
    """Tools and rights that a later step would miss."""
    tools: list[str] = []
    reasons: list[str] = []
    for step in plan.steps:
        performer = PERFORMERS[type(step)]
        tools += performer.tools(step)
        reasons += performer.against(step)
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
