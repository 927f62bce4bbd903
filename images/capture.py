"""Capture: disk → recovery point. Used blocks only, content-addressed, several cores.

Worker threads read, fill what is not allocated with zeros, hash and compress (the libraries let go
of the GIL); the calling thread writes packs in the order of the disk.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import zstandard

from core.events import Event, Meter, Sink, Stage, ticking
from core.units import MIB, covering_sectors, format_size
from images.filesystems.used import whole
from images.model.extents import Extent, total
from images.model.layout import Layout
from images.model.machine import Machine
from images.model.manifest import MANIFEST_VERSION, PLAIN_VERSION, CaptureMode, Manifest, Volume, VolumeRole
from images.model.stack import Luks
from images.room import too_little_room, with_what_is_missing
from images.salvage import Salvage
from images.sources import BlockSource, FileSource, Prefetching, UnreadableSectorsError, WindowSource
from images.store.backend import FullError
from images.store.pages import Slot, height_for, write_tree
from images.store.records import Codec, RecordKind
from images.store.repository import Repository
from images.store.signature import SigningKey
from images.store.writer import RepositoryWriter, writing
from images.survey import DiskSurvey, VolumeSurvey
from images.survey_stack import StackSurvey

#: zstandard's level. Measured (docs/performance.md): a fifth less work than level 3 for three hundredths more bytes.
LEVEL = 2
#: Plain bytes that may be under way in workers or wait for the writer: rides over a pause of the repository's disk.
UNDER_WAY = 32 * MIB
#: Bytes ahead of the workers that the source is asked to fetch, so that they find them in memory.
READ_AHEAD = 32 * MIB


class LostExtent(msgspec.Struct, frozen=True):
    """Bytes of a volume that could not be read."""

    volume: str
    extent: Extent


class CaptureResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a capture did. Bytes and seconds.

    Attributes:
        id: the recovery point.
        read: allocated bytes read from the source; stored: bytes added to the repository.
        new_records, warnings: as counted and said on the way.
        lost: what could not be read from the source.
    """

    id: str
    name: str
    read: int
    stored: int
    new_records: int
    seconds: float
    warnings: tuple[str, ...]
    lost: tuple[LostExtent, ...] = ()


class _Piece(msgspec.Struct, frozen=True):
    """The allocated parts of one chunk: extents relative to the volume."""

    number: int
    extents: tuple[Extent, ...]


class _Packed(msgspec.Struct, frozen=True):
    """A chunk ready to be stored; ``id`` None: all zero; ``payload`` None: stored already."""

    id: bytes | None
    length: int
    codec: Codec
    payload: bytes | None


def capture(
    repository: Repository,
    surveys: tuple[DiskSurvey, ...],
    *,
    name: str,
    origin: str,
    machine: Machine | None,
    tool: str,
    sink: Sink,
    threads: int = 0,
    sign: SigningKey | None = None,
    digest_list: Path | None = None,
    stack: StackSurvey | None = None,
) -> CaptureResult:
    """Take a recovery point of the surveyed disks.

    Args:
        stack: what was found by following the disks' containers; its volumes then take the place of the disks' own,
            but for their boot areas.
        threads: worker threads; 0 means one for each core.
        sign: signs the recovery point.
        digest_list: a file with what the last capture of these disks knew, replaced by what this one does.

    Raises:
        FullError: there is no room left; the message says how much is missing.
        DeviceError: reading the source or writing the repository failed; what is stored stays for the next try.
    """
    started = datetime.now(UTC)
    allocated: dict[str, int] = {}
    found = _with_readable_maps(surveyed_volumes(surveys, stack), allocated)
    warnings = _say_what_is_whole(surveys, found, stack.warnings if stack else (), sink)
    _say_little_room(repository, sum(allocated.values()), sink)
    if stack is not None:
        _say_what_lies_open(repository, stack, sink)
    meter = Meter(sink, Stage.CAPTURE, sum(allocated.values()))
    with writing(repository, sink=sink, digest_list=digest_list) as writer:
        with _Workers(writer, threads or os.cpu_count() or 2, sink) as workers, _missing_said(writer, workers, meter):
            with ticking(meter):
                volumes = tuple(
                    _capture_volume(volume, allocated[volume.id], writer, workers, meter) for volume in found
                )
            sink(Event(stage=Stage.COMMIT, message="Writing the index and the manifest"))
            containers = stack.containers if stack else ()
            manifest = Manifest(
                version=MANIFEST_VERSION if containers else PLAIN_VERSION,
                tool=tool,
                name=name,
                created=started.isoformat(timespec="microseconds"),
                origin=origin,
                machine=machine,
                layout=Layout(disks=tuple(survey.disk for survey in surveys), containers=containers),
                volumes=volumes,
            )
            identifier = writer.commit(manifest, sign)
        lost = _say_lost_records(writer, writer.save_digests(identifier), sink)
    return CaptureResult(
        id=identifier,
        name=name,
        read=meter.done,
        stored=writer.stored,
        new_records=writer.records,
        seconds=(datetime.now(UTC) - started).total_seconds(),
        warnings=(*warnings, *lost),
        lost=tuple(LostExtent(volume.id, extent) for volume in volumes for extent in volume.lost),
    )


