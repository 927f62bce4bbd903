"""All indexes of a repository together: which file holds a record, in bounded memory.

Small indexes are held; large ones are read where they lie, part by part, until reading one whole is cheaper. It does
not write any: that is the writer's part.
"""

import threading
from collections.abc import Iterator
from functools import partial

from core.errors import DamagedError, DeviceError
from core.units import KIB, MIB
from images.store.backend import MissingFileError, Reader, for_each
from images.store.index import Index, Location, index_in_memory

#: Bytes of indexes held in memory: those of 1 TiB of different chunks. More is read where it lies.
HELD_LIMIT = 48 * MIB
#: Over a network the first request for an index brings so many bytes: all of that of a small capture …
_START = 64 * KIB
#: … one up to this size is fetched whole at once; of a larger one only the parts that are asked for …
_FETCHED_WHOLE = 256 * KIB
#: … until this many of its 256 parts were asked for.
_PARTS_BEFORE_WHOLE = 32
_INDEX_LIMIT = 64 * MIB


class IndexSet:
    """The indexes of one repository.

    Attributes:
        problems: a sentence for each index that cannot be believed, and was left out.
    """

    def __init__(self, backend: Reader, repository: bytes, names: tuple[str, ...]) -> None:
        self._backend = backend
        self._repository = repository
        self._lock = threading.Lock()
        self._held = 0
        self._latest = 0
        self._indexes: list[Index] = []
        self._files: list[str] = []
        self.problems: tuple[str, ...] = ()
        problems: list[str] = []
        for name, found in zip(names, for_each(backend, self._open, names), strict=True):
            if isinstance(found, Index):
                self._indexes.append(found)
                self._files.append(name)
            else:
                problems.append(found)
        self.problems = tuple(problems)

    def __iter__(self) -> Iterator[Index]:
        return iter(tuple(self._indexes))

    def __len__(self) -> int:
        return len(self._indexes)

    def files(self) -> tuple[str, ...]:
        """The names of the index files that are believed, in the order of iteration."""
        return tuple(self._files)

    def pack_sizes(self) -> dict[bytes, int]:
        """The size every pack must have, by id."""
        return {pack: size for index in self for pack, size in index.packs.items()}

    def places(self, identifier: bytes) -> Iterator[Location]:
        """Every place of a record. Neighbours in a volume were written together, so the last index is asked first."""
        latest = self._latest
        for number in (latest, *(other for other in range(len(self._indexes)) if other != latest)):
            if number < len(self._indexes):
                place = self._indexes[number].find(identifier)
                self._consider_whole(number)
                if place is not None:
                    self._latest = number
                    yield place

    def _open(self, name: str) -> Index | str:
        """An index, or what is wrong with it."""
        path = f"indexes/{name}"
        shown = f"{self._backend.location}/{path}"
        try:
            if self._backend.distant:
                return self._open_distant(path, shown)
            size = self._backend.size(path)
            if self._hold(size, shown):
                return index_in_memory(self._backend.read(path, _INDEX_LIMIT), self._repository, shown)
            return Index(partial(self._backend.read_range, path), size, self._repository, shown)
        except (DamagedError, MissingFileError) as error:
            return error.message.rstrip(".")

    def _open_distant(self, path: str, shown: str) -> Index:
        start = self._backend.read_start(path, _START)
        if start.size <= _FETCHED_WHOLE and self._hold(start.size, shown):
            data = start.data
            if len(data) < start.size:
                data += self._backend.read_range(path, len(data), start.size - len(data))
            return index_in_memory(data, self._repository, shown)

        known = start.data

        def read(offset: int, length: int) -> bytes:
            if offset + length <= len(known):
                return known[offset : offset + length]
            return self._backend.read_range(path, offset, length)

        index = Index(read, start.size, self._repository, shown)
        # Header and fan-out have been taken from it; of what is not held nothing may add up.
        known = b""
        return index

    def _hold(self, size: int, shown: str) -> bool:
        """Whether there is room for so many bytes; then they count."""
        if size > _INDEX_LIMIT:
            raise DamagedError(f"{shown} has {size} bytes, more than an index may have.")
        with self._lock:
            if self._held + size > HELD_LIMIT:
                return False
            self._held += size
            return True

    def _consider_whole(self, number: int) -> None:
        """Fetch an index whole when so many parts of it were asked for that the rest will be, too."""
        index = self._indexes[number]
        if index.parts_read < _PARTS_BEFORE_WHOLE or not self._backend.distant:
            return
        with self._lock:
            if self._indexes[number] is not index or self._held + index.size > HELD_LIMIT:
                index.parts_read = 0
                return
            self._held += index.size
        try:
            data = self._backend.read(f"indexes/{self._files[number]}", _INDEX_LIMIT)
            self._indexes[number] = index_in_memory(data, self._repository, index.name)
        except (DamagedError, DeviceError):
            # The parts that were read until now did their work, and each record is proven by its own id.
            index.parts_read = 0
