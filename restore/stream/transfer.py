"""The transfer: records that lie close together in a pack, on their way to a target.

Fetched together, proven one by one, written as neighbours. What is damaged is asked for in every other way that the
repository knows before the transfer fails; nothing that is not proven is written.
"""

import msgspec

from core.errors import DamagedError, DeviceError
from core.events import Meter
from core.units import MIB
from images.store.index import Location
from images.store.pages import Slot
from images.store.records import RECORD_HEADER_SIZE
from restore.stream.placed import Placed
from restore.stream.route import Route

#: Bytes fetched from a pack at once, and bytes of other records that are read over rather than skipped.
FETCH_LIMIT = 4 * MIB
FETCH_GAP = 64 * 1024
#: Plain bytes of neighbours written with one request.
WRITTEN = 4 * MIB


class Wanted(msgspec.Struct, frozen=True):
    """A chunk of a volume, and where its record lies."""

    number: int
    id: bytes
    place: Location


class Fetch(msgspec.Struct, frozen=True):
    """Records that lie close together in one pack."""

    wanted: tuple[Wanted, ...]

    @property
    def pack(self) -> bytes:
        """Its id."""
        return self.wanted[0].place.pack

    @property
    def start(self) -> int:
        """Where the first record begins."""
        return self.wanted[0].place.offset

    @property
    def length(self) -> int:
        """Bytes from there to the end of the last record."""
        last = self.wanted[-1].place
        return last.offset + RECORD_HEADER_SIZE + last.payload_length - self.start


class Moved(msgspec.Struct, frozen=True):
    """What one fetch has moved: bytes, and the chunks."""

    written: int = 0
    chunks: tuple[Slot, ...] = ()


class Transfer:
    """One fetch on its way to the target."""

    def __init__(self, route: Route, placed: Placed, fetch: Fetch, meter: Meter, buffer: memoryview) -> None:
        self._route = route
        self._placed = placed
        self._fetch = fetch
        self._meter = meter
        self._buffer = buffer
        self._data = memoryview(b"")
        self._damage: DamagedError | DeviceError | None = None
        self.stages = (self._read, self._decode, self._write)
        self.result = Moved()

    def _read(self) -> None:
        """The records from their pack."""
        route, fetch = self._route, self._fetch
        route.halt()
        where = self._placed.name(fetch.wanted[0].number, route.chunk)
        try:
            self._data = memoryview(route.repository.read_pack(fetch.pack, fetch.start, fetch.length, where))
        except (DamagedError, DeviceError) as error:
            self._damage = error

    def _decode(self) -> None:
        """Each proven chunk to its place in the buffer: behind the one before."""
        chunk = self._route.chunk
        for place, wanted in enumerate(self._fetch.wanted):
            where = self._placed.name(wanted.number, chunk)
            size = self._prove(wanted, self._buffer[place * chunk : (place + 1) * chunk], where)
            if size != self._placed.length(wanted.number, chunk):
                raise DamagedError(f"{where}: the chunk has {size} bytes.")
        self._data = memoryview(b"")

    def _prove(self, wanted: Wanted, room: memoryview, where: str) -> int:
        """A chunk into ``room``, and its bytes; where they are damaged, or did not come, from wherever else they can
        come from."""
        repository = self._route.repository
        try:
            if self._damage is not None:
                raise self._damage
            record = self._data[wanted.place.offset - self._fetch.start :]
            return repository.decode_into(wanted.id, wanted.place, record, room, where)
        except (DamagedError, DeviceError) as error:
            if repository.otherwise is None:
                raise
            plain = repository.otherwise.read(wanted.id, where, error)
            if len(plain) > len(room):
                raise DamagedError(f"{where}: the chunk has {len(plain)} bytes.") from None
            room[: len(plain)] = plain
            return len(plain)

    def _write(self) -> None:
        """Neighbours with one request, up to a limit."""
        chunk, written, first = self._route.chunk, 0, 0
        fetched = self._fetch.wanted
        most = max(1, WRITTEN // chunk)
        for place, wanted in enumerate(fetched):
            last = place + 1 == len(fetched) or fetched[place + 1].number != wanted.number + 1
            if not last and place + 1 - first < most:
                continue
            start = first * chunk
            end = place * chunk + self._placed.length(wanted.number, chunk)
            offset = self._placed.offset + fetched[first].number * chunk
            self._route.target.write_from(offset, self._buffer[start:end])
            self._meter.advance(end - start)
            written += end - start
            first = place + 1
        self.result = Moved(written, tuple(Slot(wanted.number, wanted.id) for wanted in fetched))


def joins(group: list[Wanted], wanted: Wanted, limit: int) -> bool:
    """Whether a record is worth fetching together with those of ``group``, at most ``limit`` of them."""
    last, first = group[-1].place, group[0].place
    end = last.offset + RECORD_HEADER_SIZE + last.payload_length
    new_end = wanted.place.offset + RECORD_HEADER_SIZE + wanted.place.payload_length
    return (
        len(group) < limit
        and wanted.place.pack == last.pack
        and 0 <= wanted.place.offset - end <= FETCH_GAP
        and new_end - first.offset <= FETCH_LIMIT
    )
