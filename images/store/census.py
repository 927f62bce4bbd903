"""The census: which of the records that the indexes know do recovery points use, and which do they miss.

Ids are gathered in batches and each batch is joined, sorted and whole (all 32 bytes), with one index after the
other. Memory: a batch (some 70 MiB while it is sorted), one index, and one byte for each entry of all indexes.
"""

from array import array

import msgspec
import numpy as np

from images.model.manifest import Volume
from images.store.index_table import Mask, sort_keys
from images.store.index_tables import IndexTables
from images.store.records import ID_SIZE
from images.store.trees import TreeWalk

#: Ids joined together.
BATCH = 1 << 19
#: Missing ids that are remembered; more are counted.
MISSING_LIMIT = 1 << 20


class Wrong(msgspec.Struct, frozen=True):
    """An entry whose plain length is not that of the chunk it is named for."""

    id: bytes
    file: str
    expected: int
    found: int


class Census:
    """Counts what is used.

    Attributes:
        used: for each index, in the order of ``tables``, which entries are used.
        missing: ids that no sound index knows; missing_count: how many, also behind the limit.
        wrong: entries that promise another length (the first of them).
        chunks: references from pages to chunks that were counted.
    """

    def __init__(self, tables: IndexTables, chunk_size: int) -> None:
        self._tables = tables
        self._chunk_size = chunk_size
        self._ids = bytearray()
        self._plain = array("I")
        self.used: tuple[Mask, ...] = tuple(np.zeros(count, dtype=np.bool_) for count in tables.counts)
        self.missing: list[bytes] = []
        self.missing_count = 0
        self.wrong: list[Wrong] = []
        self.chunks = 0

    def count(self, walk: TreeWalk, volume: Volume, where: str) -> None:
        """Count a volume: its pages that ``walk`` has not seen, and their chunks."""
        last = -(-volume.size // self._chunk_size) - 1
        for visited in walk.visit(volume, where):
            self._ids += visited.id
            self._plain.append(visited.size)
            slots = sorted(visited.page.ids) if visited.page.level == 0 else []
            if slots:
                self._ids += b"".join(visited.page.ids[slot] for slot in slots)
                self._plain.extend([self._chunk_size] * len(slots))
                if visited.first + slots[-1] == last:
                    self._plain[-1] = volume.size - last * self._chunk_size
                self.chunks += len(slots)
            if len(self._plain) >= BATCH:
                self.settle()

    def settle(self) -> None:
        """Join what is left. Called once, after the last volume."""
        if not self._plain:
            return
        ids = np.frombuffer(bytes(self._ids), dtype=f"V{ID_SIZE}")
        plain = np.array(self._plain, dtype=np.uint32)
        self._ids, self._plain = bytearray(), array("I")
        order = np.argsort(sort_keys(ids), kind="stable")
        ids, plain = ids[order], plain[order]
        keys = sort_keys(ids)
        known = np.zeros(len(ids), dtype=np.bool_)
        for number, table in enumerate(self._tables):
            at = table.find(ids, keys)
            (hit,) = np.nonzero(at >= 0)
            self.used[number][at[hit]] = True
            known[hit] = True
            for bad in hit[table.entries["plain"][at[hit]] != plain[hit]][: MISSING_LIMIT - len(self.wrong)]:
                found = int(table.entries["plain"][at[bad]])
                self.wrong.append(Wrong(bytes(ids[bad]), table.file, int(plain[bad]), found))
        lost = {bytes(identifier) for identifier in ids[~known]}
        self.missing_count += len(lost)
        self.missing.extend(sorted(lost)[: MISSING_LIMIT - len(self.missing)])
