"""Prune: take out of the packs what no recovery point needs (docs/image-format.md §9).

Here is what is decided: every tree is walked once, and what cannot be read stops the work before anything is removed.
``sweep.py`` does it.
"""

import msgspec
import numpy as np

from core.documents import encode
from core.errors import DamagedError, RefusedError
from core.events import Event, Sink, Stage
from core.units import format_size
from images.store.backend import MissingFileError
from images.store.catalogue import PointSummary
from images.store.census import Census
from images.store.document import DOCUMENT, VERSION
from images.store.garbage import find_strays
from images.store.index_table import Mask, sort_keys
from images.store.index_tables import IndexTables
from images.store.locks import Lock
from images.store.parity import parity_name
from images.store.proof import promise_of, prove_all
from images.store.repository import Repository, pack_name
from images.store.sweep import Sweep, room_needed
from images.store.trees import TreeWalk
from images.store.usage import Kept, Limit, PrunePlan, choose_kept, not_covered, plan_prune
from images.store.writer import writable


class PruneResult(msgspec.Struct, frozen=True, kw_only=True):
    """What prune did, or would do. Bytes.

    Attributes:
        dry_run: nothing was done.
        points: recovery points that count on what is kept.
        deleted, rewritten: packs; copied: bytes of records written anew.
        strays: other files removed (half-written ones, packs that no index names, parity of packs that are gone).
        freed: bytes; room: needed for the time being.
        kept: packs left; stored: their bytes; unused: bytes in them that nobody needs.
        warnings: what should be known.
    """

    dry_run: bool
    points: int
    deleted: int
    rewritten: int
    copied: int
    strays: int
    freed: int
    room: int
    kept: int
    stored: int
    unused: int
    warnings: tuple[str, ...] = ()