def _say_little_room(repository: Repository, allocated: int, sink: Sink) -> None:
    text = too_little_room(repository, allocated)
    if text:
        # Said now, while something can be done about it; when it does fit after all, nobody needs to know later.
        sink(Event(stage=Stage.CAPTURE, message=text, warning=True))


@contextlib.contextmanager
def _missing_said(writer: RepositoryWriter, workers: "_Workers", meter: Meter) -> Iterator[None]:
    """When there is no room left, say how much is missing."""
    try:
        yield
    except FullError as error:
        left, read = meter.total - meter.done, meter.done - workers.idle
        raise with_what_is_missing(error, left=left, read=read, stored=writer.stored) from None


def _say_lost_records(writer: RepositoryWriter, problem: str, sink: Sink) -> tuple[str, ...]:
    """Tell the user what the repository had lost, and why there is no digest list."""
    warnings = [f"{pack}: what it held is stored again" for pack in writer.bad_packs]
    warnings += [f"{problem}."] if problem else []
    for warning in warnings:
        sink(Event(stage=Stage.CAPTURE, message=warning, warning=True))
    return (*((writer.digests.warning,) if writer.digests.warning else ()), *warnings)


def surveyed_volumes(surveys: tuple[DiskSurvey, ...], stack: StackSurvey | None) -> tuple[VolumeSurvey, ...]:
    """All volumes to capture, those of the disks in their order and what lies on containers behind them."""
    if stack is None:
        return tuple(volume for survey in surveys for volume in survey.volumes)
    heads = tuple(volume for survey in surveys for volume in survey.volumes if volume.role is VolumeRole.HEAD)
    return (*heads, *stack.volumes)


def _with_readable_maps(found: tuple[VolumeSurvey, ...], allocated: dict[str, int]) -> tuple[VolumeSurvey, ...]:
    """The volumes, of which those whose map turns out to have unreadable sectors are captured whole.

    Args:
        allocated: is given the allocated bytes of each volume, which this one reading of the maps adds up.
    """
    volumes: list[VolumeSurvey] = []
    for volume in found:
        try:
            allocated[volume.id] = total(volume.used.extents())
        except UnreadableSectorsError:
            reason = "its allocation map has sectors that cannot be read"
            used = whole(volume.used.filesystem, volume.source.size, reason)
            volume = msgspec.structs.replace(volume, used=used)
            allocated[volume.id] = volume.source.size
        volumes.append(volume)
    return tuple(volumes)


def _say_what_lies_open(repository: Repository, stack: StackSurvey, sink: Sink) -> None:
    """Whoever encrypted a disk wants to know when what was in it is stored without encryption."""
    opened = [container.device for container in stack.containers if isinstance(container, Luks) and container.size]
    if opened and repository.keys is None:
        text = (
            f"{', '.join(opened)} is encrypted, and this repository is not: what was read through LUKS is stored "
            "in clear text. liferaft init --encrypt makes a repository that is encrypted."
        )
        sink(Event(stage=Stage.CAPTURE, message=text))


def _say_what_is_whole(
    surveys: tuple[DiskSurvey, ...], found: tuple[VolumeSurvey, ...], known: tuple[str, ...], sink: Sink
) -> tuple[str, ...]:
    """Tell the user which volumes are captured whole, and what was ``known``; what is not as expected are warnings."""
    warnings = [
        f"{survey.disk.id}: {note}"
        for survey in surveys
        for note in (survey.disk.table.notes if survey.disk.table else ())
    ]
    warnings += known
    for volume in (one for one in found if one.role is not VolumeRole.HEAD and not one.used.trusted):
        text = f"{volume.id} is captured whole ({format_size(volume.source.size)}): {volume.used.reason}."
        if volume.used.expected:
            sink(Event(stage=Stage.CAPTURE, message=text))
        else:
            warnings.append(text)
    for warning in warnings:
        sink(Event(stage=Stage.CAPTURE, message=warning, warning=True))
    return tuple(warnings)


