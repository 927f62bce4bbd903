"""Extended attributes of ext filesystems, and their access lists in the form Linux gives them to programs.

Kernel: fs/ext4/xattr.h, fs/ext4/acl.h, include/uapi/linux/posix_acl_xattr.h.
"""

import struct
from collections.abc import Callable, Iterator

from core.errors import DamagedError
from images.browse.entry import Attribute

_ENTRY = struct.Struct("<BBHIII")
_PREFIXES = {1: "user.", 4: "trusted.", 6: "security.", 7: "system.", 8: "system.richacl"}
_LISTS = {2: "system.posix_acl_access", 3: "system.posix_acl_default"}
#: Tags of an access list's entries that are followed by a user or group.
_NAMED = (0x02, 0x08)
#: Bytes of one value at most (kernel: XATTR_SIZE_MAX).
_VALUE_LIMIT = 65536


def read_attributes(area: bytes, first: int, large: Callable[[int, int], bytes]) -> Iterator[Attribute]:
    """The attributes of one area.

    Args:
        area: what value offsets count from; first: where the entries begin.
        large: reads a value that has an inode of its own; takes inode and size.

    Raises:
        DamagedError: an entry or a value does not fit.
    """
    at = first
    while at + 4 <= len(area) and area[at : at + 4] != bytes(4):
        if at + 16 > len(area):
            raise DamagedError(f"An attribute's entry at {at} does not fit {len(area)} bytes.")
        length, index, offset, inode, size, _ = _ENTRY.unpack_from(area, at)
        name = area[at + 16 : at + 16 + length]
        inside = inode or offset + size <= len(area)
        if len(name) != length or size > _VALUE_LIMIT or not inside:
            raise DamagedError(f"An attribute at {at}: a name of {length} and a value of {size} bytes at {offset}.")
        value = large(inode, size) if inode else area[offset : offset + size]
        if index in _LISTS:
            yield Attribute(_LISTS[index], _access_list(value))
        elif index in _PREFIXES:
            yield Attribute(_PREFIXES[index] + name.decode("utf-8", "surrogateescape"), value)
        at += 16 + (length + 3) // 4 * 4


def _access_list(stored: bytes) -> bytes:
    """On disk only named users and groups have an id; programs see one in every entry."""
    if stored[:4] != b"\x01\0\0\0":
        raise DamagedError(f"An access list of version {stored[:4].hex()}, expected 01000000.")
    given, at = [b"\x02\0\0\0"], 4
    while at < len(stored):
        tag, permissions = struct.unpack_from("<HH", stored, at)
        at += 4
        named = 0xFFFFFFFF
        if tag in _NAMED:
            (named,) = struct.unpack_from("<I", stored, at)
            at += 4
        given.append(struct.pack("<HHI", tag, permissions, named))
    return b"".join(given)
