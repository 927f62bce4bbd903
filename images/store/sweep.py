"""The sweep of prune: deletes packs, rewrites packs, in an order in which nothing that is needed is ever missing.

Copy what a few packs still hold, write indexes, the catalogue, remove the old indexes, remove the packs. A power cut
anywhere leaves every recovery point restorable, and each round needs room for about one pack. What to delete is decided
in ``prune.py``.
"""

import os
from collections.abc import Iterator

import numpy as np

from core.events import Event, Meter, Sink, Stage, ticking
from core.units import GIB
from images.store.catalogue import PointSummary
from images.store.index import ENTRIES_WRITTEN
from images.store.index_table import Entries, IndexTable, Mask, sort_order
from images.store.index_tables import IndexTables
from images.store.locks import Lock
from images.store.parity import parity_name
from images.store.proof import Promise, Proven, promise_of, prove_all
from images.store.records import RecordHeader, unseal
from images.store.repair import pack_index
from images.store.repository import Repository, pack_name
from images.store.usage import PackUse
from images.store.writer import RepositoryWriter, writable, write_catalogue

#: Bytes copied in one round, which is the room a round needs.
ROUND = GIB
#: Indexes with fewer entries are small, and merged when there are this many of them.
_SMALL = ENTRIES_WRITTEN // 8
_MANY = 8


class _Copier(RepositoryWriter):
    """Writes records that are stored already once more, into packs of its own."""

    def knows(self, identifier: bytes) -> bool:
        return self._index.find(identifier) is not None


