"""Check: is everything there that the recovery points need, is it sound, and can what is not be repaired?

``inspection.py`` looks, ``repair.py`` repairs, ``hits.py`` says what is hit.
"""

import time

import msgspec

from core.events import Event, Sink, Stage
from images.store.catalogue import CATALOGUE
from images.store.findings import CheckResult, Damage, DamageKind, Hit
from images.store.garbage import count_garbage
from images.store.inspection import Inspection
from images.store.locks import Lock
from images.store.repair import Repairer, catalogue_problem
from images.store.repository import Repository


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """How much to read. data: every record; percent: of the packs, drawn at random."""

    data: bool = False
    percent: float = 100.0


def check(repository: Repository, depth: Depth, *, sink: Sink) -> CheckResult:
    """Look at the whole repository; nothing is changed.

    Raises:
        UnreachableError: the server does not answer. Damage is in the result.
    """
    started = time.monotonic()
    inspection = inspect(repository, depth, sink)
    hits = inspection.find_lost()
    return _result(inspection, hits, tuple(inspection.damages), repaired=(), notes=(), started=started)


def check_and_repair(repository: Repository, depth: Depth, lock: Lock, *, sink: Sink) -> CheckResult:
    """The same, then repair what can be repaired, and look again at what was touched.

    Args:
        lock: the exclusive lock.
    """
    started = time.monotonic()
    first = inspect(repository, depth, sink)
    repairer = Repairer(first, lock, sink)
    repairer.repair_packs()
    repairer.protect_packs(frozenset(first.proven_packs))
    second = _look_again(first, repairer, sink) if first.damage_count else first
    second.find_lost()
    reindexer = Repairer(second, lock, sink)
    if second.lost or second.tables.damaged:
        reindexer.index_unnamed_packs()
    reindexer.replace_indexes()
    reindexer.renew_catalogue()
    repaired = (*repairer.done, *reindexer.done)
    final = second
    if repaired:
        repairer.touched |= reindexer.touched
        final = _look_again(second, repairer, sink)
        last = Repairer(final, lock, sink)
        last.protect_packs(frozenset(final.proven_packs))
        repaired += tuple(last.done)
    hits = final.find_lost()
    return _result(
        final,
        hits,
        _still_damaged(first, final),
        repaired=repaired,
        notes=(*repairer.failed, *reindexer.failed),
        started=started,
        proven=(first.proven_records, first.proven_bytes),
    )


def inspect(repository: Repository, depth: Depth, sink: Sink) -> Inspection:
    """One look at everything."""
    inspection = Inspection(repository, sink)
    _look_at_structure(inspection)
    if depth.data:
        inspection.read_data(depth.percent)
    return inspection


def _look_at_structure(inspection: Inspection) -> None:
    sink = inspection.sink
    sink(Event(stage=Stage.CHECK, message="Reading manifests, indexes and the sizes of packs"))
    inspection.read_documents()
    inspection.read_indexes()
    inspection.look_into_packs()
    inspection.walk_trees()
    problem = catalogue_problem(inspection.repository)
    if problem:
        inspection.add(Damage(kind=DamageKind.CATALOGUE, file=CATALOGUE, message=problem))


def _look_again(before: Inspection, repairer: Repairer, sink: Sink) -> Inspection:
    """A fresh look, and at the data of what was damaged or changed."""
    again = Inspection(before.repository, sink)
    _look_at_structure(again)
    again.read_data(100, frozenset(before.bad_packs | repairer.touched))
    return again


def _still_damaged(first: Inspection, final: Inspection) -> tuple[Damage, ...]:
    """What is damaged now; a lost chunk with the address at which it was found, which its index has forgotten."""
    lost = {identifier.hex() for identifier in final.lost}
    old = {damage.record: damage for damage in first.damages if damage.record in lost and damage.file}
    return tuple(old.get(damage.record, damage) for damage in final.damages)


def _result(
    inspection: Inspection,
    hits: tuple[Hit, ...],
    damages: tuple[Damage, ...],
    *,
    repaired: tuple[str, ...],
    notes: tuple[str, ...],
    started: float,
    proven: tuple[int, int] | None = None,
) -> CheckResult:
    backend, document = inspection.repository.backend, inspection.repository.document
    records, size = proven or (inspection.proven_records, inspection.proven_bytes)
    if not backend.lists:
        notes = (*notes, f"{backend.location} cannot list folders: garbage and unnamed recovery points are not seen.")
    unprotected = set(inspection.pack_files) - inspection.parity_files if document.parity and backend.lists else set()
    return CheckResult(
        location=backend.location,
        points=len(inspection.manifests),
        indexes=len(inspection.tables),
        packs=len(inspection.pack_files),
        records=sum(inspection.tables.counts),
        pages=inspection.pages,
        chunks=inspection.census.chunks,
        stored=sum(inspection.pack_files.values()),
        proven_records=records,
        proven_bytes=size,
        unprotected=len(unprotected),
        damages=damages,
        damage_count=inspection.damage_count,
        harmless=not inspection.serious,
        hits=hits,
        affected=tuple(dict.fromkeys(hit.point for hit in hits)),
        garbage=count_garbage(inspection),
        repaired=repaired,
        notes=notes,
        seconds=time.monotonic() - started,
    )
