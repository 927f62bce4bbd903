"""The stream: chunks of a volume to their LBA range, and the read-back that proves it.

Neighbouring records of a pack are fetched together, decompressed and hashed into a page-aligned
buffer, and written; each of the three has threads of its own (``pipeline.py``). A chunk reaches the
target only if its digest matched.

Verifying reads every chunk back from the device once, after a flush: most of them behind the writing, where the
device serves both at once (``trail.py``), the rest in a pass of its own at the end. A sample of the chunks is always
left for the end: a disk that lies about its size puts later writes over earlier ones, after they were read back.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import msgspec

from core.errors import DamagedError, DeviceError
from core.events import Meter
from core.units import MIB
from images.model.extents import Extent
from images.model.manifest import Volume
from images.store.index import Location
from images.store.pages import Slot
from images.store.records import RECORD_HEADER_SIZE
from images.store.repository import Repository
from restore.buffers import Buffers
from restore.marks import Marks
from restore.pipeline import Pipeline
from restore.targets import Target
from restore.trail import Trail

#: Bytes fetched from a pack at once, and bytes of other records that are read over rather than skipped.
FETCH_LIMIT = 4 * MIB
FETCH_GAP = 64 * 1024
#: Plain bytes of one fetch. Over a network every request costs a round trip and our time, so that fewer are better.
BATCH = 4 * MIB
DISTANT_BATCH = 12 * MIB
#: Plain bytes of neighbours written with one request, and read back with one.
WRITTEN = 4 * MIB
READ_BACK = 2 * MIB
#: Plain bytes under way, whatever the number of cores.
UNDER_WAY = 96 * MIB
#: Requests under way at the repository, and at the target, beside what the cores do.
FETCHING = 4
WRITING = 4
READING = 3
#: One chunk in so many is read back at the end in any case.
SAMPLE = 64


class Placed(msgspec.Struct, frozen=True):
    """A volume and where its first byte goes on the target."""

    volume: Volume
    offset: int
    where: str
    sector_size: int


class StreamCount(msgspec.Struct, frozen=True):
    """Chunks and bytes of a stream: written, kept because they matched already, zeroed."""

    written: int = 0
    kept: int = 0
    zeroed: int = 0

    def __add__(self, other: "StreamCount") -> "StreamCount":
        return StreamCount(self.written + other.written, self.kept + other.kept, self.zeroed + other.zeroed)


class _Wanted(msgspec.Struct, frozen=True):
    number: int
    id: bytes
    place: Location


class _Fetch(msgspec.Struct, frozen=True):
    """Records that lie close together in one pack."""

    wanted: tuple[_Wanted, ...]

    @property
    def pack(self) -> bytes:
        return self.wanted[0].place.pack

    @property
    def start(self) -> int:
        return self.wanted[0].place.offset

    @property
    def length(self) -> int:
        last = self.wanted[-1].place
        return last.offset + RECORD_HEADER_SIZE + last.payload_length - self.start


class Streamer:
    """Streams volumes of one repository to one target.

    Args:
        resume: look at the target first and keep chunks that match already.
        threads: 0 means one for each core.
    """

    def __init__(self, repository: Repository, target: Target, *, resume: bool = False, threads: int = 0) -> None:
        self.repository = repository
        self.target = target
        self.resume = resume
        self._threads = threads or os.cpu_count() or 2
        self.chunk = repository.chunk_size
        self._batch = DISTANT_BATCH if repository.backend.distant else BATCH
        self._zero_ids: dict[int, bytes] = {}
        self._seen: dict[str, Marks] = {}

    def restore(self, placed: Placed, meter: Meter, back: Meter | None = None) -> StreamCount:
        """Write a volume.

        Args:
            back: read back meanwhile what was written, where that pays, and count it here.

        Raises:
            DamagedError: a chunk is missing or damaged; names recovery point, volume and LBA range.
                It was not written.
            DeviceError: the target failed, or does not give back what was written.
        """
        zeros: list[Extent] = []
        count = StreamCount()
        trail = self._trail(placed, back) if back is not None else None
        try:
            with Pipeline[_Moved]((FETCHING, self._threads, WRITING), self._buffers(self._batch)) as pipeline:
                fetches = self._fetches(placed, zeros)
                for done in pipeline.run(partial(_Transfer, self, placed, fetch, meter) for fetch in fetches):
                    count += done.count
                    if trail is not None:
                        trail.written([slot for slot in done.chunks if slot.number % SAMPLE])
        except BaseException:
            # What stopped the writing is told, not what the trail met meanwhile.
            if trail is not None:
                trail.abandon()
            raise
        if trail is not None:
            self._seen[placed.volume.id] = trail.end()
        for extent in zeros:
            self.target.zero(placed.offset + extent.start, extent.size)
            count += StreamCount(zeroed=extent.size)
        return count

    def verify(self, placed: Placed, meter: Meter) -> int:
        """Read a volume back and compare each chunk with its id. Returns the bytes compared.

        Raises:
            DeviceError: what is on the target is not what was written; names the LBA ranges.
        """
        seen = self._seen.pop(placed.volume.id, Marks(0))
        slots = self.repository.slots(placed.volume, placed.where)
        left = (slot for slot in slots if slot.number not in seen)
        last = self.chunks(placed) - 1
        before = len(seen) * self.chunk - (self.chunk - self.length(placed, last) if last in seen else 0)
        return before + self._compare(placed, left, meter, self._buffers(READ_BACK))

    def _trail(self, placed: Placed, meter: Meter) -> Trail:
        # Lent to every window in turn: new ones for each would stay until the garbage collector comes round.
        buffers = self._buffers(READ_BACK)

        def read_back(slots: Sequence[Slot]) -> Sequence[int]:
            self._compare(placed, slots, meter, buffers)
            return [slot.number for slot in slots]

        return Trail(self.target.flush, read_back, self.chunk, self.chunks(placed))

    def _compare(self, placed: Placed, slots: Iterable[Slot], meter: Meter, buffers: Buffers) -> int:
        compared = 0
        bad: list[str] = []
        with Pipeline[_Compared]((READING, self._threads), buffers) as pipeline:
            runs = self._runs(slots)
            for done in pipeline.run(partial(_Comparison, self, placed, run, meter) for run in runs):
                compared += done.size
                bad += done.wrong
        if bad:
            shown = "; ".join(bad[:5]) + (f"; and {len(bad) - 5} more" if len(bad) > 5 else "")
            raise DeviceError(
                f"{placed.where}: what {self.target.node} holds is not what was written: {shown}.",
                hint="The disk is failing, or something else wrote to it. Do not trust it.",
            )
        return compared

    def _buffers(self, batch: int) -> Buffers:
        """As many as there are threads, in bounded memory; each holds a batch, or one chunk if that is more."""
        size = max(batch, self.chunk)
        return Buffers(max(FETCHING, min(FETCHING + self._threads + WRITING, UNDER_WAY // size)), size)

    def _runs(self, slots: Iterable[Slot]) -> Iterator[tuple[Slot, ...]]:
        """Slots of neighbouring chunks, as many as one buffer holds."""
        run: list[Slot] = []
        for slot in slots:
            if run and (slot.number != run[-1].number + 1 or len(run) * self.chunk >= READ_BACK):
                yield tuple(run)
                run = []
            run.append(slot)
        if run:
            yield tuple(run)

    def _fetches(self, placed: Placed, zeros: list[Extent]) -> Iterator[_Fetch]:
        """Gather neighbours; runs of zero chunks, which a volume can have millions of, are left in ``zeros``."""
        group: list[_Wanted] = []
        for slot in self.repository.slots(placed.volume, placed.where):
            if slot.id is None:
                start = slot.number * self.chunk
                first = zeros.pop().start if zeros and zeros[-1].end == start else start
                zeros.append(Extent(first, start + self.length(placed, slot.number)))
                continue
            place = self.repository.locate(slot.id)
            if place is None:
                raise self.repository.missing(slot.id, self.name(placed, slot.number))
            wanted = _Wanted(slot.number, slot.id, place)
            if group and not _joins(group, wanted, max(1, self._batch // self.chunk)):
                yield _Fetch(tuple(group))
                group = []
            group.append(wanted)
        if group:
            yield _Fetch(tuple(group))

    def matches(self, placed: Placed, wanted: _Wanted) -> bool:
        """Whether the target holds the chunk already."""
        view = self.target.read_at(placed.offset + wanted.number * self.chunk, self.length(placed, wanted.number))
        return self.repository.identify(view) == wanted.id

    def zero_id(self, length: int) -> bytes:
        """The id of that many zero bytes."""
        if length not in self._zero_ids:
            self._zero_ids[length] = self.repository.identify(bytes(length))
        return self._zero_ids[length]

    def chunks(self, placed: Placed) -> int:
        """How many chunks a volume has."""
        return -(-placed.volume.size // self.chunk)

    def length(self, placed: Placed, number: int) -> int:
        """Bytes of a chunk: the last one of a volume may be shorter."""
        return min(self.chunk, placed.volume.size - number * self.chunk)

    def name(self, placed: Placed, number: int) -> str:
        """How errors name a chunk."""
        return f"{placed.where}, {self.lbas(placed, number)}"

    def lbas(self, placed: Placed, number: int) -> str:
        """The sectors of the source disk that a chunk holds."""
        return lba_range(placed.volume, number, self.chunk, placed.sector_size)


class _Moved(msgspec.Struct, frozen=True):
    """What one fetch has moved; ``chunks``: those that were written."""

    count: StreamCount = StreamCount()
    chunks: tuple[Slot, ...] = ()


class _Transfer:
    """One fetch on its way to the target."""

    def __init__(self, streamer: Streamer, placed: Placed, fetch: _Fetch, meter: Meter, buffer: memoryview) -> None:
        self._streamer = streamer
        self._placed = placed
        self._fetch = fetch
        self._meter = meter
        self._buffer = buffer
        self._left: tuple[_Wanted, ...] = ()
        self._data = memoryview(b"")
        self.stages = (self._read, self._decode, self._write)
        self.result = _Moved()

    def _read(self) -> None:
        """The records from their pack, without those whose chunks the target holds already."""
        streamer, fetch = self._streamer, self._fetch
        self._left = fetch.wanted
        if streamer.resume:
            self._left = tuple(wanted for wanted in fetch.wanted if not streamer.matches(self._placed, wanted))
        if self._left:
            where = streamer.name(self._placed, self._left[0].number)
            self._data = memoryview(streamer.repository.read_pack(fetch.pack, fetch.start, fetch.length, where))

    def _decode(self) -> None:
        """Each proven chunk to its place in the buffer: behind the one before."""
        streamer = self._streamer
        for place, wanted in enumerate(self._left):
            where = streamer.name(self._placed, wanted.number)
            record = self._data[wanted.place.offset - self._fetch.start :]
            plain = streamer.repository.decode(wanted.id, wanted.place, record, where)
            if len(plain) != streamer.length(self._placed, wanted.number):
                raise DamagedError(f"{where}: the chunk has {len(plain)} bytes.")
            self._buffer[place * streamer.chunk : place * streamer.chunk + len(plain)] = plain
        self._data = memoryview(b"")

    def _write(self) -> None:
        """Neighbours with one request, up to a limit."""
        streamer, written, first = self._streamer, 0, 0
        most = max(1, WRITTEN // streamer.chunk)
        for place, wanted in enumerate(self._left):
            last = place + 1 == len(self._left) or self._left[place + 1].number != wanted.number + 1
            if not last and place + 1 - first < most:
                continue
            start = first * streamer.chunk
            end = place * streamer.chunk + streamer.length(self._placed, wanted.number)
            offset = self._placed.offset + self._left[first].number * streamer.chunk
            streamer.target.write_from(offset, self._buffer[start:end])
            self._meter.advance(end - start)
            written += end - start
            first = place + 1
        total = sum(wanted.place.plain_length for wanted in self._fetch.wanted)
        if total > written:
            self._meter.advance(total - written)
        chunks = tuple(Slot(wanted.number, wanted.id) for wanted in self._left)
        self.result = _Moved(StreamCount(written=written, kept=total - written), chunks)


class _Compared(msgspec.Struct, frozen=True):
    """Bytes compared, and the LBA ranges that are not what they should be."""

    size: int = 0
    wrong: tuple[str, ...] = ()


class _Comparison:
    """A run of neighbouring chunks, read back."""

    def __init__(
        self, streamer: Streamer, placed: Placed, run: tuple[Slot, ...], meter: Meter, buffer: memoryview
    ) -> None:
        self._streamer = streamer
        self._placed = placed
        self._run = run
        self._meter = meter
        size = (len(run) - 1) * streamer.chunk + streamer.length(placed, run[-1].number)
        self._view = buffer[:size]
        self.stages = (self._read, self._compare)
        self.result = _Compared()

    def _read(self) -> None:
        offset = self._placed.offset + self._run[0].number * self._streamer.chunk
        self._streamer.target.read_into(offset, self._view)

    def _compare(self) -> None:
        streamer, wrong = self._streamer, list[str]()
        for place, slot in enumerate(self._run):
            plain = self._view[place * streamer.chunk : (place + 1) * streamer.chunk]
            if streamer.repository.identify(plain) != (slot.id or streamer.zero_id(len(plain))):
                wrong.append(streamer.lbas(self._placed, slot.number))
            if slot.id is not None:
                self._meter.advance(len(plain))
        self.result = _Compared(len(self._view), tuple(wrong))


def lba_range(volume: Volume, number: int, chunk_size: int, sector_size: int) -> str:
    """The sectors of the source disk that a chunk holds, inclusive as people say them."""
    start = volume.offset + number * chunk_size
    end = min(start + chunk_size, volume.offset + volume.size)
    return f"LBA {start // sector_size} to {end // sector_size - 1}"


def _joins(group: list[_Wanted], wanted: _Wanted, limit: int) -> bool:
    last, first = group[-1].place, group[0].place
    end = last.offset + RECORD_HEADER_SIZE + last.payload_length
    new_end = wanted.place.offset + RECORD_HEADER_SIZE + wanted.place.payload_length
    return (
        len(group) < limit
        and wanted.place.pack == last.pack
        and 0 <= wanted.place.offset - end <= FETCH_GAP
        and new_end - first.offset <= FETCH_LIMIT
    )
