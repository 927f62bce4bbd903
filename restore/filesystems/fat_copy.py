"""A FAT volume made anew from a stored one: another size, or sectors of another size, the same files.

Folders keep their entries byte for byte (long and short names, attributes, all times); only the numbers of clusters
are new. Files lie one behind the other, so the copy is written in one go from its first byte on. Serial number, label,
boot code and everything else of the boot sector that does not tell the shape are kept.

Structures: Microsoft's FAT specification 1.03.
"""

import struct
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.errors import DamagedError, RefusedError
from core.units import MIB, format_size
from images.browse.entry import Content
from images.browse.fat import FatFilesystem
from images.sources import BlockSource
from restore.filesystems.fat_shape import ENTRY_SIZE, Shape, parse_shape, shapes_for

#: Folders inside folders at most, as the browser of images allows.
_DEPTH = 300
_DELETED, _LAST, _LONG_NAME, _LABEL, _FOLDER = 0xE5, 0x00, 0x0F, 0x08, 0x10
_DOT, _DOTS = b".          ", b"..         "
_SECTOR = 512
_HIDDEN_AT = 0x1C
#: FSInfo (specification 5): where its numbers of free clusters stand.
_FREE_AT = 488
_FSINFO, _COPY = 1, 6
#: The byte in which drivers mark a mounted volume.
_STATE, _STATE_32 = 37, 65


class Item(msgspec.Struct, gc=False):
    """A file or folder.

    Attributes:
        node: its number in the reader of the stored volume.
        parent: the index of the folder it lies in; the root directory lies in itself.
        size: bytes; of a folder those of its records.
        first: its first cluster in the copy, 0 for none.
        records: of a folder; children: the index of the item each record stands for, 0 for none.
    """

    node: int
    parent: int
    folder: bool
    size: int = 0
    first: int = 0
    records: tuple[bytes, ...] = ()
    children: tuple[int, ...] = ()


