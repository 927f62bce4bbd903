"""Files of btrfs on one device, all subvolumes and snapshots.

``dissect.btrfs`` describes superblock and chunks and decompresses LZO. The trees are searched here, because the
library (1.10) checks no node, can run in circles on a damaged one, needs another package for zstandard, and shows the
placeholders of subvolumes inside snapshots as the subvolumes. Each node is checked: its checksum where it is CRC-32C,
its address, its level. The log tree (what was synced in the last seconds before a crash) is not played.

Structures: kernel, include/uapi/linux/btrfs_tree.h.
"""

import itertools
import stat
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator

import msgspec
import zstandard
from dissect.btrfs.c_btrfs import c_btrfs
from dissect.btrfs.stream import decode_extent
from dissect.util.hash import crc32c

from core.errors import DamagedError
from core.units import KIB, MIB
from images.browse.entry import (
    Attribute,
    Child,
    Content,
    Entry,
    Kind,
    Piece,
    Segment,
    UnreadableError,
    inline_content,
    stored_content,
)
from images.browse.ext import MODES
from images.model.extents import Extent
from images.sources import BlockSource

_SUPERBLOCK = 64 * KIB
_CRC32C = 0
_FS_TREE, _CHUNK_TREE = 5, 3
_INODE_ITEM, _INODE_REF, _XATTR_ITEM, _DIR_ENTRY, _DIR_INDEX, _EXTENT_DATA = 1, 12, 24, 84, 96, 108
_ROOT_ITEM, _ROOT_BACKREF, _ROOT_REF, _CHUNK_ITEM = 132, 144, 156, 228
_FIRST_CHUNK_TREE = 256
_SUBVOLUME_ROOT = 256
#: The folder in the tree of trees that has the default subvolume, by this name (BTRFS_ROOT_TREE_DIR_OBJECTID).
_ROOT_FOLDER, _DEFAULT = 6, "default"
#: Folders above a subvolume at most, those of the subvolumes around it counted.
_DEPTH = 300
#: The inode of a placeholder, where a snapshot has no copy of a subvolume (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID).
_PLACEHOLDER = 2
_HEADER_SIZE, _ITEM_SIZE, _POINTER_SIZE = 101, 25, 33
_KEY = struct.Struct("<QBQ")
_INODE = struct.Struct("<5Q4I3Q32xqIqIqI")
_DIR_ITEM = struct.Struct("<QBQQHHB")
#: In front of a name: the folder of a subvolume and its number there; the number of an entry.
_SUBVOLUME_HEAD, _LINK_HEAD = struct.Struct("<QQH"), struct.Struct("<QH")
_EXTENT_HEAD = struct.Struct("<QQBBHB")
_EXTENT_TAIL = struct.Struct("<4Q")
_INLINE, _REGULAR = 0, 1
_ZLIB, _LZO, _ZSTD = 1, 2, 3
_STRIPED = 0x8 | 0x40 | 0x80 | 0x100
_MAX = (1 << 64) - 1
#: Plain bytes of a compressed extent at most (BTRFS_MAX_UNCOMPRESSED is 128 KiB).
_COMPRESSED_LIMIT = MIB
_NODES = 512
_NODE_BITS = 64
_TYPES = {1: Kind.FILE, 2: Kind.FOLDER, 3: Kind.CHARACTER, 4: Kind.BLOCK, 5: Kind.FIFO, 6: Kind.SOCKET, 7: Kind.LINK}

Key = tuple[int, int, int]


class _Stored(msgspec.Struct, frozen=True):
    """A part of a file: plain bytes in the node (``inline``), or an extent of which ``inner`` bytes are passed over."""

    offset: int
    size: int
    compression: int
    plain: int
    logical: int
    length: int
    inner: int
    inline: bytes | None = None


class _Chunk(msgspec.Struct, frozen=True):
    """Logical addresses and where they lie in the volume."""

    logical: int
    length: int
    place: int


