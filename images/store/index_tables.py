"""All sound indexes of a repository, one table after the other, for those who look at all of them.

Small ones stay in memory; of a large repository one table is in memory at a time.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from core.errors import DamagedError
from images.store.backend import MissingFileError, Reader
from images.store.index import HEADER_SIZE
from images.store.index_table import ENTRY, Entries, IndexTable, read_table

#: Entries of tables that are kept in memory together: 28 MiB with their keys.
_HELD_ENTRIES = 1 << 19
#: The smallest key of each first byte.
_FIRST_KEYS = np.arange(256, dtype=np.uint64) << np.uint64(56)


class DamagedIndex(msgspec.Struct, frozen=True):
    """An index that cannot be believed, and why."""

    file: str
    reason: str


class IndexTables:
    """The indexes that are sound when this is made.

    Attributes:
        files: their names. counts: entries of each. packs: of each, the size each pack must have, by id.
        damaged: the others.
    """

    def __init__(self, backend: Reader, repository: bytes, files: tuple[str, ...]) -> None:
        self._backend = backend
        self._repository = repository
        self._held: dict[str, IndexTable] = {}
        self._held_entries = 0
        sound: list[str] = []
        counts: list[int] = []
        packs: list[dict[bytes, int]] = []
        starts: list[npt.NDArray[np.int64]] = []
        damaged: list[DamagedIndex] = []
        for file in files:
            try:
                table = self.read(file)
            except (DamagedError, MissingFileError) as error:
                damaged.append(DamagedIndex(file, error.message))
                continue
            sound.append(file)
            counts.append(len(table))
            starts.append(np.searchsorted(table.keys, _FIRST_KEYS))
            packs.append(dict(zip(table.packs, table.sizes.tolist(), strict=True)))
        self.files = tuple(sound)
        self.counts = tuple(counts)
        self.packs = tuple(packs)
        self._starts = tuple(starts)
        self.damaged = tuple(damaged)

    def __iter__(self) -> Iterator[IndexTable]:
        return (self.read(file) for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, file: str) -> IndexTable:
        """One table.

        Raises:
            DamagedError, DeviceError: as :func:`read_table`.
        """
        held = self._held.get(file)
        if held is not None:
            return held
        table = read_table(self._backend, self._repository, file)
        if self._held_entries + len(table) <= _HELD_ENTRIES:
            self._held[file] = table
            self._held_entries += len(table)
        return table

    def part(self, number: int, first: int, last: int) -> tuple[int, Entries]:
        """The entries of an index whose ids begin with the bytes ``first`` to ``last`` (not included, 256 for the end).

        Returns:
            position of the first of them, and they. They were proven when this was made.
        """
        file = self.files[number]
        low = int(self._starts[number][first])
        high = int(self._starts[number][last]) if last < 256 else self.counts[number]
        held = self._held.get(file)
        if held is not None:
            return low, held.entries[low:high]
        at = HEADER_SIZE + 24 * len(self.packs[number]) + 1024 + ENTRY.itemsize * low
        size = ENTRY.itemsize * (high - low)
        data = self._backend.read_range(f"indexes/{file}", at, size) if size else b""
        return low, np.frombuffer(data, dtype=ENTRY)

    def pack_sizes(self) -> dict[bytes, int]:
        """The size every pack must have, by id."""
        return {pack: size for packs in self.packs for pack, size in packs.items()}