class Sweep:
    """Deletes and rewrites. Every step leaves a whole repository."""

    def __init__(
        self,
        repository: Repository,
        tables: IndexTables,
        kept: tuple[Mask, ...],
        points: tuple[PointSummary, ...],
        lock: Lock,
        sink: Sink,
    ) -> None:
        """Take what was marked: what stays of each index, and the recovery points there are."""
        self._repository = repository
        self._backend = writable(repository.backend)
        self._tables = tables
        self._points = points
        self._lock = lock
        self._sink = sink
        # Of every index as it is now: what stays, and the packs it names.
        self._masks = dict(zip(tables.files, kept, strict=True))
        self._packs = {file: set(packs) for file, packs in zip(tables.files, tables.packs, strict=True)}
        self.rewritten = 0
        self.copied = 0
        self.warnings: list[str] = []

    def remove_strays(self, names: tuple[str, ...], packs: tuple[bytes, ...]) -> None:
        """What belongs to nothing: files, and packs that no index names."""
        self._lock.check()
        for name in names:
            self._backend.remove(name)
        for pack in packs:
            self._remove_pack(pack)

    def delete_unused(self, packs: tuple[PackUse, ...]) -> None:
        """Packs that hold nothing needed."""
        self._drop({pack.id for pack in packs})

    def rewrite(self, packs: tuple[PackUse, ...]) -> None:
        """Packs that hold much that is not needed, a few at a time."""
        meter = Meter(self._sink, Stage.PRUNE, sum(pack.kept for pack in packs))
        with ticking(meter):
            for together in _rounds(packs):
                self._drop(self._copy(together, meter))
                self.rewritten += len(together)

    def merge_indexes(self) -> None:
        """Many small indexes, as daily captures leave them, become few: opening a repository reads them all."""
        small = [file for file, mask in self._masks.items() if len(mask) < _SMALL]
        if len(small) < _MANY:
            return
        together: list[str] = []
        for file in (*small, ""):
            count = sum(len(self._masks[found]) for found in together)
            if together and (not file or count + len(self._masks[file]) > ENTRIES_WRITTEN):
                self._merge(together)
                together = []
            together.append(file)

    def _merge(self, files: list[str]) -> None:
        tables = [self._tables.read(file) for file in files]
        if _several_kept(tables, [self._masks[file] for file in files]):
            # One of these copies has rotted. An index has one place for a record, and it might be the wrong one.
            return
        sizes = {pack: size for table in tables for pack, size in zip(table.packs, table.sizes.tolist(), strict=True)}
        entries = combine(tables, [self._masks[file] for file in files], tuple(sizes))
        index = pack_index(self._repository.id, sizes, tuple(sizes), entries)
        self._backend.write(f"indexes/{os.urandom(16).hex()}.index", index)
        self._replace(files)

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
                    yield from self._kept_in(self._tables.read(file), use.id)

    def _kept_in(self, table: IndexTable, pack: bytes) -> Iterator[Promise]:
        rows = table.of_pack(table.packs.index(pack))
        for row in rows[self._masks[table.file][rows]].tolist():
            yield promise_of(table, row)

    def _drop(self, packs: set[bytes]) -> None:
        """Take packs out of every index, then out of the folder. What must stay of them lies elsewhere by now."""
        if not packs:
            return
        affected = [file for file, named in self._packs.items() if not packs.isdisjoint(named)]
        made: list[tuple[str, Mask, set[bytes]]] = []
        for file in affected:
            found = self._index_without(file, packs)
            if found is not None:
                made.append(found)
        self._replace(affected)
        for file, mask, named in made:
            self._masks[file], self._packs[file] = mask, named
        self._lock.check()
        for pack in sorted(packs):
            self._remove_pack(pack)

    def _replace(self, files: list[str]) -> None:
        """Readers hear of the new indexes, then the old ones go."""
        self._repository.reload()
        write_catalogue(self._repository, points=self._points, without_indexes=frozenset(files))
        self._lock.check()
        for file in files:
            self._backend.remove(f"indexes/{file}")
            del self._masks[file], self._packs[file]
        self._repository.reload()

    def _index_without(self, file: str, packs: set[bytes]) -> tuple[str, Mask, set[bytes]] | None:
        """Write an index anew without the entries of those packs: its file, its mask and packs; None when empty."""
        table = self._tables.read(file)
        gone = np.array([pack in packs for pack in table.packs], dtype=np.bool_)
        stays = ~gone[table.entries["pack"]]
        if not stays.any():
            return None
        sizes = dict(zip(table.packs, table.sizes.tolist(), strict=True))
        new = f"{os.urandom(16).hex()}.index"
        self._backend.write(f"indexes/{new}", pack_index(self._repository.id, sizes, table.packs, table.entries[stays]))
        left = {table.packs[number] for number in np.unique(table.entries["pack"][stays]).tolist()}
        return new, self._masks[file][stays], left

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
        if sum(found.kept for found in together) >= ROUND:
            yield tuple(together)
            together = []
    if together:
        yield tuple(together)


def room_needed(packs: tuple[PackUse, ...]) -> int:
    """Bytes that rewriting these packs needs while the old ones are still there, but for their indexes."""
    return max((sum(pack.kept for pack in together) for together in _rounds(packs)), default=0)


def _several_kept(tables: list[IndexTable], masks: list[Mask]) -> bool:
    """Whether a record must stay in more than one place."""
    kept = np.concatenate([table.entries["id"][mask] for table, mask in zip(tables, masks, strict=True)])
    kept = kept[sort_order(kept)]
    return bool((kept[1:] == kept[:-1]).any())


def combine(tables: list[IndexTable], masks: list[Mask], packs: tuple[bytes, ...]) -> Entries:
    """The entries of several indexes as those of one: each id once, pack numbers counting in ``packs``.

    Args:
        masks: of each index, which entries were chosen to stay: of two for one record these go before others.
    """
    place = {pack: number for number, pack in enumerate(packs)}
    parts: list[Entries] = []
    for table in tables:
        part = table.entries.copy()
        part["pack"] = np.array([place[pack] for pack in table.packs], dtype=np.uint32)[part["pack"]]
        parts.append(part)
    entries: Entries = np.concatenate(parts)
    entries = entries[np.argsort(~np.concatenate(masks), kind="stable")]
    entries = entries[sort_order(entries["id"])]
    fresh = np.ones(len(entries), dtype=np.bool_)
    fresh[1:] = entries["id"][1:] != entries["id"][:-1]
    return entries[fresh]
