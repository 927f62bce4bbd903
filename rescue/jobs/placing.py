"""Placing: which target each disk of a recovery point goes to, from what a person named, a job's rules, or what the
disks are.

What a person or a rule names is what counts. The rest is matched, and a match that is not clear is asked about, or
refused where nobody can be asked. Nothing is written.
"""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from core.errors import RefusedError, UsageError
from core.units import counted
from images.model.layout import Disk
from images.model.machine import Machine, MachineDisk
from images.model.manifest import Manifest
from restore.planning.matching import CLEAR, Matching, Pair, match, same_disks, score_lines
from restore.target.candidates import Candidate, disk_candidate

#: Whether a person takes the assignment that is proposed.
Ask = Callable[[Matching], bool]
#: Bytes of the smallest target that takes a disk.
Least = Callable[[Disk], int]

_NAMED = re.compile(r"^(?P<disk>disk\d{1,4})=(?P<name>.+)$")
_SPELL = "Say which goes where, as in --target disk0=/dev/sda --target disk1=/dev/sdb"
#: Points that a target needs which a person named: it will be lost in any case, only what comes onto it is matched.
_ANY = -(1 << 20)


class TargetRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which disk an unattended restore goes to: exactly one of wwn, serial and only.

    ``disk``: id of the disk of the recovery point; may be left out when it has one.
    """

    wwn: str = ""
    serial: str = ""
    only: bool = False
    disk: str = ""

    def __post_init__(self) -> None:
        if sum((bool(self.wwn), bool(self.serial), self.only)) != 1:
            raise ValueError("target takes exactly one of wwn, serial and only")


def wanted_disks(manifest: Manifest, skip: Collection[str]) -> tuple[Disk, ...]:
    """The disks of a recovery point that are restored.

    Raises:
        UsageError: one that is to be left out is not there. RefusedError: none is left.
    """
    known = [disk.id for disk in manifest.layout.disks]
    for name in skip:
        if name not in known:
            raise UsageError(f"The recovery point has no disk {name}.", hint=f"It has {', '.join(known)}.")
    disks = tuple(disk for disk in manifest.layout.disks if disk.id not in skip)
    if not disks:
        raise RefusedError("Every disk of the recovery point is left out.", hint="Leave out fewer.")
    return disks


def place_named(
    manifest: Manifest,
    disks: Sequence[Disk],
    names: Sequence[str],
    find: Callable[[str], Candidate],
    least: Least,
    ask: Ask | None,
) -> tuple[Pair, ...]:
    """Disks to the targets that a person named, ``disk0=NAME`` or ``NAME``.

    Args:
        find: the target of a name.

    Raises:
        UsageError: a name names nothing. RefusedError: the numbers differ, or it is not clear which goes where.
    """
    known = [disk.id for disk in disks]
    said: list[Pair] = []
    free: list[Candidate] = []
    for name in names:
        match_ = _NAMED.match(name)
        if match_ is None:
            free.append(find(name))
        elif match_["disk"] not in known:
            raise UsageError(
                f"The target {name} is for {match_['disk']}, which is not restored.",
                hint=f"To be restored: {', '.join(known)}.",
            )
        else:
            said.append(Pair(disk=match_["disk"], candidate=find(match_["name"])))
    doubles = same_disks([*(pair.candidate for pair in said), *free])
    if doubles:
        raise RefusedError(f"A target has one name: {doubles[0]}.", reasons=tuple(doubles))
    left = [disk for disk in disks if disk.id not in {pair.disk for pair in said}]
    if len(left) != len(free):
        raise RefusedError(_count(disks, len(names)), hint="Name a target for each disk, or leave one out with --skip.")
    if len(free) == 1:
        return (*said, Pair(disk=left[0].id, candidate=free[0]))
    found = match(left, free, least=least, captured=_captured(manifest), threshold=_ANY)
    return (*said, *_taken(found, ask))


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of the recovery point, by its id, and the disk of this machine that it goes to.

    ``disk`` may be empty when one is restored.
    """

    disk: str
    target: MachineDisk


def place_assigned(
    disks: Sequence[Disk], assigned: Sequence[Assigned], candidate: Callable[[MachineDisk], Candidate]
) -> tuple[Pair, ...]:
    """Disks to the targets that were assigned; those without one are not among the pairs.

    Raises:
        UsageError: it is not said for which disk a target is, or that disk is not restored.
    """
    known = [disk.id for disk in disks]
    pairs = []
    for one in assigned:
        if not one.disk and len(disks) > 1:
            raise UsageError(
                f"{len(disks)} disks are to be restored, and a target does not say for which it is.",
                hint='Write "targets": [{"disk": "disk0", …}, …]; "skip" leaves disks out.',
            )
        disk = one.disk or known[0]
        if disk not in known:
            raise UsageError(
                f"A target is for {disk}, which is not restored.", hint=f"To be restored: {', '.join(known)}."
            )
        pairs.append(Pair(disk=disk, candidate=candidate(one.target)))
    return tuple(pairs)


