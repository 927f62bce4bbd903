"""Matching: which disk of a recovery point goes to which target, by what both are, with a score and its reasons.

Pure: facts in, pairs and doubts out. Whoever calls decides what a doubt means: a person is asked, an unattended job
refuses. The order in which disks and targets are given never decides anything.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import msgspec

from core.units import counted, format_size
from images.model.layout import Disk, DiskIdentity, PartitionRole
from images.model.machine import MachineDisk
from restore.planning.assignment import IMPOSSIBLE, assign
from restore.target.candidates import Candidate

#: Points from which a pair needs no second look: an identity, or the same model and size on the same bus.
CLEAR = 50
#: Points by which the best assignment must be ahead of the next.
LEAD = 10

_BOOTING = frozenset({PartitionRole.ESP, PartitionRole.BIOS_BOOT})


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of the recovery point, by its id, and where it goes."""

    disk: str
    candidate: Candidate


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How well a target suits a disk. ``reasons``: one for each part of the points; ``against``: why it cannot be."""

    disk: str
    node: str
    points: int
    reasons: tuple[str, ...]
    against: str = ""


class Matching(msgspec.Struct, frozen=True, kw_only=True):
    """What came of matching.

    Attributes:
        pairs: the best assignment, in the order of the disks; empty when there is none, or several are as good.
        scores: every disk with every target, the best first.
        doubts: why ``pairs`` is not to be taken without asking; empty when it is clear.
    """

    pairs: tuple[Pair, ...]
    scores: tuple[Score, ...]
    doubts: tuple[str, ...]


def match(
    disks: Sequence[Disk],
    candidates: Sequence[Candidate],
    *,
    least: Callable[[Disk], int],
    captured: Sequence[MachineDisk] = (),
    threshold: int = CLEAR,
) -> Matching:
    """Find the best target for each disk.

    Args:
        candidates: at least as many as disks; the others stay as they are.
        least: bytes of the smallest target that takes a disk. Asked only where a candidate is smaller than the disk.
        captured: the disks of the machine that was captured, which say which of them was removable.
        threshold: points that every pair needs.
    """
    doubles = same_disks(candidates)
    smallest = min((candidate.size for candidate in candidates), default=0)
    needed = {disk.id: least(disk) if smallest < disk.size else 0 for disk in disks}
    scores = tuple(
        _score(disk, candidate, needed[disk.id], _was_removable(disk, captured))
        for disk in disks
        for candidate in sorted(candidates, key=lambda candidate: candidate.node)
    )
    shown = tuple(sorted(scores, key=lambda score: (score.disk, bool(score.against), -score.points, score.node)))
    if doubles:
        return Matching(pairs=(), scores=shown, doubts=tuple(doubles))
    if len(candidates) < len(disks):
        few = f"to be restored: {counted(len(disks), 'disk')}, possible: {counted(len(candidates), 'target')}"
        return Matching(pairs=(), scores=shown, doubts=(few,))
    points = {(score.disk, score.node): IMPOSSIBLE if score.against else score.points for score in scores}
    nodes = sorted(candidate.node for candidate in candidates)
    best = assign([[points[disk.id, node] for node in nodes] for disk in disks])
    if best.total <= IMPOSSIBLE // 2:
        hopeless = [disk.id for disk in disks if all(points[disk.id, node] == IMPOSSIBLE for node in nodes)]
        lacking = tuple(f"no possible target can take {disk}" for disk in hopeless)
        return Matching(pairs=(), scores=shown, doubts=lacking or ("the possible targets cannot take all disks",))
    if best.lead == 0:
        return Matching(pairs=(), scores=shown, doubts=("several assignments are equally good",))
    named = {candidate.node: candidate for candidate in candidates}
    pairs = tuple(
        Pair(disk=disk.id, candidate=named[nodes[column]]) for disk, column in zip(disks, best.columns, strict=True)
    )
    reached = [(pair, points[pair.disk, pair.candidate.node]) for pair in pairs]
    doubts = [
        f"{pair.disk} to {pair.candidate.node} has {score} points, {threshold} are clear"
        for pair, score in reached
        if score < threshold
    ]
    if best.lead < LEAD:
        doubts.append(f"the next best assignment is only {best.lead} points behind, {LEAD} are clear")
    return Matching(pairs=pairs, scores=shown, doubts=tuple(doubts))


def same_disks(candidates: Sequence[Candidate]) -> list[str]:
    """A sentence for each two candidates that are one disk or file under two names."""
    found = []
    for first, second in combinations(sorted(candidates, key=lambda candidate: candidate.node), 2):
        why = _same(first, second)
        if first.node == second.node:
            found.append(f"{first.node} is named twice")
        elif why:
            found.append(f"{first.node} and {second.node} are one and the same: {why}")
    return list(dict.fromkeys(found))


def score_lines(scores: Sequence[Score]) -> Iterator[str]:
    """The table of scores, for people."""
    for score in scores:
        why = score.against or ", ".join(score.reasons) or "nothing in common"
        points = "  no" if score.against else f"{score.points:4}"
        yield f"{score.disk} to {score.node}: {points}  {why}"


def is_same_identity(known: DiskIdentity, found: DiskIdentity) -> bool:
    """Whether two identities are one disk's: the WWN decides, then the serial with the model."""
    if known.wwn and found.wwn:
        return known.wwn == found.wwn
    return bool(known.serial) and (known.serial, known.model) == (found.serial, found.model)


