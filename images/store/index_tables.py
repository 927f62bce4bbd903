"""All sound indexes of a repository, one table after the other, for those who look at all of them.

Small ones stay in memory; of a large repository one table is in memory at a time.
"""

from collections.abc import Iterator

import msgspec

from core.errors import DamagedError
from images.store.backend import MissingFileError, Reader
from images.store.index_table import IndexTable, read_table

#: Entries of tables that are kept in memory together: 48 MiB.
_HELD_ENTRIES = 1 << 20


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
        damaged: list[DamagedIndex] = []
        for file in files:
            try:
                table = self.read(file)
            except (DamagedError, MissingFileError) as error:
                damaged.append(DamagedIndex(file, error.message))
                continue
            sound.append(file)
            counts.append(len(table))
            packs.append(dict(zip(table.packs, table.sizes.tolist(), strict=True)))
        self.files = tuple(sound)
        self.counts = tuple(counts)
        self.packs = tuple(packs)
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

    def pack_sizes(self) -> dict[bytes, int]:
        """The size every pack must have, by id."""
        return {pack: size for packs in self.packs for pack, size in packs.items()}
