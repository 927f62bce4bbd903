"""Indexes: where a record lies (docs/image-format.md §6).

An :class:`Index` is one index file, in memory or read piece by piece where it lies; an :class:`IndexBuilder`
collects the entries of one capture until they are written. Which indexes there are is the repository's business.
"""

import struct
import threading
from collections.abc import Callable, Iterator

import msgspec

from core.errors import DamagedError
from images.store.records import ID_SIZE, PACK_SIZE_LIMIT, PAYLOAD_LIMIT, PLAIN_LIMIT, chunk_id

MAGIC = b"LRIX"
VERSION = 1
ENTRY_LIMIT = 1 << 20
PACK_LIMIT = 1 << 20
#: The writer closes an index after this many entries, which bounds its memory.
ENTRIES_WRITTEN = 1 << 18
#: Of an index that is not in memory: how many of its 256 parts are remembered.
_PARTS_KEPT = 16

HEADER_SIZE = 64
_HEADER = struct.Struct("<4sI16sII32x")
_PACK = struct.Struct("<16sQ")
_FAN = struct.Struct("<256I")
_ENTRY = struct.Struct("<32sIIII")
ENTRY_SIZE = _ENTRY.size

#: Gives ``length`` bytes of the file from ``offset``.
ReadPart = Callable[[int, int], bytes | memoryview]


class Location(msgspec.Struct, frozen=True):
    """Where a record lies: its header starts at ``offset`` of the pack; lengths in bytes."""

    pack: bytes
    offset: int
    payload_length: int
    plain_length: int


class Index:
    """One index file.

    Attributes:
        name: for errors. size: bytes of the file. packs: the size each pack must have, by id.
        parts_read: how often a part was fetched; a reader over a network may then prefer the whole file.
    """

    def __init__(self, read: ReadPart, size: int, repository: bytes, name: str) -> None:
        """Read header, packs and fan-out; entries are read when they are looked up.

        Raises:
            DamagedError: the bytes are not an index of that repository.
        """
        if size < _HEADER.size + _FAN.size + ID_SIZE:
            raise DamagedError(f"{name}: {size} bytes are too few for an index.")
        magic, version, found, packs, entries = _HEADER.unpack(read(0, _HEADER.size))
        if magic != MAGIC or version != VERSION:
            raise DamagedError(f"{name}, offset 0: not an index of version {VERSION} ({magic.hex()}, {version}).")
        if found != repository:
            raise DamagedError(f"{name}, offset 8: belongs to repository {found.hex()}, expected {repository.hex()}.")
        fan_at = _HEADER.size + _PACK.size * packs
        self._entries_at = fan_at + _FAN.size
        expected = self._entries_at + _ENTRY.size * entries + ID_SIZE
        if entries > ENTRY_LIMIT or packs > PACK_LIMIT or size != expected:
            raise DamagedError(f"{name}: {size} bytes, expected {expected} for {entries} entries.")
        head = memoryview(read(_HEADER.size, self._entries_at - _HEADER.size))
        self._fan: tuple[int, ...] = _FAN.unpack_from(head, _PACK.size * packs)
        if self._fan[-1] != entries or any(a > b for a, b in zip(self._fan, self._fan[1:], strict=False)):
            raise DamagedError(f"{name}, offset {fan_at}: the fan-out table does not fit {entries} entries.")
        self.name = name
        self.size = size
        self.packs: dict[bytes, int] = dict(_PACK.unpack_from(head, _PACK.size * number) for number in range(packs))
        self.parts_read = 0
        self._pack_ids = tuple(self.packs)
        if len(self._pack_ids) != packs:
            raise DamagedError(f"{name}, offset {_HEADER.size}: it names a pack twice.")
        self._count: int = entries
        self._read = read
        self._parts: dict[int, memoryview] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def find(self, identifier: bytes) -> Location | None:
        """Where the record with that id lies; None when this index does not know it. Safe from several threads.

        Raises:
            DamagedError: the entry points nowhere, or the part cannot be read.
        """
        part = self._part(identifier[0])
        low, high = 0, len(part) // _ENTRY.size
        while low < high:
            middle = (low + high) // 2
            at = _ENTRY.size * middle
            found = bytes(part[at : at + ID_SIZE])
            if found == identifier:
                return self._location(part[at : at + _ENTRY.size])[1]
            if found < identifier:
                low = middle + 1
            else:
                high = middle
        return None

    def entries(self) -> Iterator[tuple[bytes, Location]]:
        """All entries, sorted by id; one part of 256 in memory at a time.

        Raises:
            DamagedError: an entry points nowhere, or ids are out of order.
        """
        last = b""
        for first in range(256):
            part = self._part(first)
            for at in range(0, len(part), _ENTRY.size):
                identifier, location = self._location(part[at : at + _ENTRY.size])
                if identifier <= last or identifier[0] != first:
                    raise DamagedError(f"{self.name}: entry {identifier.hex()[:16]}… is out of order.")
                last = identifier
                yield identifier, location

    def ids(self) -> Iterator[bytes]:
        """All ids, sorted."""
        return (identifier for identifier, _ in self.entries())

    def _part(self, first: int) -> memoryview:
        """The entries whose ids begin with that byte."""
        with self._lock:
            found = self._parts.get(first)
        if found is not None:
            return found
        low, high = (self._fan[first - 1] if first else 0), self._fan[first]
        if low == high:
            return memoryview(b"")
        part = self._read(self._entries_at + _ENTRY.size * low, _ENTRY.size * (high - low))
        if isinstance(part, memoryview):
            return part
        with self._lock:
            self.parts_read += 1
            self._parts[first] = memoryview(part)
            while len(self._parts) > _PARTS_KEPT:
                del self._parts[next(iter(self._parts))]
        return memoryview(part)

    def _location(self, entry: memoryview) -> tuple[bytes, Location]:
        identifier, pack, offset, payload, plain = _ENTRY.unpack(entry)
        if (
            pack >= len(self._pack_ids)
            or offset >= PACK_SIZE_LIMIT
            or not 0 < payload <= PAYLOAD_LIMIT
            or not 0 < plain <= PLAIN_LIMIT
        ):
            raise DamagedError(f"{self.name}: the entry of {identifier.hex()[:16]}… points nowhere.")
        return identifier, Location(self._pack_ids[pack], offset, payload, plain)