def place_matched(
    manifest: Manifest, disks: Sequence[Disk], free: Sequence[Candidate], least: Least, ask: Ask | None
) -> tuple[Pair, ...]:
    """Disks to those of ``free`` that they match best; the others stay as they are.

    Raises:
        RefusedError: it is not clear, with the table of scores.
    """
    return _taken(matched(manifest, disks, free, least), ask)


def matched(manifest: Manifest, disks: Sequence[Disk], candidates: Sequence[Candidate], least: Least) -> Matching:
    """The matching with those candidates against which nothing speaks."""
    free = [candidate for candidate in candidates if not candidate.obstacles]
    return match(disks, free, least=least, captured=_captured(manifest), threshold=CLEAR)


def target_disk(machine: Machine, wanted: TargetRule) -> MachineDisk:
    """The one disk a rule means.

    Raises:
        RefusedError: none or several match: unattended, a guess is no answer.
    """
    free = [disk for disk in machine.disks if not disk.obstacles]
    if wanted.only:
        matches = free
        rule = "the only free disk"
    else:
        rule = f"WWN {wanted.wwn}" if wanted.wwn else f"serial {wanted.serial}"
        matches = [
            disk
            for disk in machine.disks
            if (wanted.wwn and disk.identity.wwn == wanted.wwn)
            or (wanted.serial and disk.identity.serial == wanted.serial)
        ]
    if len(matches) == 1:
        return matches[0]
    shown = [f"{disk.node} {disk.identity.model} serial {disk.identity.serial or 'unknown'}" for disk in machine.disks]
    found = "no disk matches" if not matches else f"{len(matches)} disks match"
    raise RefusedError(
        f"The job's target is {rule}, and {found}.",
        hint=f"This machine has: {'; '.join(shown) or 'no disks'}.",
    )


def recorded_disk(machine: Machine, name: str) -> MachineDisk:
    """The disk of a recorded machine that a person named by serial number, WWN or the node it had.

    Raises:
        UsageError: none or several match.
    """
    if not name:
        raise UsageError("A target has no name.", hint=_disks(machine))
    for key in ("node", "serial", "wwn"):
        found = [
            disk for disk in machine.disks if name == (disk.node if key == "node" else getattr(disk.identity, key))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{name} is the {key} of {len(found)} disks of that machine.", hint=_disks(machine))
    raise UsageError(f"That machine has no disk {name}.", hint=_disks(machine))


def recorded_candidate(disk: MachineDisk, address: str) -> Candidate:
    """A disk of a recorded machine as a target: whether it is free is asked of the machine itself, when it is written.

    Args:
        address: of the repository.
    """
    return disk_candidate(msgspec.structs.replace(disk, obstacles=()), address, ())


def live_name(name: str, machine: Callable[[], Machine]) -> Path:
    """The path that a person named here: a path, or the serial number or WWN of a disk of this machine.

    Raises:
        UsageError: several disks have it.
    """
    if not name:
        raise UsageError("A target has no name.", hint="liferaft probe lists the disks of this machine.")
    path = Path(name)
    if path.exists() or "/" in name:
        return path
    found = [disk for disk in machine().disks if name in (disk.identity.serial, disk.identity.wwn)]
    if len(found) > 1:
        raise UsageError(f"{name} names {len(found)} disks of this machine.", hint="Name one by its node.")
    return Path(found[0].node) if found else path


def _taken(found: Matching, ask: Ask | None) -> tuple[Pair, ...]:
    if not found.doubts or (found.pairs and ask is not None and ask(found)):
        return found.pairs
    raise RefusedError(
        f"It is not clear which disk goes where: {found.doubts[0]}.",
        hint=f"{_SPELL}; in a job with targets.",
        reasons=(*found.doubts, *score_lines(found.scores)),
    )


def _count(disks: Sequence[Disk], targets: int) -> str:
    names = ", ".join(disk.id for disk in disks)
    return f"To be restored: {counted(len(disks), 'disk')} ({names}); named: {counted(targets, 'target')}."


def _captured(manifest: Manifest) -> Sequence[MachineDisk]:
    return manifest.machine.disks if manifest.machine is not None else ()


def _disks(machine: Machine) -> str:
    shown = [f"{disk.node} (serial {disk.identity.serial or 'unknown'})" for disk in machine.disks]
    return f"It has {', '.join(shown) or 'no disks'}."
