"""Where btrfs keeps its trees: what is kept of a btrfs whatever partclone says.

partclone finds the blocks of trees by walking them from the tree of roots, and misses those of a subvolume whose
deletion was interrupted (btrfs-progs' test image 042-half-dropped-inode). So every chunk that may hold a tree is kept
whole; for file data partclone reads the extent tree, which lists all of it. It maps the first copy alone: where data
is kept twice on the device (profile DUP), its chunks are kept whole, too. Reads the superblock and the chunk tree;
structures: kernel include/uapi/linux/btrfs_tree.h.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator

import msgspec

from core.errors import DamagedError
from images.filesystems.checksums import CRC32C, crc
from images.model.extents import Extent, merge
from images.sources import BlockSource

OFFSET = 64 << 10
SIZE = 4096

_ARRAY_OFFSET, _ARRAY_SIZE = 811, 2048
_HEADER, _KEY, _ITEM, _POINTER = 101, 17, 25, 33
_CHUNK, _STRIPE = 48, 32
_CHUNK_KEY = 228
_MAX_LEVEL = 7
#: Nodes of a chunk tree: some 100 chunks lie in a node of 16 KiB, so this is enough for a pebibyte.
_MAX_NODES = 20000
_DATA, _TREES, _DUP_OR_RAID1 = 0x1, 0x2 | 0x4, 0x20 | 0x10 | 0x200 | 0x400
_STRIPED = 0x8 | 0x40 | 0x80 | 0x100

_DIGESTS: dict[int, Callable[[bytes], bytes]] = {
    0: lambda data: (crc(CRC32C, 0xFFFFFFFF, data) ^ 0xFFFFFFFF).to_bytes(4, "little"),
    2: lambda data: hashlib.sha256(data).digest(),
    3: lambda data: hashlib.blake2b(data, digest_size=32).digest(),
}  # 1 is xxhash, which partclone checks


class _Chunk(msgspec.Struct, frozen=True):
    """A range of logical addresses and where its copies lie on the device, in bytes."""

    logical: int
    length: int
    holds_trees: bool
    offsets: tuple[int, ...]

    @property
    def kept(self) -> bool:
        """Whether partclone's word is not enough for it."""
        return self.holds_trees or len(self.offsets) > 1


def checksum_matches(content: bytes, kind: int) -> bool:
    """Whether a superblock or node agrees with the checksum in its first 32 bytes; true of one we cannot compute."""
    return kind not in _DIGESTS or content.startswith(_DIGESTS[kind](content[32:]))


def tree_extents(source: BlockSource, superblock: bytes) -> tuple[Extent, ...]:
    """The bytes of all chunks that may hold trees, or hold anything twice, merged.

    Args:
        superblock: the 4096 bytes of a superblock that was found sound; the filesystem lies on one device.

    Raises:
        DamagedError: the chunk tree cannot be followed, or a chunk leaves the volume.
        DeviceError: the source cannot be read.
    """
    system = list(_system_chunks(superblock))
    root, level = struct.unpack_from("<Q", superblock, 88)[0], superblock[199]
    found: list[Extent] = []
    for chunk in (*system, *_walk(source, superblock, system, root, level)):
        for offset in chunk.offsets:
            if offset + chunk.length > source.size:
                raise DamagedError(f"its chunk at {chunk.logical} leaves the volume")
            if chunk.kept:
                found.append(Extent(offset, offset + chunk.length))
    return tuple(merge(sorted(found)))


def _system_chunks(superblock: bytes) -> Iterator[_Chunk]:
    """The chunks of the chunk tree itself, which the superblock lists."""
    size = struct.unpack_from("<I", superblock, 160)[0]
    if not 0 < size <= _ARRAY_SIZE:
        raise DamagedError(f"its superblock is damaged: {size} bytes of system chunks")
    content, position = superblock[_ARRAY_OFFSET : _ARRAY_OFFSET + size], 0
    while position < size:
        chunk, length = _chunk(content, position, position + _KEY)
        position += _KEY + length
        yield chunk


def _walk(source: BlockSource, superblock: bytes, system: list[_Chunk], root: int, level: int) -> Iterator[_Chunk]:
    """All chunks of the chunk tree. Each step goes one level down, so that no circle can be walked."""
    size = struct.unpack_from("<I", superblock, 148)[0]
    kind = struct.unpack_from("<H", superblock, 196)[0]
    if level > _MAX_LEVEL:
        raise DamagedError(f"its chunk tree has {level} levels")
    places, seen = [(root, level)], 0
    while places:
        logical, level = places.pop()
        seen += 1
        node = source.read_at(_physical(system, logical, size), size)
        address, items, found = struct.unpack_from("<Q40xIB", node, 48)
        room = (size - _HEADER) // (_POINTER if level else _ITEM)
        if not checksum_matches(node, kind) or address != logical or found != level or items > room:
            raise DamagedError(f"a node of its chunk tree, at {logical}, is damaged")
        if seen + len(places) > _MAX_NODES:
            raise DamagedError(f"its chunk tree has more than {_MAX_NODES} nodes")
        for number in range(items):
            if level:
                pointer = struct.unpack_from("<Q", node, _HEADER + number * _POINTER + _KEY)[0]
                places.append((pointer, level - 1))
                continue
            place = _HEADER + number * _ITEM
            if node[place + 8] == _CHUNK_KEY:
                yield _chunk(node, place, _HEADER + struct.unpack_from("<I", node, place + _KEY)[0])[0]


def _chunk(content: bytes, key: int, item: int) -> tuple[_Chunk, int]:
    """The chunk whose key and item lie at these places, and the item's length in bytes."""
    if item + _CHUNK + _STRIPE > len(content):
        raise DamagedError("a chunk item is cut short")
    logical = struct.unpack_from("<Q", content, key + 9)[0]
    length, kind, stripes = struct.unpack_from("<Q16xQ12xH", content, item)
    size = _CHUNK + stripes * _STRIPE
    copies = stripes == 1 or (kind & _DUP_OR_RAID1 and not kind & _STRIPED)
    if not stripes or item + size > len(content) or not copies or length > 1 << 60:
        raise DamagedError(f"its chunk at {logical} has {stripes} stripes of kind {kind:#x}")
    offsets = tuple(
        struct.unpack_from("<Q", content, item + _CHUNK + number * _STRIPE + 8)[0] for number in range(stripes)
    )
    return _Chunk(logical, length, bool(kind & _TREES) or not kind & _DATA, offsets), size


def _physical(system: list[_Chunk], logical: int, size: int) -> int:
    for chunk in system:
        if chunk.logical <= logical and logical + size <= chunk.logical + chunk.length:
            return chunk.offsets[0] + logical - chunk.logical
    raise DamagedError(f"its chunk tree points to {logical}, where no system chunk is")