class BtrfsFilesystem:
    """See :class:`images.browse.entry.Filesystem`. A node is the id of a subvolume's tree and an inode number in it."""

    name = "btrfs"
    ignores_case = False
    root = _FS_TREE << _NODE_BITS | _SUBVOLUME_ROOT
    notes: tuple[str, ...] = ()

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        raw = source.read_at(_SUPERBLOCK, 4096)
        self._super = c_btrfs.btrfs_super_block(raw)
        sb = self._super
        if sb.num_devices != 1:
            raise UnreadableError(f"this btrfs lies on {sb.num_devices} devices; liferaft reads those on one")
        if not 4096 <= sb.nodesize <= 65536 or sb.root_level > 7 or sb.chunk_root_level > 7:
            raise DamagedError(
                f"Superblock: nodes of {sb.nodesize} bytes, levels {sb.root_level}, {sb.chunk_root_level}."
            )
        if sb.csum_type == _CRC32C and crc32c.crc32c(raw[32:]) != int.from_bytes(raw[:4], "little"):
            raise DamagedError(f"Superblock at {_SUPERBLOCK}: its checksum is wrong.")
        self._cache: dict[int, bytes] = {}
        self._chunks: list[_Chunk] = []
        self._starts: list[int] = []
        self._read_chunks()
        self._trees: dict[int, tuple[int, int]] = {}
        if sb.log_root:
            self.notes = ("its log was not played: what was synced just before the capture may be missing",)

    @property
    def default(self) -> str:
        """The path of the subvolume that is mounted when none is named (``btrfs subvolume set-default``)."""
        low, high = (_ROOT_FOLDER, _DIR_ENTRY, 0), (_ROOT_FOLDER, _DIR_ENTRY, _MAX)
        tree = _FS_TREE
        for _, data in self._search(self._super.root, self._super.root_level, low, high):
            tree = next((location[0] for location, _, name, _ in _dir_items(data) if name == _DEFAULT), tree)
        names: list[str] = []
        folder = _SUBVOLUME_ROOT
        while (tree, folder) != (_FS_TREE, _SUBVOLUME_ROOT):
            if folder == _SUBVOLUME_ROOT:
                tree, folder, name = self._above_subvolume(tree)
            else:
                folder, name = self._above_folder(tree, folder)
            names.append(name)
            if len(names) > _DEPTH:
                raise DamagedError(f"The default subvolume lies deeper than {_DEPTH} folders.")
        return "/" + "/".join(reversed(names))

    def _above_subvolume(self, tree: int) -> tuple[int, int, str]:
        """The tree and the folder that a subvolume lies in, and its name there."""
        low, high = (tree, _ROOT_BACKREF, 0), (tree, _ROOT_BACKREF, _MAX)
        for key, data in self._search(self._super.root, self._super.root_level, low, high):
            folder, _, length = _SUBVOLUME_HEAD.unpack_from(data)
            return key[2], folder, _name(data, _SUBVOLUME_HEAD.size, length)
        raise DamagedError(f"The default subvolume, tree {tree}, lies in no other.")

    def _above_folder(self, tree: int, folder: int) -> tuple[int, str]:
        """The folder that one lies in, and its name there."""
        for key, data in self._items(tree, (folder, _INODE_REF, 0), (folder, _INODE_REF, _MAX)):
            _, length = _LINK_HEAD.unpack_from(data)
            return key[2], _name(data, _LINK_HEAD.size, length)
        raise DamagedError(f"Inode {folder} of tree {tree} lies in no folder.")

    def children(self, node: int) -> Iterator[Child]:
        tree, number = node >> _NODE_BITS, node & _MAX
        if number == _PLACEHOLDER:
            return
        if stat.S_IFMT(self._inode(node)[8]) != stat.S_IFDIR:
            raise DamagedError(f"Inode {number} of tree {tree} is no folder.")
        for _, data in self._items(tree, (number, _DIR_INDEX, 0), (number, _DIR_INDEX, _MAX)):
            for location, kind, name, _ in _dir_items(data):
                yield Child(name, self._node(tree, number, location), _TYPES.get(kind))

    def entry(self, node: int) -> Entry:
        number = node & _MAX
        if number == _PLACEHOLDER:
            return Entry(node=node, kind=Kind.FOLDER, size=0, mode=0o755, mtime=0, atime=0, ctime=0)
        fields = self._inode(node)
        kind = MODES.get(stat.S_IFMT(fields[8]))
        if kind is None:
            raise DamagedError(f"Inode {number}: mode {fields[8]:o} is no file.")
        device = fields[9]
        return Entry(
            node=node,
            kind=kind,
            size=fields[2] if kind in (Kind.FILE, Kind.LINK) else 0,
            mode=stat.S_IMODE(fields[8]),
            uid=fields[6],
            gid=fields[7],
            atime=fields[12] * 1_000_000_000 + fields[13],
            ctime=fields[14] * 1_000_000_000 + fields[15],
            mtime=fields[16] * 1_000_000_000 + fields[17],
            links=max(fields[5], 1),
            target=self._target(node) if kind is Kind.LINK else "",
            # Packed as in the kernel's new_encode_dev for user space: 12 bits and 20 bits around them.
            major=device >> 20,
            minor=device & 0xFFFFF,
        )

    def attributes(self, node: int) -> tuple[Attribute, ...]:
        tree, number = node >> _NODE_BITS, node & _MAX
        found = [
            Attribute(name, value)
            for _, data in self._items(tree, (number, _XATTR_ITEM, 0), (number, _XATTR_ITEM, _MAX))
            for _, _, name, value in _dir_items(data)
        ]
        return tuple(sorted(found, key=lambda attribute: attribute.name))

    def content(self, node: int, stream: str = "") -> Content:
        if stream:
            raise DamagedError("btrfs has no alternate streams.")
        size = self._inode(node)[2]
        parts = tuple(self._parts(node, size))
        if all(part.inline is not None for part in parts) and len(parts) == 1:
            return inline_content((parts[0].inline or b"")[:size].ljust(size, b"\0"))
        if all(part.inline is None and not part.compression for part in parts):
            segments = [
                segment for part in parts for segment in self._placed(part.offset, part.logical + part.inner, part.size)
            ]
            return stored_content(self._source, size, tuple(segments))
        extents = [
            Extent(segment.place, segment.place + segment.size)
            for part in parts
            if part.inline is None
            for segment in self._placed(0, part.logical, part.length)
        ]

        def read(start: int, end: int) -> Iterator[Piece]:
            position = start
            for part in parts:
                first, last = max(part.offset, start), min(part.offset + part.size, end)
                if first >= last:
                    continue
                if position < first:
                    yield Piece(position, first - position, None)
                position = last
                while first < last:
                    count = min(last - first, MIB)
                    yield Piece(first, count, self._decoded(part, first - part.offset, count))
                    first += count

        return Content(size, segments=None, extents=tuple(extents), read=read, recipe=repr(parts))

    def _parts(self, node: int, size: int) -> Iterator[_Stored]:
        """The stored parts of a file, in order, clipped to its size; holes and reserved space are left out."""
        tree, number = node >> _NODE_BITS, node & _MAX
        end = 0
        for key, data in self._items(tree, (number, _EXTENT_DATA, 0), (number, _EXTENT_DATA, _MAX)):
            offset = key[2]
            if offset < end:
                raise DamagedError(f"Inode {number}: an extent at {offset} overlaps the one before it, up to {end}.")
            _, plain, compression, encryption, other, kind = _EXTENT_HEAD.unpack_from(data)
            if encryption or other or compression > _ZSTD:
                raise UnreadableError(f"it is encoded by method {compression}, {encryption}, {other}")
            if kind == _INLINE:
                body = data[_EXTENT_HEAD.size :]
                if plain > _COMPRESSED_LIMIT:
                    raise DamagedError(f"Inode {number}: {plain} bytes in a node.")
                body = self._decompressed(body, compression, plain) if compression else body[:plain]
                end = offset + plain
                yield _Stored(offset, min(plain, max(size - offset, 0)), 0, plain, 0, 0, 0, body.ljust(plain, b"\0"))
                continue
            logical, length, inner, count = _EXTENT_TAIL.unpack_from(data, _EXTENT_HEAD.size)
            end = offset + count
            if compression and max(plain, length) > _COMPRESSED_LIMIT:
                raise DamagedError(f"Inode {number}: a compressed extent of {length} bytes for {plain}.")
            if inner + count > plain:
                raise DamagedError(f"Inode {number}: {count} bytes from {inner} of an extent of {plain}.")
            if kind == _REGULAR and logical and offset < size:
                yield _Stored(offset, min(count, size - offset), compression, plain, logical, length, inner)

    def _decoded(self, part: _Stored, start: int, count: int) -> bytes:
        if part.inline is not None:
            return part.inline[start : start + count]
        if not part.compression:
            return self._logical(part.logical + part.inner + start, count)
        plain = self._decompressed(self._logical(part.logical, part.length), part.compression, part.plain)
        return plain[part.inner + start : part.inner + start + count]

    def _decompressed(self, data: bytes, method: int, size: int) -> bytes:
        """Exactly ``size`` plain bytes."""
        if method == _ZLIB:
            plain = zlib.decompressobj().decompress(data, size)
        elif method == _LZO:
            plain = bytes(decode_extent(data, _LZO, 0, self._super.sectorsize))[:size]
        else:
            plain = zstandard.ZstdDecompressor().stream_reader(data).read(size)
        if len(plain) != size:
            # The last block of a file may be kept shorter than its sector.
            if size - len(plain) >= self._super.sectorsize:
                raise DamagedError(f"A compressed extent has {len(plain)} bytes, expected {size}.")
            plain = plain.ljust(size, b"\0")
        return plain

    def _target(self, node: int) -> str:
        return self.content(node).read(4096).decode("utf-8", "surrogateescape")

    def _inode(self, node: int) -> tuple[int, ...]:
        tree, number = node >> _NODE_BITS, node & _MAX
        for _, data in self._items(tree, (number, _INODE_ITEM, 0), (number, _INODE_ITEM, _MAX)):
            return _INODE.unpack_from(data)
        raise DamagedError(f"Tree {tree} has no inode {number}.")

    def _node(self, tree: int, folder: int, location: Key) -> int:
        """The node an entry names: an inode of the same tree, or the top of a subvolume."""
        if location[1] != _ROOT_ITEM:
            return tree << _NODE_BITS | location[0]
        reference = (tree, _ROOT_REF, location[0])
        for _, data in self._search(self._super.root, self._super.root_level, reference, reference):
            if int.from_bytes(data[:8], "little") == folder:
                return location[0] << _NODE_BITS | _SUBVOLUME_ROOT
        return tree << _NODE_BITS | _PLACEHOLDER

    def _items(self, tree: int, low: Key, high: Key) -> Iterator[tuple[Key, bytes]]:
        if tree not in self._trees:
            found = self._search(
                self._super.root, self._super.root_level, (tree, _ROOT_ITEM, 0), (tree, _ROOT_ITEM, _MAX)
            )
            for _, data in found:
                # Behind the inode of 160 bytes: generation, first inode, address; the level is the 239th byte.
                self._trees[tree] = int.from_bytes(data[176:184], "little"), data[238]
            if tree not in self._trees:
                raise DamagedError(f"There is no tree {tree}.")
        yield from self._search(*self._trees[tree], low, high)

    def _search(
        self, address: int, level: int, low: Key, high: Key, bounds: tuple[Key, Key] = ((0, 0, 0), (_MAX, 255, _MAX))
    ) -> Iterator[tuple[Key, bytes]]:
        """The items of a tree whose keys lie between ``low`` and ``high``, both included, in order.

        Args:
            bounds: first and last key that the pointer to this node allows. They get narrower on the way down, so that
                no node is reached twice.
        """
        node = self._read_node(address, level)
        (count,) = struct.unpack_from("<I", node, 96)
        each = _POINTER_SIZE if level else _ITEM_SIZE
        if _HEADER_SIZE + count * each > len(node):
            raise DamagedError(f"Tree node at {address}: {count} items.")
        keys = [_KEY.unpack_from(node, _HEADER_SIZE + index * each) for index in range(count)]
        ordered = all(first < second for first, second in itertools.pairwise(keys))
        if not ordered or (keys and not bounds[0] <= keys[0] <= keys[-1] <= bounds[1]):
            raise DamagedError(f"Tree node at {address}: its keys are out of order.")
        # Before a node's first key comes what the pointer to its left leads to.
        start = max(bisect_right(keys, low) - 1, 0)
        for index in range(start, count):
            if keys[index] > high:
                return
            at = _HEADER_SIZE + index * each + _KEY.size
            if level:
                last = keys[index + 1] if index + 1 < count else bounds[1]
                child = int.from_bytes(node[at : at + 8], "little")
                yield from self._search(child, level - 1, low, high, (keys[index], last))
            elif keys[index] >= low:
                offset, size = struct.unpack_from("<II", node, at)
                if _HEADER_SIZE + offset + size > len(node):
                    raise DamagedError(f"Tree node at {address}: item {index} of {size} bytes at {offset}.")
                yield keys[index], node[_HEADER_SIZE + offset : _HEADER_SIZE + offset + size]

    def _read_node(self, address: int, level: int) -> bytes:
        node = self._cache.pop(address, None)
        if node is None:
            node = self._logical(address, self._super.nodesize)
            if self._super.csum_type == _CRC32C and crc32c.crc32c(node[32:]) != int.from_bytes(node[:4], "little"):
                raise DamagedError(f"Tree node at {address}: its checksum is wrong.")
        if int.from_bytes(node[48:56], "little") != address or node[100] != level:
            raise DamagedError(f"Tree node at {address}: address or level {node[100]} is not as expected ({level}).")
        self._cache[address] = node
        if len(self._cache) > _NODES:
            del self._cache[next(iter(self._cache))]
        return node

    def _read_chunks(self) -> None:
        """The map from logical addresses: first what the superblock says, by which the whole map can be read."""
        array, at = bytes(self._super.sys_chunk_array)[: self._super.sys_chunk_array_size], 0
        while at + _KEY.size + 48 <= len(array):
            _, kind, logical = _KEY.unpack_from(array, at)
            stripes = int.from_bytes(array[at + _KEY.size + 44 : at + _KEY.size + 46], "little")
            if kind != _CHUNK_ITEM:
                raise DamagedError(f"Superblock: item of kind {kind} in the list of system chunks.")
            self._add_chunk(logical, array[at + _KEY.size :])
            at += _KEY.size + 48 + 32 * stripes
        low, high = (_FIRST_CHUNK_TREE, _CHUNK_ITEM, 0), (_FIRST_CHUNK_TREE, _CHUNK_ITEM, _MAX)
        found = list(self._search(self._super.chunk_root, self._super.chunk_root_level, low, high))
        self._chunks, self._starts = [], []
        for key, data in found:
            self._add_chunk(key[2], data)

    def _add_chunk(self, logical: int, data: bytes) -> None:
        length, _, _, kind = struct.unpack_from("<4Q", data)
        stripes = int.from_bytes(data[44:46], "little")
        if kind & _STRIPED and stripes > 1:
            raise UnreadableError("this btrfs spreads its data over several stripes; liferaft reads single and DUP")
        if not stripes or len(data) < 80:
            raise DamagedError(f"Chunk at {logical}: {stripes} stripes.")
        place = int.from_bytes(data[56:64], "little")
        if self._starts and logical < self._starts[-1] + self._chunks[-1].length:
            raise DamagedError(f"Chunk at {logical} overlaps the one before it.")
        self._chunks.append(_Chunk(logical, length, place))
        self._starts.append(logical)

    def _placed(self, offset: int, logical: int, size: int) -> Iterator[Segment]:
        """Where logical bytes lie in the volume."""
        while size > 0:
            index = bisect_right(self._starts, logical) - 1
            chunk = self._chunks[index] if index >= 0 else None
            if chunk is None or logical >= chunk.logical + chunk.length:
                raise DamagedError(f"Logical address {logical} lies in no chunk.")
            count = min(size, chunk.logical + chunk.length - logical)
            yield Segment(offset, count, chunk.place + logical - chunk.logical)
            offset, logical, size = offset + count, logical + count, size - count

    def _logical(self, logical: int, size: int) -> bytes:
        parts = list(self._placed(0, logical, size))
        for part in parts:
            if part.place + part.size > self._source.size:
                raise DamagedError(f"Logical address {logical} lies at {part.place}, outside the volume.")
        return b"".join(self._source.read_at(part.place, part.size) for part in parts)


def _name(data: bytes, start: int, length: int) -> str:
    if not length or start + length > len(data):
        raise DamagedError(f"A name of {length} bytes in an item of {len(data)}.")
    return data[start : start + length].decode("utf-8", "surrogateescape")


def _dir_items(data: bytes) -> Iterator[tuple[Key, int, str, bytes]]:
    """The entries of a folder or attribute item: location, kind, name, value. Names whose hash is equal share one."""
    at = 0
    while at < len(data):
        object_id, kind, offset, _, value_length, name_length, entry_kind = _DIR_ITEM.unpack_from(data, at)
        middle = at + _DIR_ITEM.size + name_length
        at = middle + value_length
        if at > len(data) or not name_length:
            raise DamagedError(f"An entry with a name of {name_length} and a value of {value_length} bytes.")
        name = data[middle - name_length : middle].decode("utf-8", "surrogateescape")
        yield (object_id, kind, offset), entry_kind, name, data[middle:at]
