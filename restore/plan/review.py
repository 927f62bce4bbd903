"""The review of a plan that somebody may have edited: every reason against it, as repository and machine are now.

It reads, and writes nothing. The same questions are asked again, by ``execute.py``, before the first write.
"""

from collections.abc import Callable, Iterator

from core.errors import DamagedError, RefusedError, UsageError
from images.browse.point import ChunkCache
from images.store.backend import Heard, MissingFileError, deaf
from images.store.repository import Repository
from images.tables.table_bytes import table_pieces
from restore.plan.outgrown import outgrown
from restore.plan.plan import Plan, TargetDisk
from restore.plan.soundness import unfit, unsound
from restore.plan.steps import CreateTable
from restore.planning.matching import same_disks
from restore.planning.surveyed import of_steps, survey_chunks
from restore.target.candidates import Candidate


def review(
    plan: Plan, repository: Repository, find: Callable[[TargetDisk], Candidate], alive: Heard = deaf
) -> list[str]:
    """Every reason against carrying out a plan; none when it may be.

    Args:
        find: the disk or file that a target of the plan means; raises RefusedError or UsageError.
        alive: called now and then while it goes on, with 0.

    Raises:
        UnreachableError: the repository does not answer any more.
    """
    broken = list(unsound(plan)) or list(_against_tables(plan))
    reasons = [*broken, *_against_targets(plan, find), *_against_content(plan, repository, alive, sound=not broken)]
    return list(dict.fromkeys(reasons))


def _against_tables(plan: Plan) -> Iterator[str]:
    """Fields of a table that no such table can hold, as far as its bytes show it; of a plan that holds together."""
    targets = {target.source: target for target in plan.targets}
    for step in plan.steps:
        if isinstance(step, CreateTable):
            target = targets[step.disk]
            try:
                table_pieces(step.table, target.size, target.sector_size)
            except RefusedError as error:
                yield _clause(error.message)


def _against_targets(plan: Plan, find: Callable[[TargetDisk], Candidate]) -> Iterator[str]:
    found: list[Candidate] = []
    for target in plan.targets:
        try:
            candidate = find(target)
        except RefusedError as error:
            yield from (_clause(reason) for reason in error.reasons)
            continue
        except UsageError as error:
            yield _clause(error.message)
            continue
        found.append(candidate)
        yield from candidate.obstacles
        if (candidate.size, candidate.sector_size) != (target.size, target.sector_size):
            yield (
                f"{candidate.node} has {candidate.size} bytes in sectors of {candidate.sector_size}, "
                f"the plan is for {target.size} in sectors of {target.sector_size}"
            )
        elif candidate.contents not in ((), target.destroys):
            yield f"{candidate.node} holds other things now than the plan says it destroys"
    yield from same_disks(found)


def _against_content(plan: Plan, repository: Repository, alive: Heard, *, sound: bool) -> Iterator[str]:
    try:
        manifest = repository.manifest(plan.recovery_point)
    except MissingFileError:
        yield f"recovery point {plan.recovery_point[:12]} is not in {repository.backend.location}"
        return
    except (DamagedError, RefusedError) as error:
        yield _clause(error.message)
        return
    strange = list(unfit(plan, manifest))
    yield from strange
    try:
        survey_chunks(repository, plan.recovery_point, of_steps(plan, manifest), alive)
    except DamagedError as error:
        yield _clause(error.message)
        return
    if sound and not strange:
        # What a step says is looked up in the table and the manifest: both must be what they seem.
        sector_sizes = {target.source: target.sector_size for target in plan.targets}
        yield from outgrown(plan.steps, sector_sizes, ChunkCache(repository), plan.recovery_point, manifest)


def _clause(sentence: str) -> str:
    return sentence.removesuffix(".")