def _same(first: Candidate, second: Candidate) -> str:
    if first.inode and first.inode == second.inode:
        return "they are the same file"
    if first.identity.wwn and first.identity.wwn == second.identity.wwn:
        return f"both have the WWN {first.identity.wwn}"
    # Some enclosures give every disk the same serial: one disk has one size, too.
    if first.size == second.size and is_same_identity(first.identity, second.identity):
        return f"both are {first.identity.model} with the serial number {first.identity.serial}"
    return ""


def _score(disk: Disk, candidate: Candidate, least: int, removable: bool) -> Score:
    facts = [
        *_identity(disk.identity, candidate.identity),
        *_size(disk, candidate),
        *_role(disk, candidate, removable),
    ]
    against = ""
    if candidate.size < least:
        against = f"too small: it has {format_size(candidate.size)}, {format_size(least)} are needed"
    return Score(
        disk=disk.id,
        node=candidate.node,
        points=sum(points for points, _ in facts),
        reasons=tuple(f"{text} {points:+}" for points, text in facts),
        against=against,
    )


def _identity(known: DiskIdentity, found: DiskIdentity) -> Iterator[tuple[int, str]]:
    if known.wwn and found.wwn:
        if known.wwn == found.wwn:
            yield 100, "same WWN"
    elif known.serial and known.serial == found.serial:
        yield (80, "same serial number") if known.model == found.model else (60, "same serial number, another model")
    if known.model and known.model == found.model:
        yield 15, "same model"
    if known.transport and known.transport == found.transport:
        yield 5, f"both {known.transport}"


def _size(disk: Disk, candidate: Candidate) -> Iterator[tuple[int, str]]:
    if candidate.size == disk.size:
        yield 25, "same size"
    elif abs(candidate.size - disk.size) * 100 <= disk.size:
        yield 15, "nearly the same size"
    elif disk.size < candidate.size <= 2 * disk.size:
        yield 8, "larger"
    elif candidate.size > disk.size:
        yield 2, "much larger"
    else:
        yield 4, "smaller, but large enough"
    if candidate.sector_size == disk.sector_size:
        yield 5, "same sector size"


def _role(disk: Disk, candidate: Candidate, removable: bool) -> Iterator[tuple[int, str]]:
    boots = disk.table is not None and any(part.active or part.role in _BOOTING for part in disk.table.partitions)
    if boots and any(occupant.boots for occupant in candidate.occupants):
        yield 10, "both boot"
    if candidate.removable != removable:
        yield -30, "removable, the disk was not" if candidate.removable else "not removable, the disk was"


def _was_removable(disk: Disk, captured: Sequence[MachineDisk]) -> bool:
    return any(found.removable for found in captured if is_same_identity(disk.identity, found.identity))
