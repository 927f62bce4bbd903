"""The stream: chunks of a volume to their LBA range, and the read-back that proves it.

Neighbouring records of a pack are fetched together, threads decompress and hash, and a chunk
reaches the target only if its digest matched. Verifying reads what was written from the device.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

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
from restore.targets import Target

T = TypeVar("T")

#: Bytes fetched from a pack at once, and bytes of other records that are read over rather than skipped.
FETCH_LIMIT = 4 * MIB
FETCH_GAP = 64 * 1024


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
        self._repository = repository
        self._target = target
        self._resume = resume
        self._threads = threads or os.cpu_count() or 2
        self._chunk = repository.chunk_size

    def restore(self, placed: Placed, meter: Meter) -> StreamCount:
        """Write a volume.

        Raises:
            DamagedError: a chunk is missing or damaged; names recovery point, volume and LBA range.
                It was not written.
            DeviceError: the target failed.
        """
        zeros: list[int] = []

        def jobs() -> Iterator[Callable[[], StreamCount]]:
            for fetch in self._fetches(placed, zeros):
                yield partial(self._write, placed, fetch, meter)
            for extent in self._extents(placed.volume, zeros):
                yield partial(self._zero, placed, extent)

        return sum(self._run(jobs()), StreamCount())

    def verify(self, placed: Placed, meter: Meter) -> int:
        """Read a volume back and compare each chunk with its id. Returns the bytes compared.

        Raises:
            DeviceError: what is on the target is not what was written; names the LBA ranges.
        """
        slots = self._repository.slots(placed.volume, placed.where)
        jobs = (partial(self._compare, placed, slot, meter) for slot in slots)
        compared = 0
        bad: list[str] = []
        for size, wrong in self._run(jobs):
            compared += size
            if wrong:
                bad.append(wrong)
        if bad:
            shown = "; ".join(bad[:5]) + (f"; and {len(bad) - 5} more" if len(bad) > 5 else "")
            raise DeviceError(
                f"{placed.where}: what {self._target.node} holds is not what was written: {shown}.",
                hint="The disk is failing, or something else wrote to it. Do not trust it.",
            )
        return compared

    def _run(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        """Results in order, with a bounded number of jobs under way; the first failure ends it."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="stream") as pool:
            waiting: deque[Future[T]] = deque()
            try:
                for job in jobs:
                    waiting.append(pool.submit(job))
                    if len(waiting) > 2 * self._threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _fetches(self, placed: Placed, zeros: list[int]) -> Iterator[_Fetch]:
        """Gather neighbours; chunk numbers of zero chunks are left in ``zeros``."""
        group: list[_Wanted] = []
        for slot in self._repository.slots(placed.volume, placed.where):
            if slot.id is None:
                zeros.append(slot.number)
                continue
            place = self._repository.locate(slot.id)
            if place is None:
                raise self._repository.missing(slot.id, self._name(placed, slot.number))
            wanted = _Wanted(slot.number, slot.id, place)
            if group and not _joins(group, wanted):
                yield _Fetch(tuple(group))
                group = []
            group.append(wanted)
        if group:
            yield _Fetch(tuple(group))

    def _write(self, placed: Placed, fetch: _Fetch, meter: Meter) -> StreamCount:
        left = [wanted for wanted in fetch.wanted if not (self._resume and self._matches(placed, wanted))]
        kept = sum(wanted.place.plain_length for wanted in fetch.wanted) - sum(w.place.plain_length for w in left)
        if left:
            where = self._name(placed, left[0].number)
            data = memoryview(self._repository.read_pack(fetch.pack, fetch.start, fetch.length, where))
            for wanted in left:
                record = data[wanted.place.offset - fetch.start :]
                where = self._name(placed, wanted.number)
                plain = self._repository.decode(wanted.id, wanted.place, record, where)
                if len(plain) != self._length(placed.volume, wanted.number):
                    raise DamagedError(f"{where}: the chunk has {len(plain)} bytes.")
                self._target.write_at(placed.offset + wanted.number * self._chunk, plain)
                meter.advance(len(plain))
        if kept:
            meter.advance(kept)
        return StreamCount(written=sum(wanted.place.plain_length for wanted in left), kept=kept)

    def _zero(self, placed: Placed, extent: Extent) -> StreamCount:
        self._target.zero(placed.offset + extent.start, extent.size)
        return StreamCount(zeroed=extent.size)

    def _matches(self, placed: Placed, wanted: _Wanted) -> bool:
        length = self._length(placed.volume, wanted.number)
        return (
            self._repository.identify(self._target.read_at(placed.offset + wanted.number * self._chunk, length))
            == wanted.id
        )

    def _compare(self, placed: Placed, slot: Slot, meter: Meter) -> tuple[int, str]:
        length = self._length(placed.volume, slot.number)
        view = self._target.read_at(placed.offset + slot.number * self._chunk, length)
        same = self._repository.identify(view) == (slot.id or self._repository.identify(bytes(length)))
        if slot.id is not None:
            meter.advance(length)
        return length, "" if same else self._lbas(placed, slot.number)

    def _length(self, volume: Volume, number: int) -> int:
        return min(self._chunk, volume.size - number * self._chunk)

    def _extents(self, volume: Volume, numbers: list[int]) -> Iterator[Extent]:
        """Runs of chunk numbers as extents of the volume."""
        start = 0
        for at, number in enumerate(numbers):
            if at + 1 == len(numbers) or numbers[at + 1] != number + 1:
                first = numbers[start] * self._chunk
                yield Extent(first, number * self._chunk + self._length(volume, number))
                start = at + 1

    def _name(self, placed: Placed, number: int) -> str:
        return f"{placed.where}, {self._lbas(placed, number)}"

    def _lbas(self, placed: Placed, number: int) -> str:
        return lba_range(placed.volume, number, self._chunk, placed.sector_size)


def lba_range(volume: Volume, number: int, chunk_size: int, sector_size: int) -> str:
    """The sectors of the source disk that a chunk holds, inclusive as people say them."""
    start = volume.offset + number * chunk_size
    end = min(start + chunk_size, volume.offset + volume.size)
    return f"LBA {start // sector_size} to {end // sector_size - 1}"


def _joins(group: list[_Wanted], wanted: _Wanted) -> bool:
    last, first = group[-1].place, group[0].place
    end = last.offset + RECORD_HEADER_SIZE + last.payload_length
    new_end = wanted.place.offset + RECORD_HEADER_SIZE + wanted.place.payload_length
    return (
        wanted.place.pack == last.pack
        and 0 <= wanted.place.offset - end <= FETCH_GAP
        and new_end - first.offset <= FETCH_LIMIT
    )
