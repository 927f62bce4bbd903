"""Prune: take out of the packs what no recovery point needs (docs/image-format.md §9).

Marks by walking every tree once, sweeps in rounds: copy what a few packs still hold, write indexes, the catalogue,
remove the old indexes, remove the packs. A power cut anywhere leaves every recovery point restorable, and each round
needs room for about one pack only.
"""

import os
from collections.abc import Iterator

import msgspec
import numpy as np

from core.documents import encode
from core.errors import DamagedError, RefusedError
from core.events import Event, Meter, Sink, Stage, ticking
from core.units import GIB, format_size
from images.store.census import Census
from images.store.document import DOCUMENT, VERSION
from images.store.garbage import find_strays
from images.store.index_table import IndexTable, Mask, sort_keys
from images.store.index_tables import IndexTables
from images.store.locks import Lock
from images.store.parity import parity_name
from images.store.proof import Promise, Proven, promise_of, prove_all
from images.store.records import RecordHeader, unseal
from images.store.repair import pack_index
from images.store.repository import PointSummary, Repository, pack_name
from images.store.trees import TreeWalk
from images.store.usage import Kept, Limit, PackUse, PrunePlan, choose_kept, plan_prune
from images.store.writer import RepositoryWriter, writable, write_catalogue

#: Bytes copied in one round, which is the room a round needs.
_ROUND = GIB


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
        """Bytes needed at the same time as what is still there: a round's records, and their indexes."""
        most = max((pack.kept for pack in self.plan.rewrite), default=0)
        return min(sum(pack.kept for pack in self.plan.rewrite), _ROUND + most)


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
    sweep = _Sweep(repository, marked, lock, sink)
    # What belongs to nothing goes first: on a full disk it gives the room that new indexes need.
    sweep.remove_strays()
    sweep.delete_unused()
    sweep.rewrite()
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
    warnings = _missing(census, unnamed, damaged)
    kept = choose_kept(tables, census, damaged)
    _keep_copies(repository, tables, kept)
    parity = {pack for name in files if (pack := _pack_of(name, ".parity")) is not None and name == parity_name(pack)}
    strays = find_strays(repository, set(sizes) | set(unnamed), parity)
    return _Marked(
        points=points,
        tables=tables,
        kept=kept.masks,
        plan=plan_prune(tables, kept.masks, limit, damaged),
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


class _Copier(RepositoryWriter):
    """Writes records that are stored already once more, into packs of its own."""

    def knows(self, identifier: bytes) -> bool:
        return self._index.find(identifier) is not None


class _Sweep:
    """Deletes and rewrites. Every step leaves a whole repository."""

    def __init__(self, repository: Repository, marked: _Marked, lock: Lock, sink: Sink) -> None:
        self._repository = repository
        self._backend = writable(repository.backend)
        self._marked = marked
        self._lock = lock
        self._sink = sink
        # Indexes that are still as they were when marked, with the mask of what stays.
        self._masks = dict(zip(marked.tables.files, marked.kept, strict=True))
        self._packs = dict(zip(marked.tables.files, marked.tables.packs, strict=True))
        self.rewritten = 0
        self.copied = 0
        self.warnings: list[str] = []

    def delete_unused(self) -> None:
        """Packs that hold nothing needed."""
        self._drop({pack.id for pack in self._marked.plan.delete})

    def rewrite(self) -> None:
        """Packs that hold much that is not needed, a few at a time."""
        meter = Meter(self._sink, Stage.PRUNE, sum(pack.kept for pack in self._marked.plan.rewrite))
        with ticking(meter):
            for packs in _rounds(self._marked.plan.rewrite):
                self._drop(self._copy(packs, meter))
                self.rewritten += len(packs)

    def remove_strays(self) -> None:
        """What belongs to nothing."""
        self._lock.check()
        for name in self._marked.strays:
            self._backend.remove(name)
        for pack in self._marked.unnamed:
            self._remove_pack(pack)

    def _copy(self, packs: tuple[PackUse, ...], meter: Meter) -> set[bytes]:
        """Write what stays of these packs into new ones, indexed. Returns those whose every kept record was sound."""
        failed: set[bytes] = set()
        copier = _Copier(self._repository, self._lock)
        try:
            for proven in prove_all(self._repository, self._kept_of(packs), self._payload):
                place = proven.promise.place
                if proven.header is None:
                    failed.add(place.pack)
                    self._warn(f"{proven.error}: its pack is kept; see liferaft check --data")
                    continue
                head = proven.header
                copier.put(head.kind, head.id, head.plain_length, head.codec, proven.payload)
                meter.advance(proven.promise.end - place.offset)
            self.copied += copier.stored
            copier.checkpoint()
        except BaseException:
            # What is complete and in no index is garbage for the next prune; the open pack gives its room back now.
            copier.abandon()
            raise
        return {pack.id for pack in packs} - failed

    def _payload(self, promise: Promise, header: RecordHeader, data: memoryview, plain: bytes) -> Proven:
        """The compressed payload: it is not compressed again, only sealed again where it is encrypted."""
        payload = unseal(data, header, self._repository.record_key, pack_name(promise.place.pack))
        return Proven(promise, None, header, bytes(payload), header.id)

    def _kept_of(self, packs: tuple[PackUse, ...]) -> Iterator[Promise]:
        for use in packs:
            for file, named in tuple(self._packs.items()):
                if use.id in named:
                    yield from self._kept_in(self._marked.tables.read(file), use.id)

    def _kept_in(self, table: IndexTable, pack: bytes) -> Iterator[Promise]:
        rows = table.of_pack(table.packs.index(pack))
        for row in rows[self._masks[table.file][rows]].tolist():
            yield promise_of(table, row)

    def _drop(self, packs: set[bytes]) -> None:
        """Take packs out of every index, then out of the folder. What must stay of them lies elsewhere by now."""
        if not packs:
            return
        affected = [file for file, named in self._packs.items() if not packs.isdisjoint(named)]
        made: list[tuple[str, Mask, dict[bytes, int]]] = []
        for file in affected:
            found = self._index_without(file, packs)
            if found is not None:
                made.append(found)
        self._repository.reload()
        write_catalogue(self._repository, points=self._marked.points, without_indexes=frozenset(affected))
        self._lock.check()
        for file in affected:
            self._backend.remove(f"indexes/{file}")
            del self._masks[file], self._packs[file]
        for file, mask, named in made:
            self._masks[file], self._packs[file] = mask, named
        self._repository.reload()
        self._lock.check()
        for pack in sorted(packs):
            self._remove_pack(pack)

    def _index_without(self, file: str, packs: set[bytes]) -> tuple[str, Mask, dict[bytes, int]] | None:
        """Write an index anew without the entries of those packs: its file, its mask and packs; None when empty."""
        table = self._marked.tables.read(file)
        gone = np.array([pack in packs for pack in table.packs], dtype=np.bool_)
        stays = ~gone[table.entries["pack"]]
        if not stays.any():
            return None
        sizes = dict(zip(table.packs, table.sizes.tolist(), strict=True))
        new = f"{os.urandom(16).hex()}.index"
        self._backend.write(f"indexes/{new}", pack_index(self._repository.id, sizes, table.packs, table.entries[stays]))
        left = {table.packs[number] for number in np.unique(table.entries["pack"][stays]).tolist()}
        return new, self._masks[file][stays], {pack: sizes[pack] for pack in left}

    def _remove_pack(self, pack: bytes) -> None:
        self._backend.remove(pack_name(pack))
        self._backend.remove(parity_name(pack))

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self._sink(Event(stage=Stage.PRUNE, message=text, warning=True))


def _rounds(packs: tuple[PackUse, ...]) -> Iterator[tuple[PackUse, ...]]:
    """Packs that are rewritten together: as many as fill about one new pack."""
    together: list[PackUse] = []
    for pack in packs:
        together.append(pack)
        if sum(found.kept for found in together) >= _ROUND:
            yield tuple(together)
            together = []
    if together:
        yield tuple(together)


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
