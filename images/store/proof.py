"""Proving the records of packs: read in large pieces, unsealed, decompressed, hashed, by several threads.

What it reads is what indexes promise; finding records without an index is in ``scan.py``.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from core.errors import DamagedError, DeviceError, UnreachableError
from core.units import MIB
from images.store.index import Location
from images.store.index_table import IndexTable
from images.store.records import RECORD_HEADER_SIZE, RecordHeader, decode_record
from images.store.repository import Repository, pack_name

#: Bytes read together; a record that is larger is read alone.
_TOGETHER = 4 * MIB
#: Bytes between two records that are read along rather than asked for separately.
_GAP = 64 * 1024


class Promise(msgspec.Struct, frozen=True):
    """A record that must lie in a pack; ``row`` is for whoever asks."""

    row: int
    id: bytes
    place: Location

    @property
    def end(self) -> int:
        """Offset behind it in the pack."""
        return self.place.offset + RECORD_HEADER_SIZE + self.place.payload_length


def promise_of(table: IndexTable, row: int) -> Promise:
    """What an index says in one of its rows."""
    entry = table.entries[row]
    pack = table.packs[int(entry["pack"])]
    place = Location(pack, int(entry["offset"]), int(entry["payload"]), int(entry["plain"]))
    return Promise(row, bytes(entry["id"]), place)


class Proven(msgspec.Struct, frozen=True):
    """What became of a promise.

    Attributes:
        error: why it was not kept; None when the record is sound.
        header, payload: of a sound record, when they were asked for; the payload as it was compressed, not sealed.
        id: 32 bytes, under which whoever asked wants to store it.
    """

    promise: Promise
    error: DamagedError | DeviceError | None = None
    header: RecordHeader | None = None
    payload: bytes = b""
    id: bytes = b""


#: Makes a result of a sound record: its header, its bytes with the header, its plain content.
Keep = Callable[[Promise, RecordHeader, memoryview, bytes], Proven]


def just_proven(promise: Promise, header: RecordHeader, data: memoryview, plain: bytes) -> Proven:
    """Nothing but the fact."""
    return Proven(promise)


def prove_all(
    repository: Repository, promises: Iterator[Promise], keep: Keep = just_proven, *, threads: int = 0
) -> Iterator[Proven]:
    """Prove records, in the order of ``promises``, which is that of the packs.

    Memory: at most ``threads + 2`` pieces of 4 MiB, or of one record, and as many plain chunks.

    Raises:
        UnreachableError: the server does not answer. Everything else is in the results.
    """
    workers = threads or os.cpu_count() or 2
    waiting: deque[Future[list[Proven]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="prove") as pool:
        try:
            for piece in _pieces(promises):
                waiting.append(pool.submit(_prove_piece, repository, piece, keep))
                if len(waiting) > workers + 1:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _pieces(promises: Iterator[Promise]) -> Iterator[list[Promise]]:
    piece: list[Promise] = []
    for promise in promises:
        if piece and (
            promise.place.pack != piece[0].place.pack
            or promise.end - piece[0].place.offset > _TOGETHER
            or not 0 <= promise.place.offset - piece[-1].end <= _GAP
        ):
            yield piece
            piece = []
        piece.append(promise)
    if piece:
        yield piece


def _prove_piece(repository: Repository, piece: list[Promise], keep: Keep) -> list[Proven]:
    start = piece[0].place.offset
    try:
        data = memoryview(repository.backend.read_range(pack_name(piece[0].place.pack), start, piece[-1].end - start))
    except UnreachableError:
        raise
    except (DamagedError, DeviceError) as error:
        if len(piece) == 1:
            return [Proven(piece[0], _addressed(repository, piece[0], error))]
        # A sector that cannot be read takes only the records that lie on it.
        return [found for promise in piece for found in _prove_piece(repository, [promise], keep)]
    return [
        _prove(repository, promise, data[promise.place.offset - start : promise.end - start], keep) for promise in piece
    ]


def _prove(repository: Repository, promise: Promise, data: memoryview, keep: Keep) -> Proven:
    where = f"{repository.backend.location}/{pack_name(promise.place.pack)}, offset {promise.place.offset}"
    try:
        header = decode_record(data, where)
        place = promise.place
        for field, found, expected in (
            ("id", header.id.hex(), promise.id.hex()),
            ("payload length", header.payload_length, place.payload_length),
            ("plain length", header.plain_length, place.plain_length),
        ):
            if found != expected:
                raise DamagedError(f"{where}: the record's {field} is {found}, the index says {expected}.")
        plain = repository.prove(header, data, where)
    except DamagedError as error:
        return Proven(promise, error)
    return keep(promise, header, data, plain)


def _addressed(repository: Repository, promise: Promise, error: DamagedError | DeviceError) -> DamagedError:
    where = f"{repository.backend.location}/{pack_name(promise.place.pack)}, offset {promise.place.offset}"
    return DamagedError(f"{where}: {error.message}")