def index_size(header: bytes, name: str) -> int:
    """Bytes of an index file of which the first 64 are given. Raises DamagedError."""
    magic, version, _, packs, entries = _HEADER.unpack(header)
    if magic != MAGIC or version != VERSION or entries > ENTRY_LIMIT or packs > PACK_LIMIT:
        raise DamagedError(f"{name}: no index of version {VERSION} begins here ({magic.hex()}, {version}).")
    return int(_HEADER.size + _PACK.size * packs + _FAN.size + _ENTRY.size * entries + ID_SIZE)


def index_in_memory(data: bytes, repository: bytes, name: str) -> Index:
    """A whole index file, proven by its digest.

    Raises:
        DamagedError: its digest does not match, or it is not an index of that repository.
    """
    view = memoryview(data)
    index = Index(lambda offset, length: view[offset : offset + length], len(data), repository, name)
    if chunk_id(view[:-ID_SIZE]) != data[-ID_SIZE:]:
        raise DamagedError(f"{name}: its digest does not match its content.")
    return index


class IndexBuilder:
    """Collects entries; answers look-ups meanwhile."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Location] = {}
        self._packs: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, identifier: bytes, location: Location) -> None:
        """Enter a record."""
        self._entries[identifier] = location

    def close_pack(self, pack: bytes, size: int) -> None:
        """The pack is complete and has ``size`` bytes."""
        self._packs[pack] = size

    def drop_pack(self, pack: bytes) -> None:
        """Forget a pack that did not become complete."""
        self._entries = {found: place for found, place in self._entries.items() if place.pack != pack}

    def cut_pack(self, pack: bytes, size: int) -> None:
        """Forget the records of a pack that do not lie in its first ``size`` bytes."""
        self._entries = {
            found: place for found, place in self._entries.items() if place.pack != pack or place.offset < size
        }

    def starts(self, pack: bytes) -> list[int]:
        """Where the records of a pack begin, sorted."""
        return sorted(place.offset for place in self._entries.values() if place.pack == pack)

    def size(self) -> int:
        """Bytes that the index file has at most, with one pack more than are complete."""
        packs = _PACK.size * (len(self._packs) + 1)
        return _HEADER.size + packs + _FAN.size + _ENTRY.size * len(self._entries) + ID_SIZE

    def find(self, identifier: bytes) -> Location | None:
        """Where the record lies; None when it was not entered."""
        return self._entries.get(identifier)

    def encode(self, repository: bytes) -> bytes:
        """The bytes of the index file. It names complete packs: entries whose pack was not closed are left out."""
        numbers = {pack: number for number, pack in enumerate(self._packs)}
        entries = {found: place for found, place in self._entries.items() if place.pack in numbers}
        fan = [0] * 256
        body = bytearray()
        for identifier in sorted(entries):
            place = entries[identifier]
            body += _ENTRY.pack(identifier, numbers[place.pack], place.offset, place.payload_length, place.plain_length)
            fan[identifier[0]] += 1
        for first in range(1, 256):
            fan[first] += fan[first - 1]
        data = (
            _HEADER.pack(MAGIC, VERSION, repository, len(self._packs), len(entries))
            + b"".join(_PACK.pack(pack, size) for pack, size in self._packs.items())
            + _FAN.pack(*fan)
            + bytes(body)
        )
        return data + chunk_id(data)
