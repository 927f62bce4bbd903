"""The writing side of a repository: packs, then indexes, then the manifest, then the catalogue.

Each is complete and synced before the next begins (docs/image-format.md §9), so that a crash or a
power cut at any write leaves every listed recovery point restorable.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from core.documents import encode
from core.errors import DamagedError, LiferaftError, RefusedError
from core.events import Sink, ignore
from core.units import KIB
from images.model.manifest import Manifest
from images.store.backend import FullError, Measured, NewFile, Reader, Shrinkable, Writer, cannot_write
from images.store.catalogue import CATALOGUE, INDEX_NAME, Catalogue, PointSummary
from images.store.digest_list import Digests, digests_of
from images.store.index import ENTRIES_WRITTEN, IndexBuilder, Location
from images.store.locks import Lock, LockKind, locked
from images.store.parity_head import plan_geometry
from images.store.parity_queue import ParityQueue
from images.store.records import (
    PACK_HEADER_SIZE,
    PACK_SIZE_LIMIT,
    Codec,
    RecordKind,
    chunk_id,
    encode_pack_header,
    encode_record,
)
from images.store.repository import Repository, pack_name
from images.store.sealed import seal_document, seal_file
from images.store.signature import SigningKey

#: Bytes that a filesystem may need on top of a new file's own: blocks that are not full, a folder's entry.
_SPARE = 128 * KIB


def writable(backend: Reader) -> Writer:
    """The backend as one that can be written.

    Raises:
        RefusedError: it is read-only (HTTP).
    """
    if isinstance(backend, Writer):
        return backend
    raise RefusedError(
        f"{backend.location} is read-only: what a web server hands out can be restored from, not changed.",
        hint="Name a folder, s3://…, or the server's folder over NFS or SMB; or run it on the server.",
    )


class RepositoryWriter:
    """Adds records and one recovery point to a repository. Used by one thread.

    Attributes:
        stored: bytes added to packs. records: how many.
        digests: the digest lists that are read and written, if any.
        bad_packs: a sentence for each pack that an index names and that is missing or truncated; known once the
            indexes are read, with a digest list later or never.
    """

    def __init__(self, repository: Repository, lock: Lock | None = None, digests: Digests | None = None) -> None:
        """The lock that the writer works under, if it is to stop when that is lost.

        Args:
            digests: what an earlier capture knew of the same source, and who writes that down this time.
        """
        self.repository = repository
        self._lock = lock
        self._backend = writable(repository.backend)
        self.digests = digests or Digests()
        self._indexes_count = False
        self._counting = threading.Lock()
        self.bad_packs: tuple[str, ...] = ()
        if self.digests.known is None:
            self._count_on_indexes()
        self._index = IndexBuilder()
        self._pack = contextlib.ExitStack()
        self._stream: NewFile | None = None
        self._pack_id = b""
        self._position = 0
        self._parity = ParityQueue(self._backend, repository.id, repository.document.parity)
        self.stored = 0
        self.records = 0

    def knows(self, identifier: bytes) -> bool:
        """Whether a record with that id is stored already, in a pack that is there. Safe to ask from any thread."""
        return self.find(identifier) is not None

    def find(self, identifier: bytes) -> Location | None:
        """Where that record is; None when it is not stored yet. Safe to ask from any thread."""
        place = self._index.find(identifier)
        if place is None and self.digests.known is not None:
            place = self.digests.known.find(identifier)
        if place is None:
            self._count_on_indexes()
            place = self.repository.locate(identifier)
        return place

    def use(self, identifier: bytes) -> None:
        """A stored record belongs to the recovery point: its digest list is to have it."""
        if self.digests.recorder is not None:
            place = self.find(identifier)
            assert place is not None, "only records that are stored can be used"
            self.digests.recorder.add(identifier, place)

    def save_digests(self, point: str) -> str:
        """Complete the digest list of a recovery point that is committed. Returns why there is none, or nothing."""
        known, recorder = self.digests.known, self.digests.recorder
        if recorder is None:
            return ""
        if known is not None and not self._indexes_count:
            indexes = known.indexes
        else:
            held = self.repository.indexes()
            named = zip(held.files(), held, strict=True)
            indexes = {file: index.size for file, index in named if not recorder.packs.isdisjoint(index.packs)}
        recorder.finish(point, indexes)
        return recorder.problem

    def put(self, kind: RecordKind, identifier: bytes, plain_length: int, codec: Codec, payload: bytes) -> None:
        """Store a record unless it is stored already."""
        if self.knows(identifier):
            return
        key = self.repository.record_key
        record, payload = encode_record(kind, identifier, plain_length, codec, payload, key)
        size = len(record) + len(payload)
        if self._stream is None or self._position + size > PACK_SIZE_LIMIT or len(self._index) >= ENTRIES_WRITTEN:
            self._next_pack()
        # One write: a record is in the pack whole or not at all.
        self._append(record + payload)
        place = Location(self._pack_id, self._position, len(payload), plain_length)
        self._position += size
        self._index.add(identifier, place)
        self.stored += size
        self.records += 1

    def commit(self, manifest: Manifest, sign: SigningKey | None = None) -> str:
        """Finish packs and indexes, then write the signature, the manifest and the catalogue.

        Returns:
            the id of the recovery point.
        """
        data = encode(manifest)
        if self.repository.keys is not None:
            data = seal_file(self.repository.keys, "manifest", self.repository.id, data)
        identifier = chunk_id(data).hex()
        return self.commit_file(data, sign.sign(identifier) if sign is not None else None)

    def commit_file(self, data: bytes, signature: bytes | None) -> str:
        """The same, with the manifest's file as it is to lie there.

        Raises:
            LockLostError: somebody took us for dead; what we count on may have been pruned.
        """
        self._want_room()
        self._close_pack()
        self._write_index()
        identifier = chunk_id(data).hex()
        if self._lock is not None:
            self._lock.check()
        if signature is not None:
            self._backend.write(f"manifests/{identifier}.sig", signature)
        self._backend.write(f"manifests/{identifier}.json", data)
        write_catalogue(self.repository)
        return identifier

    def abandon(self) -> None:
        """Drop the open pack; what finished indexes name stays, the rest is garbage that does no harm."""
        self._drop_pack()
        with contextlib.suppress(LiferaftError):
            self._parity.settle()

    def checkpoint(self, *, full: bool = False) -> None:
        """Make what was stored so far durable and known to a later capture, without a recovery point.

        Args:
            full: there is no room left; the last records give theirs to the index, without which nothing counts.
        """
        if full:
            self._make_room()
            if self.repository.document.parity is not None:
                # The parity of the pack before may still be under way, and takes of that room what it needs.
                with contextlib.suppress(FullError):
                    self._parity.settle()
                self._make_room()
        try:
            self._close_pack()
        finally:
            # Also when the open pack is lost: those before it are there.
            try:
                self._write_index()
            except FullError:
                # It was the parity that found no room. It is asked for only once; check --repair makes it later.
                self._write_index()

    def _want_room(self) -> None:
        """Stop before a pack is closed for which there would be no index.

        Raises:
            FullError: the room that is left is too little.
        """
        free = self._backend.free() if isinstance(self._backend, Measured) else None
        if free is not None and free < self._room():
            raise cannot_write(self._backend.location, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _room(self) -> int:
        """Bytes that closing the open pack needs: its index and its parity."""
        parity = self.repository.document.parity
        size = self._index.size() + _SPARE
        return size + plan_geometry(self._position, parity).file_size if parity and self._stream is not None else size

    def _make_room(self) -> None:
        """Give up the last records of the open pack, as many as the rest needs to count."""
        if self._stream is None or not isinstance(self._stream, Shrinkable):
            return
        until = self._position - self._room()
        kept = max((at for at in self._index.starts(self._pack_id) if at <= until), default=PACK_HEADER_SIZE)
        if kept == PACK_HEADER_SIZE:
            self._drop_pack()
            return
        self._stream.cut(kept)
        self._index.cut_pack(self._pack_id, kept)
        self._position = kept

    def _count_on_indexes(self) -> None:
        """Read the indexes, the first time: what one promises counts only if the pack is really there, whole."""
        with self._counting:
            if self._indexes_count:
                return
            self.bad_packs = tuple(self.repository.check_packs().values())
            self._tell_recorder()
            known = self.digests.known
            if known is not None and not known.packs.keys() <= self.repository.indexes().pack_sizes().keys():
                problems = "; ".join(self.repository.indexes().problems)
                raise DamagedError(
                    f"{self._backend.location}: no sound index names packs that the last capture used ({problems}).",
                    hint="Run liferaft check --repair, then capture again.",
                )
            self._indexes_count = True

    def _tell_recorder(self) -> None:
        if self.digests.recorder is not None:
            self.digests.recorder.know(self.repository.indexes().pack_sizes())

    def _next_pack(self) -> None:
        self._want_room()
        self._close_pack()
        if len(self._index) >= ENTRIES_WRITTEN:
            self._write_index()
        self._pack_id = os.urandom(16)
        self._pack = contextlib.ExitStack()
        self._stream = self._pack.enter_context(self._backend.create(pack_name(self._pack_id)))
        try:
            self._append(encode_pack_header(self.repository.id, self._pack_id))
        except BaseException:
            self._drop_pack()
            raise
        self._position = PACK_HEADER_SIZE

    def _append(self, data: bytes) -> None:
        assert self._stream is not None
        try:
            self._stream.write(data)
        except OSError as error:
            raise cannot_write(f"{self._backend.location}/{pack_name(self._pack_id)}", error) from None

    def _close_pack(self) -> None:
        if self._stream is None:
            return
        try:
            # An interruption may leave a record that has no entry yet: the size is what the file says.
            size = self._stream.tell()
            self._pack.close()
        except BaseException:
            self._drop_pack()
            raise
        self._stream = None
        self._index.close_pack(self._pack_id, size)
        if self.digests.recorder is not None:
            self.digests.recorder.know({self._pack_id: size})
        self._parity.add(self._pack_id)

    def _drop_pack(self) -> None:
        with contextlib.suppress(_AbandonedError):
            self._pack.__exit__(_AbandonedError, _AbandonedError(), None)
        self._stream = None
        self._index.drop_pack(self._pack_id)

    def _write_index(self) -> None:
        self._parity.settle()
        if len(self._index):
            self._backend.write(f"indexes/{os.urandom(16).hex()}.index", self._index.encode(self.repository.id))
            self.repository.reload()
            self.repository.indexes()
            self._tell_recorder()
            self._index = IndexBuilder()


class _AbandonedError(Exception):
    """Ends the open pack's block without giving the file its name."""


