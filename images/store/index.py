"""Indexes: where a record lies (docs/image-format.md §6).

An :class:`Index` is one index file, looked up in place by binary search; a :class:`IndexBuilder`
collects the entries of one capture until they are written.
"""

import struct
from collections.abc import Iterator

import msgspec

from core.errors import DamagedError
from images.store.records import ID_SIZE, PACK_SIZE_LIMIT, PAYLOAD_LIMIT, PLAIN_LIMIT, chunk_id

MAGIC = b"LRIX"
VERSION = 1
ENTRY_LIMIT = 1 << 20
#: The writer closes an index after this many entries, which bounds its memory.
ENTRIES_WRITTEN = 1 << 18

_HEADER = struct.Struct("<4sI16sII32x")
_PACK = struct.Struct("<16sQ")
_FAN = struct.Struct("<256I")
_ENTRY = struct.Struct("<32sIIII")


class Location(msgspec.Struct, frozen=True):
    """Where a record lies: its header starts at ``offset`` of the pack; lengths in bytes."""

    pack: bytes
    offset: int
    payload_length: int
    plain_length: int


class Index:
    """One index file in memory."""

    def __init__(self, data: bytes, repository: bytes, name: str) -> None:
        """Check everything that can be checked without a pack.

        Raises:
            DamagedError: the bytes are not an index of that repository.
        """
        if len(data) < _HEADER.size + _FAN.size + ID_SIZE:
            raise DamagedError(f"{name}: {len(data)} bytes are too few for an index.")
        magic, version, found, packs, entries = _HEADER.unpack_from(data)
        if magic != MAGIC or version != VERSION:
            raise DamagedError(f"{name}, offset 0: not an index of version {VERSION} ({magic.hex()}, {version}).")
        if found != repository:
            raise DamagedError(f"{name}, offset 8: belongs to repository {found.hex()}, expected {repository.hex()}.")
        self._fan_at = _HEADER.size + _PACK.size * packs
        self._entries_at = self._fan_at + _FAN.size
        expected = self._entries_at + _ENTRY.size * entries + ID_SIZE
        if entries > ENTRY_LIMIT or len(data) != expected:
            raise DamagedError(f"{name}: {len(data)} bytes, expected {expected} for {entries} entries.")
        if chunk_id(memoryview(data)[:-ID_SIZE]) != data[-ID_SIZE:]:
            raise DamagedError(f"{name}: its digest does not match its content.")
        self._data = data
        self._fan = _FAN.unpack_from(data, self._fan_at)
        self._count: int = entries
        self.packs = dict(_PACK.unpack_from(data, _HEADER.size + _PACK.size * number) for number in range(packs))
        self._pack_ids = tuple(self.packs)
        self._name = name
        if self._fan[-1] != entries or any(a > b for a, b in zip(self._fan, self._fan[1:], strict=False)):
            raise DamagedError(f"{name}, offset {self._fan_at}: the fan-out table does not fit {entries} entries.")

    def __len__(self) -> int:
        return self._count

    def find(self, identifier: bytes) -> Location | None:
        """Where the record with that id lies; None when this index does not know it."""
        first = identifier[0]
        low, high = (self._fan[first - 1] if first else 0), self._fan[first]
        while low < high:
            middle = (low + high) // 2
            at = self._entries_at + _ENTRY.size * middle
            found = self._data[at : at + ID_SIZE]
            if found == identifier:
                return self._location(at)
            if found < identifier:
                low = middle + 1
            else:
                high = middle
        return None

    def ids(self) -> Iterator[bytes]:
        """All ids, sorted."""
        for number in range(self._count):
            at = self._entries_at + _ENTRY.size * number
            yield self._data[at : at + ID_SIZE]

    def _location(self, at: int) -> Location:
        _id, pack, offset, payload, plain = _ENTRY.unpack_from(self._data, at)
        if (
            pack >= len(self._pack_ids)
            or offset >= PACK_SIZE_LIMIT
            or not 0 < payload <= PAYLOAD_LIMIT
            or not 0 < plain <= PLAIN_LIMIT
        ):
            raise DamagedError(f"{self._name}, offset {at}: the entry points nowhere.")
        return Location(self._pack_ids[pack], offset, payload, plain)


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
