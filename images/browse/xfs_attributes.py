"""Extended attributes of XFS: inside the inode, in leaves, and values in blocks of their own.

Structures: kernel, fs/xfs/libxfs/xfs_da_format.h; access lists: fs/xfs/libxfs/xfs_log_format.h and xfs_acl.h.
"""

import struct
from collections.abc import Iterator, Mapping

import msgspec

from core.errors import DamagedError
from images.browse.entry import Attribute
from images.sources import BlockSource

_LOCAL, _ROOT, _SECURE, _PARENT, _INCOMPLETE = 0x01, 0x02, 0x04, 0x08, 0x80
_LEAF_MAGICS, _NODE_MAGICS = (0xFBEE, 0x3BEE), (0xFEBE, 0x3EBE)
_VALUE_LIMIT = 65536
_DEPTH = 5
_LISTS = {"SGI_ACL_FILE": "system.posix_acl_access", "SGI_ACL_DEFAULT": "system.posix_acl_default"}
_ACL_ENTRY = struct.Struct(">IIHH")
_REMOTE_HEADER = 56


class StoredAttribute(msgspec.Struct, frozen=True):
    """An attribute as XFS keeps it: its namespace is in the flags."""

    flags: int
    name: bytes
    value: bytes


class AttributeFork(msgspec.Struct, frozen=True):
    """The blocks of an inode's attribute fork: their numbers in the fork, and their places in the volume."""

    source: BlockSource
    places: Mapping[int, int]
    block_size: int
    crc: bool

    def read(self, number: int) -> bytes:
        """One block."""
        if number not in self.places:
            raise DamagedError(f"The attribute fork has no block {number}.")
        return self.source.read_at(self.places[number], self.block_size)


def short_attributes(data: bytes) -> Iterator[StoredAttribute]:
    """Attributes that lie in the inode."""
    count, at = data[2], 4
    for _ in range(count):
        name_length, value_length, flags = data[at : at + 3]
        middle = at + 3 + name_length
        at = middle + value_length
        if at > len(data):
            raise DamagedError(f"An attribute ends at {at} of a fork of {len(data)} bytes.")
        if not flags & (_PARENT | _INCOMPLETE):
            yield StoredAttribute(flags, data[middle - name_length : middle], data[middle:at])


def leaf_attributes(fork: AttributeFork) -> Iterator[StoredAttribute]:
    """Attributes that lie in blocks: one leaf, or a tree of them."""
    yield from _below(fork, 0, _DEPTH, set())


def _below(fork: AttributeFork, number: int, depth: int, seen: set[int]) -> Iterator[StoredAttribute]:
    if number in seen or not depth:
        raise DamagedError(f"Block {number} of an attribute fork stands in its tree twice, or too deep.")
    seen.add(number)
    block = fork.read(number)
    (magic,) = struct.unpack_from(">H", block, 8)
    if magic in _LEAF_MAGICS:
        yield from _leaf(fork, block)
        return
    if magic not in _NODE_MAGICS:
        raise DamagedError(f"Block {number} of an attribute fork has magic {magic:#06x}.")
    (count,) = struct.unpack_from(">H", block, 56 if fork.crc else 12)
    first = 64 if fork.crc else 16
    if first + 8 * count > len(block):
        raise DamagedError(f"Block {number} of an attribute fork names {count} others.")
    for at in range(first, first + 8 * count, 8):
        yield from _below(fork, struct.unpack_from(">I", block, at + 4)[0], depth - 1, seen)


def _leaf(fork: AttributeFork, block: bytes) -> Iterator[StoredAttribute]:
    (count,) = struct.unpack_from(">H", block, 56 if fork.crc else 12)
    first = 80 if fork.crc else 32
    if first + 8 * count > len(block):
        raise DamagedError(f"An attribute leaf of {count} entries in {len(block)} bytes.")
    for at in range(first, first + 8 * count, 8):
        place, flags = struct.unpack_from(">HB", block, at + 4)
        if flags & (_PARENT | _INCOMPLETE):
            continue
        if flags & _LOCAL:
            length, name_length = struct.unpack_from(">HB", block, place)
            name = block[place + 3 : place + 3 + name_length]
            value = block[place + 3 + name_length : place + 3 + name_length + length]
        else:
            number, length, name_length = struct.unpack_from(">IIB", block, place)
            name = block[place + 9 : place + 9 + name_length]
            value = _remote(fork, number, length)
        if len(name) != name_length or len(value) != length:
            raise DamagedError(f"An attribute at {place} of a leaf: {name_length} and {length} bytes do not fit.")
        yield StoredAttribute(flags, name, value)


def _remote(fork: AttributeFork, number: int, length: int) -> bytes:
    """A value in blocks of its own; in version 5 each begins with a header."""
    if length > _VALUE_LIMIT:
        raise DamagedError(f"An attribute's value of {length} bytes.")
    value = b""
    while len(value) < length:
        block = fork.read(number)
        if fork.crc:
            magic, offset, size = struct.unpack_from(">4sII", block)
            if magic != b"XARM" or offset != len(value) or not 0 < size <= len(block) - _REMOTE_HEADER:
                raise DamagedError(f"A value block with magic {magic.hex()}, {size} bytes at {offset}.")
            value += block[_REMOTE_HEADER : _REMOTE_HEADER + size]
        else:
            value += block[: length - len(value)]
        number += 1
    return value[:length]


def named(stored: StoredAttribute) -> Attribute:
    """With the name and the value that Linux shows."""
    name = stored.name.decode("utf-8", "surrogateescape")
    if stored.flags & _ROOT and name in _LISTS:
        return Attribute(_LISTS[name], _access_list(stored.value))
    prefix = "trusted." if stored.flags & _ROOT else "security." if stored.flags & _SECURE else "user."
    return Attribute(prefix + name, stored.value)


def _access_list(value: bytes) -> bytes:
    (count,) = struct.unpack_from(">I", value)
    if 4 + _ACL_ENTRY.size * count > len(value):
        raise DamagedError(f"An access list of {count} entries in {len(value)} bytes.")
    given = [b"\x02\0\0\0"]
    for at in range(4, 4 + _ACL_ENTRY.size * count, _ACL_ENTRY.size):
        tag, identity, permissions, _ = _ACL_ENTRY.unpack_from(value, at)
        # Only named users (2) and groups (8) have an id that means something.
        given.append(struct.pack("<HHI", tag, permissions, identity if tag in (0x02, 0x08) else 0xFFFFFFFF))
    return b"".join(given)