class _Marked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found before anything is changed."""

    points: tuple[PointSummary, ...]
    tables: IndexTables
    kept: tuple[Mask, ...]
    plan: PrunePlan
    unnamed: dict[bytes, int]
    strays: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def room(self) -> int:
        """Bytes needed for the time being."""
        return room_needed(self.plan.rewrite)


def prune(repository: Repository, limit: Limit, lock: Lock, *, sink: Sink) -> PruneResult:
    """Prune.

    Args:
        lock: the exclusive lock.

    Raises:
        RefusedError: something cannot be read that says what is needed. Nothing was removed.
        DeviceError: the repository cannot be written; what was done is complete, and the same command goes on.
        LockLostError: somebody removed our lock; stopped before deleting anything more.
    """
    marked = _mark(repository, limit, sink)
    _say_plan(marked, sink)
    _raise_version(repository, lock)
    sweep = Sweep(repository, marked.tables, marked.kept, marked.points, lock, sink)
    # What belongs to nothing goes first: on a full disk it gives the room that new indexes need.
    sweep.remove_strays(marked.strays, tuple(marked.unnamed))
    sweep.delete_unused(marked.plan.delete)
    sweep.rewrite(marked.plan.rewrite)
    sweep.merge_indexes()
    return _result(marked, dry_run=False, rewritten=sweep.rewritten, copied=sweep.copied, more=tuple(sweep.warnings))


def plan_only(repository: Repository, limit: Limit, *, sink: Sink) -> PruneResult:
    """What :func:`prune` would do; nothing is changed.

    Raises:
        RefusedError: as :func:`prune`.
    """
    marked = _mark(repository, limit, sink)
    copied = sum(pack.kept for pack in marked.plan.rewrite)
    return _result(marked, dry_run=True, rewritten=len(marked.plan.rewrite), copied=copied, more=())


def _mark(repository: Repository, limit: Limit, sink: Sink) -> _Marked:
    """Which records are needed, and what follows from that."""
    repository.reload()
    backend = repository.backend
    tables = IndexTables(backend, repository.id, repository.index_names())
    if tables.damaged:
        raise RefusedError(
            f"Prune cannot tell what is needed: {tables.damaged[0].reason}",
            hint="liferaft check --repair makes indexes anew from the packs.",
            reasons=tuple(found.reason for found in tables.damaged),
        )
    census = Census(tables, repository.chunk_size)
    points = _count_points(repository, census, sink)
    files = backend.sizes("packs")
    sizes = tables.pack_sizes()
    unnamed = {
        pack: size
        for name, size in files.items()
        if (pack := _pack_of(name, ".pack")) is not None and name == pack_name(pack) and pack not in sizes
    }
    damaged = frozenset(pack for pack, size in sizes.items() if files.get(pack_name(pack)) != size)
    # What could not be read when a repair took it out of the indexes may be read today: a cable, a server.
    held = (not_covered(tables) - damaged) if census.missing_count else frozenset[bytes]()
    warnings = (*_missing(census, unnamed, damaged), *(_held(pack) for pack in sorted(held)))
    kept = choose_kept(tables, census, damaged)
    _keep_copies(repository, tables, kept)
    parity = {pack for name in files if (pack := _pack_of(name, ".parity")) is not None and name == parity_name(pack)}
    strays = find_strays(repository, set(sizes) | set(unnamed), parity)
    return _Marked(
        points=points,
        tables=tables,
        kept=kept.masks,
        plan=plan_prune(tables, kept.masks, limit, damaged, held),
        unnamed=unnamed,
        strays=(*strays.leftovers, *strays.parity, *strays.signatures),
        warnings=warnings,
    )


def _count_points(repository: Repository, census: Census, sink: Sink) -> tuple[PointSummary, ...]:
    points, problems = repository.read_points()
    if problems:
        raise RefusedError(
            f"Prune cannot tell what a recovery point needs: {problems[0]}",
            hint="Repair it (liferaft check --repair), or give it up with liferaft forget and its full id.",
            reasons=problems,
        )
    _refuse_missing_points(repository)
    walk = TreeWalk(repository)
    for point in points:
        sink(Event(stage=Stage.PRUNE, message=f"Reading the maps of {point.name} ({point.id[:12]})"))
        try:
            for volume in repository.manifest(point.id).volumes:
                census.count(walk, volume, f"recovery point {point.id[:12]} ({point.name}), {volume.id}")
        except DamagedError as error:
            raise RefusedError(
                f"Prune cannot tell what a recovery point needs: {error.message}",
                hint=f"liferaft check --repair; or give it up: liferaft forget {point.id[:12]}.",
            ) from None
    census.settle()
    return points


def _refuse_missing_points(repository: Repository) -> None:
    """A recovery point leaves the catalogue before its manifest goes (§9): one that only the catalogue knows was lost.

    Its manifest may come back, from lost+found or from a share that is mounted again; what it needs would not.
    """
    try:
        listed = {point.id: point for point in repository.catalogued_points()}
    except (DamagedError, MissingFileError):
        # The catalogue only repeats what the folders say, and may be damaged or missing.
        return
    lost = sorted(set(listed) - set(repository.manifest_ids()))
    if lost:
        reasons = tuple(f"manifests/{point}.json ({listed[point].name}) is missing." for point in lost)
        raise RefusedError(
            f"Prune cannot tell what a recovery point needs: {reasons[0]}",
            hint="Bring it back (liferaft copy, from another repository), or give it up: liferaft check --repair.",
            reasons=reasons,
        )


def _missing(census: Census, unnamed: dict[bytes, int], damaged: frozenset[bytes]) -> tuple[str, ...]:
    """What is said about damage that is there already; refuses where deleting might make it final."""
    if census.missing_count and unnamed:
        raise RefusedError(
            f"{census.missing_count} chunks that recovery points need are in no index, and {len(unnamed)} packs, which "
            "may hold them, are in no index either.",
            hint="liferaft check --repair enters them into a new index.",
        )
    warnings = [f"{pack_name(pack)} is missing or truncated: it is left as it is" for pack in sorted(damaged)]
    if census.missing_count:
        warnings.insert(
            0, f"{census.missing_count} chunks that recovery points need are lost: liferaft check names them"
        )
    return tuple(warnings)


def _held(pack: bytes) -> str:
    return (
        f"{pack_name(pack)} stays as it is: it holds what no index names, perhaps some of the lost chunks. "
        "liferaft check --repair looks for them"
    )


def _keep_copies(repository: Repository, tables: IndexTables, kept: Kept) -> None:
    """Where one of several copies is to stay, it must be a sound one; where it is not, all of them stay."""
    for number, table in enumerate(tables):
        (rows,) = np.nonzero(kept.alone[number])
        rows = rows[np.lexsort((table.entries["offset"][rows], table.entries["pack"][rows]))]
        for proven in prove_all(repository, (promise_of(table, row) for row in rows.tolist())):
            if proven.error is None:
                continue
            ids = np.frombuffer(proven.promise.id, dtype=table.entries["id"].dtype)
            for other, elsewhere in enumerate(tables):
                at = int(elsewhere.find(ids, sort_keys(ids))[0])
                if at >= 0:
                    kept.masks[other][at] = True


def _say_plan(marked: _Marked, sink: Sink) -> None:
    plan = marked.plan
    text = (
        f"{len(plan.delete)} packs are not needed, {len(plan.rewrite)} are rewritten; "
        f"{format_size(plan.freed)} become free, {format_size(marked.room)} are needed for the time being"
    )
    sink(Event(stage=Stage.PRUNE, message=text))
    for warning in marked.warnings:
        sink(Event(stage=Stage.PRUNE, message=warning, warning=True))


def _raise_version(repository: Repository, lock: Lock) -> None:
    """Writers of version 1 do not know locks: from now on they are refused."""
    if repository.document.version < VERSION:
        lock.check()
        document = msgspec.structs.replace(repository.document, version=VERSION)
        writable(repository.backend).write(DOCUMENT, encode(document))
        repository.document = document


def _result(marked: _Marked, *, dry_run: bool, rewritten: int, copied: int, more: tuple[str, ...]) -> PruneResult:
    plan = marked.plan
    return PruneResult(
        dry_run=dry_run,
        points=len(marked.points),
        deleted=len(plan.delete),
        rewritten=rewritten,
        copied=copied,
        strays=len(marked.strays) + len(marked.unnamed),
        freed=plan.freed + sum(marked.unnamed.values()),
        room=marked.room,
        kept=len(plan.stay),
        stored=sum(pack.size for pack in plan.stay) + copied,
        unused=sum(pack.unused for pack in plan.stay),
        warnings=(*marked.warnings, *more),
    )


def _pack_of(name: str, suffix: str) -> bytes | None:
    stem = name.rpartition("/")[2].removesuffix(suffix)
    try:
        return bytes.fromhex(stem) if len(stem) == 32 and name.endswith(suffix) else None
    except ValueError:
        return None
