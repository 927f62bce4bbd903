"""An index file as one table in memory, for those who look at all of it: check, prune, rebuild.

Look-ups of single records are in ``index.py``. A table of the writer's size (262144 entries) has 12 MiB.
"""

import struct

import numpy as np
import numpy.typing as npt

from core.errors import DamagedError
from core.units import MIB
from images.store.backend import Reader
from images.store.index import ENTRY_LIMIT, HEADER_SIZE, MAGIC, VERSION, index_in_memory
from images.store.records import (
    ID_SIZE,
    PACK_HEADER_SIZE,
    PACK_SIZE_LIMIT,
    PAYLOAD_LIMIT,
    PLAIN_LIMIT,
    RECORD_HEADER_SIZE,
    chunk_id,
)

#: One entry as it lies in the file (docs/image-format.md §6).
ENTRY = np.dtype(
    [
        ("id", f"V{ID_SIZE}"),
        ("pack", "<u4"),
        ("offset", "<u4"),
        ("payload", "<u4"),
        ("plain", "<u4"),
    ]
)
_LIMIT = 64 * MIB
_PACK = struct.Struct("<16sQ")

Entries = npt.NDArray[np.void]
Mask = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]


class IndexTable:
    """One sound index.

    Attributes:
        file: its name in the folder ``indexes``.
        packs: ids of the packs it names; sizes: bytes each must have.
        entries: sorted by id; see :data:`ENTRY`. keys: the first 8 bytes of each id, as a number that sorts alike.
    """

    def __init__(self, file: str, packs: dict[bytes, int], entries: Entries) -> None:
        self.file = file
        self.packs = tuple(packs)
        self.sizes = np.array(list(packs.values()), dtype=np.int64)
        self.entries = entries
        self.keys = sort_keys(entries["id"])

    def __len__(self) -> int:
        return len(self.entries)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of each record, header included."""
        return self.entries["payload"].astype(np.int64) + RECORD_HEADER_SIZE

    def of_pack(self, number: int) -> npt.NDArray[np.intp]:
        """Positions of the entries of a pack, in the order in which they lie in it."""
        (found,) = np.nonzero(self.entries["pack"] == number)
        order: npt.NDArray[np.intp] = found[np.argsort(self.entries["offset"][found], kind="stable")]
        return order

    def find(self, ids: Entries, keys: Keys) -> npt.NDArray[np.int64]:
        """Position of each id in this table, -1 where it is not; ``keys`` are those of ``ids``."""
        found = np.full(len(ids), -1, dtype=np.int64)
        at = np.searchsorted(self.keys, keys)
        open_ = np.arange(len(ids))
        # Ids that share 8 bytes are neighbours; that one comparison does not do is rarer than any fault of a disk.
        while len(open_):
            inside = at[open_] < len(self.keys)
            open_ = open_[inside]
            open_ = open_[self.keys[at[open_]] == keys[open_]]
            same = self.entries["id"][at[open_]] == ids[open_]
            found[open_[same]] = at[open_[same]]
            open_ = open_[~same]
            at[open_] += 1
        return found


def sort_keys(ids: Entries) -> Keys:
    """The first 8 bytes of each id as numbers in the order of the ids."""
    raw = np.frombuffer(np.ascontiguousarray(ids).tobytes(), dtype=np.uint8).reshape(-1, ID_SIZE)
    return np.ascontiguousarray(raw[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


def sort_order(ids: Entries) -> npt.NDArray[np.intp]:
    """The order that sorts ids by all their bytes; equal ones stay as they were."""
    raw = np.frombuffer(np.ascontiguousarray(ids).tobytes(), dtype=">u8").reshape(-1, ID_SIZE // 8)
    order: npt.NDArray[np.intp] = np.lexsort((raw[:, 3], raw[:, 2], raw[:, 1], raw[:, 0]))
    return order


def read_table(backend: Reader, repository: bytes, file: str) -> IndexTable:
    """An index, proven: its digest, its order, and that every entry lies inside its pack.

    Raises:
        DamagedError: it is not sound. DeviceError: it cannot be read.
    """
    name = f"{backend.location}/indexes/{file}"
    return decode_table(backend.read(f"indexes/{file}", _LIMIT), repository, file, name)


def decode_table(data: bytes, repository: bytes, file: str, name: str) -> IndexTable:
    """The same from the bytes of an index; ``name`` is for errors. Raises DamagedError."""
    index = index_in_memory(data, repository, name)
    entries = np.frombuffer(
        data, dtype=ENTRY, count=len(index), offset=len(data) - ID_SIZE - ENTRY.itemsize * len(index)
    )
    table = IndexTable(file, index.packs, entries)
    _check(table, name)
    return table


def _check(table: IndexTable, name: str) -> None:
    entries = table.entries
    if not len(entries):
        return
    if int(entries["pack"].max()) >= len(table.packs):
        raise DamagedError(f"{name}: an entry names pack {entries['pack'].max()} of {len(table.packs)}.")
    if int(entries["payload"].max()) > PAYLOAD_LIMIT or int(entries["plain"].max()) > PLAIN_LIMIT:
        raise DamagedError(f"{name}: an entry's lengths are out of bounds.")
    if not int(entries["payload"].min()) or not int(entries["plain"].min()):
        raise DamagedError(f"{name}: an entry's length is 0.")
    ends = entries["offset"].astype(np.int64) + table.lengths()
    if bool((ends > table.sizes[entries["pack"]]).any()) or int(entries["offset"].min()) < PACK_HEADER_SIZE:
        raise DamagedError(f"{name}: an entry lies outside its pack.")
    # Ids of equal keys are rare enough to be compared one by one.
    keys = table.keys
    if bool((keys[1:] < keys[:-1]).any()):
        raise DamagedError(f"{name}: entries are out of order.")
    for at in np.nonzero(keys[1:] == keys[:-1])[0]:
        if bytes(entries["id"][at]) >= bytes(entries["id"][at + 1]):
            raise DamagedError(f"{name}: entry {bytes(entries['id'][at + 1]).hex()[:16]}… is out of order.")


def encode_table(repository: bytes, packs: dict[bytes, int], entries: Entries) -> bytes:
    """The bytes of an index file.

    Args:
        packs: the size of each pack the entries name, by id, in the order of their numbers.
        entries: in any order; at most 1048576; each id once.
    """
    if len(entries) > ENTRY_LIMIT or any(size > PACK_SIZE_LIMIT for size in packs.values()):
        raise ValueError(f"{len(entries)} entries in {len(packs)} packs")
    order = sort_order(entries["id"])
    first = np.frombuffer(np.ascontiguousarray(entries["id"]).tobytes(), dtype=np.uint8)[::ID_SIZE]
    fan = np.cumsum(np.bincount(first, minlength=256)).astype("<u4")
    data = (
        struct.pack("<4sI16sII32x", MAGIC, VERSION, repository, len(packs), len(entries))
        + b"".join(_PACK.pack(pack, size) for pack, size in packs.items())
        + fan.tobytes()
        + entries[order].tobytes()
    )
    assert len(data) == HEADER_SIZE + 24 * len(packs) + 1024 + ENTRY.itemsize * len(entries)
    return data + chunk_id(data)