@contextlib.contextmanager
def writing(
    repository: Repository, operation: str = "capture", sink: Sink = ignore, digest_list: Path | None = None
) -> Iterator[RepositoryWriter]:
    """A writer under a shared lock that leaves no half-written file when the block fails.

    On failure what is stored so far is kept and indexed where the folder still takes it, so that the
    same capture run again does not store it twice.

    Args:
        digest_list: a file with what the last capture of the same source knew, to be replaced by what this one does.

    Raises:
        RefusedError: somebody prunes, or works exclusively in another way.
    """
    with (
        locked(writable(repository.backend), LockKind.SHARED, operation, sink=sink) as lock,
        contextlib.ExitStack() as stack,
    ):
        # What was read before the lock was held may be gone.
        repository.reload()
        digests = stack.enter_context(digests_of(digest_list, repository, sink))
        writer = RepositoryWriter(repository, lock, digests)
        try:
            yield writer
        except BaseException as error:
            try:
                lock.check()
                writer.checkpoint(full=isinstance(error, FullError))
                # Or else check would find a catalogue that does not know the index of this stop.
                write_catalogue(repository)
            except (OSError, ValueError, LiferaftError):
                writer.abandon()
            raise


def write_catalogue(
    repository: Repository,
    *,
    points: tuple[PointSummary, ...] | None = None,
    without_points: frozenset[str] = frozenset(),
    without_indexes: frozenset[str] = frozenset(),
) -> None:
    """Make the catalogue anew from the folders, until the folders stand still.

    Args:
        points: the recovery points, when whoever calls knows them and nobody can add one.
        without_points, without_indexes: ids and file names of what is about to be removed: readers hear of it first.
    """
    backend = writable(repository.backend)
    while True:
        before = _listed(backend)
        listed = repository.points() if points is None else points
        indexes = tuple(name for name in before[1] if INDEX_NAME.fullmatch(name) and name not in without_indexes)
        listed = tuple(point for point in listed if point.id not in without_points)
        backend.write(CATALOGUE, encode(_catalogue(repository, indexes, listed)))
        if _listed(backend) == before:
            return


def _listed(backend: Writer) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What the catalogue repeats. A key slot that it does not name opens nothing over HTTP."""
    return backend.list("manifests"), backend.list("indexes"), backend.list("keys")


def _catalogue(repository: Repository, indexes: tuple[str, ...], points: tuple[PointSummary, ...]) -> Catalogue:
    if repository.keys is None:
        return Catalogue(indexes=indexes, points=points)
    sealed = seal_document(repository.keys, "points", repository.id, encode(points))
    return Catalogue(indexes=indexes, keys=repository.backend.list("keys"), sealed=sealed)
