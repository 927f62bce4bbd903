"""The forecast of a plan: its estimate, from what is measured now and what earlier restores reached; and what a restore
that ended adds to that. A target is only read here, and for less than a second.
"""

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from images.model.layout import DiskIdentity
from images.model.manifest import Manifest
from images.store.repository import Repository
from restore.plan.estimate import Rate, estimate, tag_of
from restore.plan.plan import Plan
from restore.plan.rates import RateBook, fetch_rate, lessons, read_book, target_rates, write_book
from restore.plan.steps import RestoreVolume
from restore.planning.matching import Pair
from restore.report import Report, StepReport

#: Kinds of steps whose seconds do not follow from the data: what they took is remembered.
_REMEMBERED = frozenset({"repair-boot", "grow-filesystem", "make-unique"})


def with_estimate(
    plan: Plan, repository: Repository, manifest: Manifest, pairs: Sequence[Pair], book: RateBook, *, here: bool = True
) -> Plan:
    """The plan with an estimate; its digest stays the same.

    Args:
        manifest: of the plan's recovery point, with the volumes that are restored.
        here: the targets are disks of this machine, and not of a recorded one.
    """
    rates: list[Rate] = [fetch_rate(repository, manifest)]
    for pair in pairs:
        rates += target_rates(pair.disk, pair.candidate, book, here=here)
    return msgspec.structs.replace(plan, estimate=estimate(plan.steps, rates, book.seconds))


def remember(plan: Plan, report: Report, path: Path, *, today: datetime.date) -> None:
    """Add what a restore reached to the book at ``path``. Image files teach nothing about disks and are left out."""
    disks = list(lessons(today, _streamed(plan, report)))
    files = {target.source for target in plan.targets if target.file}
    took = _by_text(report)
    seconds = {
        tag_of(step): took[step.describe()].seconds
        for step in plan.steps
        if tag_of(step) in _REMEMBERED and step.disk not in files and step.describe() in took
    }
    if disks or seconds:
        write_book(path, read_book(path).with_restore(disks, seconds))


def _streamed(plan: Plan, report: Report) -> Iterator[tuple[DiskIdentity, int, float]]:
    """Each disk with the bytes that were written to it as streams, and the seconds that took."""
    took = _by_text(report)
    for target in plan.targets:
        steps = [step for step in plan.steps if isinstance(step, RestoreVolume) and step.disk == target.source]
        reports = [took[step.describe()] for step in steps if step.describe() in took]
        if not target.file:
            yield target.identity, sum(found.written for found in reports), sum(found.seconds for found in reports)


def _by_text(report: Report) -> dict[str, StepReport]:
    """A report names its steps by what they say of themselves; disks that were written at once may have mixed them."""
    return {found.step: found for found in report.steps}
