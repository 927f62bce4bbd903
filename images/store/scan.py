"""Finding the records of a pack without an index: header after header, and past damage by looking for the next.

After damage every record is proven by its content until the pack ends: a payload may itself hold what looks like
records (a disk that carries a liferaft repository), and nothing but the content's digest tells them apart.
"""

import zlib
from collections.abc import Iterator

import msgspec

from core.errors import DamagedError, DeviceError, UnreachableError
from core.units import MIB
from images.model.extents import Extent
from images.store.index import Location
from images.store.records import (
    PACK_HEADER_SIZE,
    PACK_SIZE_LIMIT,
    RECORD_HEADER_SIZE,
    RECORD_MAGIC,
    RecordHeader,
    check_pack_header,
    decode_record,
)
from images.store.repository import Repository, pack_name

_STEP = 4 * MIB
#: Bytes read ahead while headers lie close together.
_AHEAD = 64 * 1024


class FoundRecord(msgspec.Struct, frozen=True):
    """A record where it lies."""

    id: bytes
    place: Location


class Unknown(msgspec.Struct, frozen=True):
    """A part of a pack in which no record was found, and why."""

    extent: Extent
    reason: str


def scan_pack(repository: Repository, pack: bytes, size: int, *, prove: bool) -> Iterator[FoundRecord | Unknown]:
    """The records of a pack, in order.

    Args:
        size: bytes of the file as it is now; a record that is cut off by its end is unknown.
        prove: read and hash every record, not only its header.

    Raises:
        DamagedError: it is not a pack of this repository. DeviceError: it cannot be read.
    """
    shown = f"{repository.backend.location}/{pack_name(pack)}"
    if not PACK_HEADER_SIZE <= size <= PACK_SIZE_LIMIT:
        raise DamagedError(f"{shown} has {size} bytes, expected {PACK_HEADER_SIZE} to {PACK_SIZE_LIMIT}.")
    source = _Ahead(repository, pack, size)
    check_pack_header(source.read(0, PACK_HEADER_SIZE), repository.id, pack, shown)
    at, lost_track = PACK_HEADER_SIZE, False
    while at < size:
        where = f"{shown}, offset {at}"
        try:
            header = decode_record(source.read(at, min(RECORD_HEADER_SIZE, size - at)), where)
            end = at + RECORD_HEADER_SIZE + header.payload_length
            if end > size:
                raise DamagedError(f"{where}: the record ends at {end}, the pack at {size}.")
        except UnreachableError:
            raise
        except (DamagedError, DeviceError) as error:
            following = _resync(source, at + 1, size, shown)
            yield Unknown(Extent(at, following), error.message)
            at, lost_track = following, True
            continue
        problem = _content_problem(repository, source, header, at, where) if prove or lost_track else ""
        if not problem:
            yield FoundRecord(header.id, Location(pack, at, header.payload_length, header.plain_length))
        else:
            # When the track is lost, what looks like a header may be a piece of another record's payload.
            end = _resync(source, at + 1, size, shown) if lost_track else end
            yield Unknown(Extent(at, end), problem)
        at = end


def _content_problem(repository: Repository, source: "_Ahead", header: RecordHeader, at: int, where: str) -> str:
    try:
        repository.prove(header, source.read(at, RECORD_HEADER_SIZE + header.payload_length), where)
    except UnreachableError:
        raise
    except (DamagedError, DeviceError) as error:
        return error.message
    return ""


def _resync(source: "_Ahead", at: int, size: int, shown: str) -> int:
    """Offset of the next header whose checksum is right; the pack's end when there is none."""
    while at < size:
        try:
            data = source.read(at, min(_STEP, size - at))
        except UnreachableError:
            raise
        except (DamagedError, DeviceError):
            # What cannot be read is passed sector by sector.
            at = (at // 512 + 1) * 512
            continue
        found = data.find(RECORD_MAGIC)
        while found >= 0:
            head = data[found : found + RECORD_HEADER_SIZE]
            if len(head) < RECORD_HEADER_SIZE and at + len(data) < size:
                break
            if len(head) == RECORD_HEADER_SIZE and zlib.crc32(head[:-4]).to_bytes(4, "little") == head[-4:]:
                return at + found
            found = data.find(RECORD_MAGIC, found + 1)
        if found < 0 and at + len(data) >= size:
            return size
        # A header that begins at the end of the piece is looked at again, whole.
        at += found if found > 0 else len(data) - len(RECORD_MAGIC) + 1
    return size


class _Ahead:
    """Reads a pack with a small buffer, so that headers close together cost one read."""

    def __init__(self, repository: Repository, pack: bytes, size: int) -> None:
        self._backend = repository.backend
        self._name = pack_name(pack)
        self._size = size
        self._start = 0
        self._data = b""

    def read(self, offset: int, length: int) -> bytes:
        if self._start <= offset and offset + length <= self._start + len(self._data):
            return self._data[offset - self._start : offset - self._start + length]
        if length > _AHEAD:
            return self._backend.read_range(self._name, offset, length)
        self._data = self._backend.read_range(self._name, offset, min(_AHEAD, self._size - offset))
        self._start = offset
        return self._data[:length]