def _capture_volume(
    volume: VolumeSurvey,
    allocated: int,
    writer: RepositoryWriter,
    workers: "_Workers",
    meter: Meter,
) -> Volume:
    chunk_size = writer.repository.chunk_size
    chunks = -(-volume.source.size // chunk_size)

    def store_page(data: bytes) -> bytes:
        identifier = writer.repository.identify(data)
        packed = workers.compress(identifier, data)
        if packed.payload is not None:
            writer.put(RecordKind.PAGE, identifier, len(data), packed.codec, packed.payload)
        writer.use(identifier)
        return identifier

    salvage = Salvage(volume.source, _answering(volume.source), workers.tell_loss(volume))
    slots = workers.slots(salvage, split(volume.used.extents(), chunk_size), meter)
    root = write_tree(slots, chunks, store_page)
    return Volume(
        id=volume.id,
        disk=volume.disk,
        role=volume.role,
        partition=volume.partition,
        offset=volume.offset,
        size=volume.source.size,
        root=root.hex() if root else None,
        height=height_for(chunks),
        allocated=allocated,
        mode=CaptureMode.USED if volume.used.trusted else CaptureMode.WHOLE,
        reason=volume.used.reason,
        lost=salvage.lost(),
    )


def _answering(source: BlockSource) -> Callable[[], bool]:
    """Whether the disk behind a volume still answers."""
    while isinstance(source, WindowSource):
        source = source.inner
    return source.answers if isinstance(source, FileSource) else lambda: True


def split(extents: Iterable[Extent], chunk_size: int) -> Iterator[_Piece]:
    """Cut merged extents at chunk boundaries and gather them by chunk."""
    number, gathered = -1, list[Extent]()
    for extent in extents:
        start = extent.start
        while start < extent.end:
            chunk = start // chunk_size
            end = min(extent.end, (chunk + 1) * chunk_size)
            if chunk != number:
                if gathered:
                    yield _Piece(number, tuple(gathered))
                number, gathered = chunk, []
            gathered.append(Extent(start, end))
            start = end
    if gathered:
        yield _Piece(number, tuple(gathered))


def _announced(source: BlockSource, pieces: Iterator[_Piece], ahead: int) -> Iterator[_Piece]:
    """The same pieces; the source hears of each when it is ``ahead`` pieces away."""
    coming: deque[_Piece] = deque()
    for piece in pieces:
        if isinstance(source, Prefetching):
            source.prefetch(piece.extents[0].start, piece.extents[-1].end - piece.extents[0].start)
        coming.append(piece)
        if len(coming) > ahead:
            yield coming.popleft()
    yield from coming


class _Workers:
    """The threads that read, hash and compress.

    Attributes:
        idle: bytes that were read before the first chunk had to be stored.
    """

    def __init__(self, writer: RepositoryWriter, threads: int, sink: Sink) -> None:
        self._writer = writer
        self._sink = sink
        self._chunk_size = writer.repository.chunk_size
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="capture")
        self._local = threading.local()
        self._zero = bytes(self._chunk_size)
        self.idle = 0

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def tell_loss(self, volume: VolumeSurvey) -> Callable[[Extent], None]:
        """Says each range of a volume that is lost, as sectors of the disk."""
        sector = volume.source.sector_size

        def tell(extent: Extent) -> None:
            first, count = covering_sectors(volume.offset + extent.start, volume.offset + extent.end, sector)
            text = f"{volume.id}: LBA {first} to {first + count - 1} cannot be read and are kept as zeros"
            self._sink(Event(stage=Stage.CAPTURE, message=text, warning=True))

        return tell

    def slots(self, source: Salvage, pieces: Iterator[_Piece], meter: Meter) -> Iterator[Slot]:
        """Store the chunks of ``pieces`` and give their slots, in order."""
        waiting: deque[tuple[_Piece, Future[_Packed]]] = deque()
        limit = max(2 * self._threads, UNDER_WAY // self._chunk_size)
        for piece in _announced(source.source, pieces, max(1, READ_AHEAD // self._chunk_size)):
            waiting.append((piece, self._pool.submit(self._pack, source, piece)))
            if len(waiting) > limit:
                yield self._store(*waiting.popleft(), meter)
        while waiting:
            yield self._store(*waiting.popleft(), meter)

    def compress(self, identifier: bytes, data: bytes | bytearray) -> _Packed:
        """The payload of content that is not stored yet."""
        if self._writer.knows(identifier):
            return _Packed(identifier, len(data), Codec.STORED, None)
        payload = self._compressor().compress(data)
        if len(payload) >= len(data):
            return _Packed(identifier, len(data), Codec.STORED, bytes(data))
        return _Packed(identifier, len(data), Codec.ZSTANDARD, payload)

    def _store(self, piece: _Piece, future: Future[_Packed], meter: Meter) -> Slot:
        packed = future.result()
        if packed.id is not None:
            if packed.payload is not None:
                if not self._writer.records:
                    self.idle = meter.done
                self._writer.put(RecordKind.CHUNK, packed.id, packed.length, packed.codec, packed.payload)
            self._writer.use(packed.id)
        meter.advance(total(piece.extents))
        return Slot(piece.number, packed.id)

    def _pack(self, source: Salvage, piece: _Piece) -> _Packed:
        start = piece.number * self._chunk_size
        length = min(self._chunk_size, source.source.size - start)
        data: bytes | bytearray
        if piece.extents[0].size == length:
            data = source.read_at(start, length)
        else:
            data = bytearray(length)
            for extent in piece.extents:
                data[extent.start - start : extent.end - start] = source.read_at(extent.start, extent.size)
        if data == (self._zero if length == self._chunk_size else bytes(length)):
            return _Packed(None, length, Codec.STORED, None)
        return self.compress(self._writer.repository.identify(data), data)

    def _compressor(self) -> zstandard.ZstdCompressor:
        found = getattr(self._local, "compressor", None)
        if found is None:
            found = self._local.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
        assert isinstance(found, zstandard.ZstdCompressor)
        return found