class FatCopy:
    """A copy that is ready to be written.

    Args:
        source: the stored volume; filesystem: its reader.
        size, sector_size: of the partition the copy goes to.
        old_lba, new_lba: the partition's first sector before and now, each in sectors of its own disk.

    Attributes:
        shape: what the copy looks like; old: what the volume looked like.
    """

    def __init__(
        self,
        source: BlockSource,
        filesystem: FatFilesystem,
        size: int,
        sector_size: int,
        *,
        old_lba: int,
        new_lba: int,
    ) -> None:
        """Read the tree and find a shape.

        Raises:
            RefusedError: the files do not fit, or no FAT can have that size.
            DamagedError: the volume contradicts itself.
        """
        self._source = source
        self._boot = source.read_at(0, _SECTOR)
        self.old = parse_shape(self._boot)
        self._filesystem = filesystem
        self._items: list[Item] = []
        self._collect()
        self.shape = self._fitting(size, sector_size)
        self._used = self._place()
        self._lbas = (old_lba, new_lba)

    @property
    def data(self) -> int:
        """Bytes of the files."""
        return sum(item.size for item in self._items if not item.folder)

    @property
    def size(self) -> int:
        """Bytes that :meth:`pieces` gives."""
        return self.shape.data_offset + self._used * self.shape.cluster_size

    def pieces(self) -> Iterator[bytes]:
        """The volume from its first byte to the end of its last used cluster, in order."""
        yield self._reserved()
        table = self._table()
        padded = table + bytes(self.shape.fat_sectors * self.shape.sector_size - len(table))
        for _ in range(self.shape.fats):
            yield padded
        if self.shape.bits != 32:
            root = self._folder_bytes(self._items[0])
            yield root + bytes(self.shape.data_offset - self.shape.root_offset - len(root))
        for item in self._items:
            if item.first:
                yield from self._item_bytes(item)

    def _collect(self) -> None:
        """All folders and files, a folder before what is in it."""
        self._items.append(Item(self._filesystem.root, 0, folder=True))
        waiting = [(0, 0)]
        listed: set[int] = set()
        while waiting:
            index, depth = waiting.pop()
            if depth > _DEPTH:
                raise DamagedError(f"Folders of the FAT volume are nested deeper than {_DEPTH}.")
            item = self._items[index]
            item.records, item.children = self._list(index)
            item.size = len(item.records) * ENTRY_SIZE
            for child, record in zip(item.children, item.records, strict=True):
                if not child or not self._items[child].folder:
                    continue
                first = self._first_cluster(record)
                if first in listed:
                    raise DamagedError(f"The folder at cluster {first} of the FAT volume is in the tree twice.")
                listed.add(first)
                waiting.append((child, depth + 1))

    def _list(self, index: int) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        """The records of a folder, deleted ones left out, and for each the index of its item."""
        records: list[bytes] = []
        children: list[int] = []
        for place, raw in self._filesystem.records(self._items[index].node):
            if raw[0] == _LAST:
                break
            if raw[0] == _DELETED:
                continue
            child = 0
            if raw[11] & 0x3F != _LONG_NAME and not raw[11] & _LABEL and raw[:11] not in (_DOT, _DOTS):
                child = len(self._items)
                folder = bool(raw[11] & _FOLDER)
                size = 0 if folder else int.from_bytes(raw[28:32], "little")
                self._items.append(Item(place, index, folder=folder, size=size))
            records.append(raw)
            children.append(child)
        return tuple(records), tuple(children)

    def _first_cluster(self, record: bytes) -> int:
        low, high = int.from_bytes(record[26:28], "little"), int.from_bytes(record[20:22], "little")
        return low | high << 16 if self.old.bits == 32 else low

    def _fitting(self, size: int, sector_size: int) -> Shape:
        """The first shape that all files fit into."""
        needed = 0
        for shape in shapes_for(self.old, size, sector_size, len(self._items[0].records)):
            needed = sum(self._count(item, shape) for item in self._items)
            if needed <= shape.clusters:
                return shape
        raise RefusedError(
            f"The files of the FAT volume need {format_size(needed * shape.cluster_size)} in clusters of "
            f"{format_size(shape.cluster_size)}, but only {format_size(shape.clusters * shape.cluster_size)} are there."
        )

    def _count(self, item: Item, shape: Shape) -> int:
        """The clusters an item takes: none for an empty file and for the root directory of FAT12 and FAT16."""
        if item is self._items[0] and shape.bits != 32:
            return 0
        return max(-(-item.size // shape.cluster_size), int(item.folder))

    def _place(self) -> int:
        """Give every item its clusters, one behind the other; how many those are."""
        cluster = 2
        for item in self._items:
            count = self._count(item, self.shape)
            item.first = cluster if count else 0
            cluster += count
        return cluster - 2

    def _reserved(self) -> bytes:
        """Boot sector, FSInfo and their copies; boot code behind them only where sectors keep their size."""
        shape = self.shape
        area = bytearray(shape.reserved * shape.sector_size)
        if (shape.sector_size, shape.bits == 32) == (self.old.sector_size, self.old.bits == 32):
            kept = self._source.read_at(0, min(self.old.reserved * self.old.sector_size, len(area)))
            area[: len(kept)] = kept
        boot = self._boot_sector()
        area[:_SECTOR] = boot
        if shape.bits == 32:
            area[_COPY * shape.sector_size : _COPY * shape.sector_size + _SECTOR] = boot
            for sector in (_FSINFO, _COPY + _FSINFO):
                area[sector * shape.sector_size : sector * shape.sector_size + _SECTOR] = self._info_sector()
        return bytes(area)

    def _boot_sector(self) -> bytes:
        shape = self.shape
        boot = bytearray(self._boot if (shape.bits == 32) == (self.old.bits == 32) else _narrowed(self._boot))
        small = shape.sectors if shape.bits != 32 and shape.sectors < 1 << 16 else 0
        per_cluster = shape.cluster_size // shape.sector_size
        struct.pack_into(
            "<HBHBHH", boot, 11, shape.sector_size, per_cluster, shape.reserved, shape.fats, shape.root_entries, small
        )
        struct.pack_into("<H", boot, 22, 0 if shape.bits == 32 else shape.fat_sectors)
        struct.pack_into("<I", boot, 32, 0 if small else shape.sectors)
        old_lba, new_lba = self._lbas
        if struct.unpack_from("<I", boot, _HIDDEN_AT)[0] == old_lba & 0xFFFFFFFF:
            struct.pack_into("<I", boot, _HIDDEN_AT, new_lba & 0xFFFFFFFF)
        if shape.bits == 32:
            # All tables are kept equal; the root directory begins at the first cluster.
            struct.pack_into("<IHHIHH", boot, 36, shape.fat_sectors, 0, 0, 2, _FSINFO, _COPY)
        elif boot[54:57] == b"FAT":
            boot[54:59] = f"FAT{shape.bits}".encode()
        # Bits that say "not unmounted": the copy is whole.
        boot[_STATE_32 if shape.bits == 32 else _STATE] &= 0xFC
        boot[510:512] = b"\x55\xaa"
        return bytes(boot)

    def _info_sector(self) -> bytes:
        info = bytearray(_SECTOR)
        struct.pack_into("<I", info, 0, 0x41615252)
        free = self.shape.clusters - self._used
        following = 2 + self._used if free else 0xFFFFFFFF
        struct.pack_into("<III", info, _FREE_AT - 4, 0x61417272, free, following)
        struct.pack_into("<I", info, 508, 0xAA550000)
        return bytes(info)

    def _table(self) -> bytes:
        """One FAT: every chain runs straight to its end."""
        bits = self.shape.bits
        end = (1 << min(bits, 28)) - 1
        entries = np.zeros(self.shape.clusters + 2, dtype=np.uint32)
        entries[0], entries[1] = end & ~0xFF | self._boot[21], end
        entries[2 : 2 + self._used] = np.arange(3, 3 + self._used, dtype=np.uint32)
        lasts = [item.first + self._count(item, self.shape) - 1 for item in self._items if item.first]
        entries[lasts] = end
        return _packed(entries, bits)

    def _item_bytes(self, item: Item) -> Iterator[bytes]:
        length = self._count(item, self.shape) * self.shape.cluster_size
        if item.folder:
            data = self._folder_bytes(item)
            yield data + bytes(length - len(data))
            return
        content: Content = self._filesystem.content(item.node)
        for piece in content.pieces():
            yield bytes(piece.size) if piece.data is None else piece.data
        yield bytes(length - item.size)

    def _folder_bytes(self, item: Item) -> bytes:
        root = self._items[0]
        # The parent of a folder in the root directory is cluster 0, whatever the kind (specification 6.5).
        parent = 0 if item.parent == 0 else self._items[item.parent].first
        made = bytearray()
        for record, child in zip(item.records, item.children, strict=True):
            if child:
                made += self._with_cluster(record, self._items[child].first)
            elif record[:11] in (_DOT, _DOTS) and item is not root:
                made += self._with_cluster(record, item.first if record[:11] == _DOT else parent)
            else:
                made += record
        return bytes(made)

    def _with_cluster(self, record: bytes, cluster: int) -> bytes:
        """A record that names another first cluster. FAT12 and FAT16 keep other things in the upper half."""
        made = bytearray(record)
        struct.pack_into("<H", made, 26, cluster & 0xFFFF)
        if self.old.bits == 32:
            struct.pack_into("<H", made, 20, cluster >> 16)
        return bytes(made)


def _narrowed(boot: bytes) -> bytes:
    """The boot sector of a FAT32 with the fields behind it where FAT12 and FAT16 have them, and without boot code.

    Drive, state, signature, serial number, label and name of the kind: 26 bytes from 64 on, which belong to 36.
    """
    return b"\xeb\x3c\x90" + boot[3:36] + boot[64:90] + bytes(_SECTOR - 62)


def _packed(entries: NDArray[np.uint32], bits: int) -> bytes:
    if bits == 32:
        return entries.astype("<u4").tobytes()
    if bits == 16:
        return entries.astype("<u2").tobytes()
    even = np.concatenate([entries, np.zeros(len(entries) % 2, dtype=np.uint32)]).reshape(-1, 2)
    low, high = even[:, 0], even[:, 1]
    triples = np.stack([low & 0xFF, low >> 8 | (high & 0x0F) << 4, high >> 4], axis=1).astype(np.uint8)
    return triples.tobytes()[: -(-len(entries) * 12 // 8)]


def gathered(pieces: Iterator[bytes], size: int = MIB) -> Iterator[bytes]:
    """The same bytes in pieces of ``size`` bytes; the last one may be shorter."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)
