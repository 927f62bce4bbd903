"""Forget: remove recovery points. What they alone used is garbage from then on, until prune collects it."""

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from core.errors import DamagedError
from images.model.manifest import Manifest
from images.store.locks import Lock
from images.store.repository import Repository
from images.store.retention import Candidate, Policy, apply_policy
from images.store.writer import writable, write_catalogue


class GroupBy(StrEnum):
    """What recovery points have in common whose history is judged together."""

    HOST = "host"
    DISKS = "disks"
    NAME = "name"


class PointFate(msgspec.Struct, frozen=True, kw_only=True):
    """A recovery point and why it is kept; removed when there are no ``reasons``. ``group``: for people."""

    id: str
    name: str
    created: str
    group: str
    reasons: tuple[str, ...]


class ForgetResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was, or would be, removed.

    Attributes:
        points: every one that was judged, group after group, newest first.
        removed: ids. dry_run: nothing was removed.
        warnings: recovery points that could not be judged and are kept.
    """

    dry_run: bool
    points: tuple[PointFate, ...]
    removed: tuple[str, ...]
    warnings: tuple[str, ...]


def judge_by_policy(
    repository: Repository, policy: Policy, grouping: tuple[GroupBy, ...], *, may_empty: bool = False
) -> ForgetResult:
    """What a policy keeps; nothing is removed.

    Args:
        may_empty: whether a policy may remove the last recovery point of a group.
    """
    groups: dict[str, list[tuple[Candidate, str]]] = {}
    warnings: list[str] = list(repository.read_points()[1])
    for summary in repository.points():
        manifest = repository.manifest(summary.id)
        try:
            taken = _taken(manifest)
        except (ValueError, OverflowError):
            warnings.append(f"{summary.id[:12]} ({summary.name}) is kept: {summary.created!r} is not a time.")
            continue
        group = ", ".join(_key(manifest, field) for field in grouping) or "all"
        groups.setdefault(group, []).append((Candidate(summary.id, summary.name, taken), summary.created))
    fates: list[PointFate] = []
    for group, members in sorted(groups.items()):
        about = {candidate.id: (candidate.name, created) for candidate, created in members}
        judged = apply_policy(
            policy, [candidate for candidate, _ in members], now=datetime.now(UTC), may_empty=may_empty
        )
        for fate in judged:
            name, created = about[fate.id]
            fates.append(PointFate(id=fate.id, name=name, created=created, group=group, reasons=fate.reasons))
    removed = tuple(fate.id for fate in fates if not fate.reasons)
    return ForgetResult(dry_run=True, points=tuple(fates), removed=removed, warnings=tuple(warnings))


def judge_named(repository: Repository, ids: tuple[str, ...]) -> ForgetResult:
    """The recovery points a person named by full id are removed, whatever a policy says; damaged ones, too."""
    fates: list[PointFate] = []
    for identifier in dict.fromkeys(ids):
        try:
            manifest = repository.manifest(identifier)
            name, created = manifest.name, manifest.created
        except DamagedError:
            name, created = "(damaged)", ""
        fates.append(PointFate(id=identifier, name=name, created=created, group="named", reasons=()))
    removed = tuple(fate.id for fate in fates)
    return ForgetResult(dry_run=True, points=tuple(fates), removed=removed, warnings=())


def forget(repository: Repository, ids: tuple[str, ...], lock: Lock) -> None:
    """Remove recovery points: out of the catalogue, then the manifest, then its signature.

    Raises:
        DeviceError: the repository cannot be written; what is not removed yet is whole.
    """
    if not ids:
        return
    backend = writable(repository.backend)
    write_catalogue(repository, without_points=frozenset(ids))
    for identifier in ids:
        lock.check()
        backend.remove(f"manifests/{identifier}.json")
        backend.remove(f"manifests/{identifier}.sig")
    # Somebody who captured meanwhile may have listed them once more.
    if set(ids) & {point.id for point in repository.catalogued_points()}:
        write_catalogue(repository)


def _taken(manifest: Manifest) -> datetime:
    taken = datetime.fromisoformat(manifest.created)
    return (taken if taken.tzinfo else taken.replace(tzinfo=UTC)).astimezone(UTC)


def _key(manifest: Manifest, field: GroupBy) -> str:
    if field is GroupBy.HOST:
        return manifest.origin.partition(": ")[0]
    if field is GroupBy.NAME:
        return manifest.name
    disks = [disk.identity for disk in manifest.layout.disks]
    named = [identity.wwn or f"{identity.model} {identity.serial}".strip() for identity in disks]
    if all(identity.wwn or identity.serial for identity in disks):
        return " + ".join(named)
    # An image file has no identity of its own; where it lay is all there is.
    return manifest.origin.partition(": ")[2] or " + ".join(named)
