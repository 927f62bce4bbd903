"""Files of ext2, ext3 and ext4.

``dissect.extfs`` finds superblock and group descriptors. Inodes, extent trees, folders and attributes are read here,
because the library (3.15) shifts data behind unwritten extents, shows block 0 in place of a hole at the end, cuts
inline data at 60 bytes, and ends a damaged folder in silence. The journal is not played: a filesystem that was captured
while it was mounted shows the state its journal would have corrected, and says so.

Structures: kernel, Documentation/filesystems/ext4/ and fs/ext4/ext4.h, xattr.h, acl.h.
"""

import stat
import struct
from collections.abc import Iterator
from typing import Any

from dissect.extfs import ExtFS

from core.errors import DamagedError
from images.browse.entry import (
    Attribute,
    Child,
    Content,
    Entry,
    Kind,
    Segment,
    UnreadableError,
    clip_segments,
    inline_content,
    stored_content,
)
from images.browse.ext_attributes import read_attributes
from images.browse.stream import SourceStream
from images.filesystems.c_ext import Incompat
from images.sources import BlockSource

_INODE = struct.Struct("<HHIIIIIHHIII60sIIIIHHHHHH")
_EXTRA = struct.Struct("<HHIII")
_EXTENT = struct.Struct("<IHHI")
_INDEX = struct.Struct("<IIHH")
_HEADER = struct.Struct("<HHHHI")
_ENCRYPTED, _EXTENTS, _INLINE = 0x800, 0x80000, 0x10000000
_EXTENT_MAGIC = 0xF30A
#: Levels of an extent tree at most (kernel: EXT4_MAX_EXTENT_DEPTH).
_DEPTH = 5
_UNWRITTEN = 0x8000
_DIRECT = 12
#: Bytes of a symbolic link at most (kernel: one page).
_LINK_LIMIT = 4096
_TYPES = {1: Kind.FILE, 2: Kind.FOLDER, 3: Kind.CHARACTER, 4: Kind.BLOCK, 5: Kind.FIFO, 6: Kind.SOCKET, 7: Kind.LINK}

MODES = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.FOLDER,
    stat.S_IFLNK: Kind.LINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
}


class _Groups(ExtFS):  # type: ignore[misc]
    """The library's filesystem with group descriptors where ``meta_bg`` puts them."""

    groups_offset: int

    def _read_group_desc(self, group_num: int) -> Any:
        sb = self.sb
        each = self.block_size // self._group_desc_size
        if not sb.s_feature_incompat & Incompat.META_BG or group_num // each < sb.s_first_meta_bg:
            return super()._read_group_desc(group_num)
        # The descriptors of a meta group lie in its first group, behind the superblock's copy where there is one.
        first = group_num // each * each
        block = sb.s_first_data_block + first * sb.s_blocks_per_group + (1 if _has_superblock(sb, first) else 0)
        plain = self.groups_offset
        self.groups_offset = block * self.block_size - first * self._group_desc_size
        try:
            return super()._read_group_desc(group_num)
        finally:
            self.groups_offset = plain


def _has_superblock(sb: Any, group: int) -> bool:
    """Whether a group begins with a copy of the superblock (kernel: ext4_bg_has_super)."""
    compat, ro_compat = sb.s_feature_compat, sb.s_feature_ro_compat
    if group == 0:
        return True
    if compat & 0x200:
        return group in tuple(sb.s_backup_bgs)
    if group == 1 or not ro_compat & 0x1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


class _Inode:
    """The fields of an inode that matter here, checked for nothing but their length."""

    def __init__(self, number: int, raw: bytes) -> None:
        fields = _INODE.unpack_from(raw)
        self.number, self.raw = number, raw
        self.mode, uid, size_low, atime, ctime, mtime, _, gid, self.links = fields[:9]
        self.blocks, self.flags, _, self.block = fields[9:13]
        _, acl_low, size_high, _, _, acl_high, uid_high, gid_high = fields[13:21]
        self.size = size_low | size_high << 32
        self.uid, self.gid = uid | uid_high << 16, gid | gid_high << 16
        self.acl = acl_low | acl_high << 32
        self.extra = struct.unpack_from("<H", raw, 128)[0] if len(raw) > 132 else 0
        #: The fields behind the first 128 bytes count only as far as the inode says it has them.
        extra = [struct.unpack_from("<I", raw, at)[0] if self.extra >= at - 124 else 0 for at in (132, 136, 140)]
        self.ctime, self.mtime, self.atime = (_time(*both) for both in zip((ctime, mtime, atime), extra, strict=True))


def _time(seconds: int, extra: int) -> int:
    """Nanoseconds since 1970: signed seconds, two more bits of them, and nanoseconds."""
    signed = seconds - (1 << 32) if seconds >> 31 else seconds
    return (signed + ((extra & 3) << 32)) * 1_000_000_000 + (extra >> 2)


class ExtFilesystem:
    """See :class:`images.browse.entry.Filesystem`."""

    root = 2
    ignores_case = False
    default = "/"

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        # With bigalloc (clusters larger than blocks) files are read as without; the library refuses it at the door.
        cluster = source.read_at(1024 + 24, 4)
        self._fs = _Groups(SourceStream(source, {1024 + 28: cluster}))
        sb = self._fs.sb
        self._block_size: int = self._fs.block_size
        self._inode_size: int = sb.s_inode_size if sb.s_rev_level else 128
        if not 128 <= self._inode_size <= self._block_size or not 1024 <= self._block_size <= 65536:
            raise DamagedError(f"Superblock: inodes of {self._inode_size} bytes in blocks of {self._block_size}.")
        self._incompat: int = sb.s_feature_incompat
        self.name = f"ext{int(self._fs.type)}"
        self.notes: tuple[str, ...] = ()
        if self._incompat & Incompat.RECOVER:
            self.notes = ("its journal was not played: files that were being written may show an older or torn state",)

    def children(self, node: int) -> Iterator[Child]:
        inode = self._inode(node)
        if stat.S_IFMT(inode.mode) != stat.S_IFDIR:
            raise DamagedError(f"Inode {node} is no folder.")
        if inode.flags & _INLINE:
            # Four bytes name the parent, and there are no entries for . and ..
            yield from self._names(inode.block[4:], node)
            yield from self._names(self._inline_rest(inode), node)
            return
        for piece in self.content(node).pieces():
            data = bytes(piece.size) if piece.data is None else piece.data
            for at in range(0, len(data), self._block_size):
                if piece.data is not None:
                    yield from self._names(data[at : at + self._block_size], node)

    def _names(self, block: bytes, node: int) -> Iterator[Child]:
        at = 0
        while at + 8 <= len(block):
            number, length, name_length, kind = struct.unpack_from("<IHBB", block, at)
            # 64 KiB do not fit 16 bits (kernel: ext4_rec_len_from_disk).
            length = 65536 if length in (0, 65535) and len(block) == 65536 else length
            if length < 8 or length % 4 or at + length > len(block) or name_length + 8 > length:
                raise DamagedError(
                    f"Folder inode {node}: an entry of {length} bytes with a name of {name_length} at {at} of a block."
                )
            name = block[at + 8 : at + 8 + name_length]
            if number and name not in (b".", b"..") and name_length:
                known = _TYPES.get(kind) if self._incompat & Incompat.FILETYPE else None
                yield Child(name.decode("utf-8", "surrogateescape"), number, known)
            at += length

    def entry(self, node: int) -> Entry:
        inode = self._inode(node)
        kind = MODES.get(stat.S_IFMT(inode.mode))
        if kind is None or not inode.links:
            raise DamagedError(f"Inode {node}: mode {inode.mode:o} with {inode.links} links is no file.")
        major = minor = 0
        if kind in (Kind.CHARACTER, Kind.BLOCK):
            old, new = struct.unpack_from("<II", inode.block)
            major, minor = (
                (old >> 8 & 0xFF, old & 0xFF) if old else (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)
            )
        return Entry(
            node=node,
            kind=kind,
            size=inode.size if kind in (Kind.FILE, Kind.LINK) else 0,
            mode=stat.S_IMODE(inode.mode),
            uid=inode.uid,
            gid=inode.gid,
            mtime=inode.mtime,
            atime=inode.atime,
            ctime=inode.ctime,
            links=inode.links,
            target=self._target(inode) if kind is Kind.LINK else "",
            major=major,
            minor=minor,
        )

    def attributes(self, node: int) -> tuple[Attribute, ...]:
        inode = self._inode(node)
        found = [found for found in self._all_attributes(inode) if found.name != "system.data"]
        return tuple(sorted(found, key=lambda attribute: attribute.name))

    def content(self, node: int, stream: str = "") -> Content:
        inode = self._inode(node)
        if stream:
            raise DamagedError("ext filesystems have no alternate streams.")
        if inode.flags & _ENCRYPTED:
            raise UnreadableError("it is encrypted (fscrypt)")
        if inode.flags & _INLINE:
            return inline_content((inode.block + self._inline_rest(inode))[: inode.size].ljust(inode.size, b"\0"))
        found = self._extent_runs(inode) if inode.flags & _EXTENTS else self._block_runs(inode)
        return stored_content(self._source, inode.size, clip_segments(tuple(_joined(found)), inode.size))

    def _inode(self, number: int) -> _Inode:
        sb = self._fs.sb
        if not 1 <= number <= sb.s_inodes_count:
            raise DamagedError(f"Inode {number} is outside the {sb.s_inodes_count} of the filesystem.")
        group, index = divmod(number - 1, sb.s_inodes_per_group)
        found = self._fs._read_group_desc(group)
        wide = self._fs._group_desc_size >= 64 and self._incompat & Incompat.BIT64
        table = found.bg_inode_table_lo | (found.bg_inode_table_hi << 32 if wide else 0)
        at = table * self._block_size + index * self._inode_size
        if at + self._inode_size > self._source.size:
            raise DamagedError(f"Inode {number} lies at {at}, outside a volume of {self._source.size} bytes.")
        return _Inode(number, self._source.read_at(at, self._inode_size))

    def _target(self, inode: _Inode) -> str:
        if inode.size > _LINK_LIMIT:
            raise DamagedError(f"Inode {inode.number}: a symbolic link of {inode.size} bytes.")
        own = inode.blocks - (self._block_size // 512 if inode.acl else 0)
        if inode.flags & _ENCRYPTED:
            return ""
        if not inode.flags & _INLINE and own <= 0 and inode.size < 60:
            data = bytes(inode.block[: inode.size])
        else:
            data = self.content(inode.number).read(_LINK_LIMIT)
        return data.decode("utf-8", "surrogateescape")

    def _inline_rest(self, inode: _Inode) -> bytes:
        """What of inline data does not fit the 60 bytes of the block map."""
        found = (found.value for found in self._all_attributes(inode, inside_only=True) if found.name == "system.data")
        return next(found, b"")

    def _all_attributes(self, inode: _Inode, *, inside_only: bool = False) -> Iterator[Attribute]:
        inside = inode.raw[128 + inode.extra :] if inode.extra else b""
        if inside[:4] == b"\x00\x00\x02\xea":
            yield from read_attributes(inside[4:], 0, self._large_value)
        if inode.acl and not inside_only:
            at = inode.acl * self._block_size
            if at + self._block_size > self._source.size:
                raise DamagedError(f"Inode {inode.number}: attributes at {at}, outside the volume.")
            block = self._source.read_at(at, self._block_size)
            if block[:4] != b"\x00\x00\x02\xea":
                raise DamagedError(f"Inode {inode.number}: attribute block at {at}: magic {block[:4].hex()}.")
            yield from read_attributes(block, 32, self._large_value)

    def _large_value(self, node: int, size: int) -> bytes:
        """The value of an attribute that has an inode of its own."""
        content = self.content(node)
        if content.size != size:
            raise DamagedError(f"Attribute inode {node} has {content.size} bytes, expected {size}.")
        return content.read(size)

    def _extent_runs(self, inode: _Inode) -> Iterator[Segment]:
        yield from self._extent_node(inode.block, inode.number, None, set())

    def _extent_node(self, data: bytes, number: int, expected: int | None, seen: set[int]) -> Iterator[Segment]:
        magic, count, _, depth, _ = _HEADER.unpack_from(data)
        if magic != _EXTENT_MAGIC or depth > _DEPTH or (expected is not None and depth != expected):
            raise DamagedError(f"Inode {number}: extent node with magic {magic:#x} and depth {depth}.")
        if 12 + 12 * count > len(data):
            raise DamagedError(f"Inode {number}: {count} extents in a node of {len(data)} bytes.")
        for at in range(12, 12 + 12 * count, 12):
            if depth:
                _, low, high, _ = _INDEX.unpack_from(data, at)
                place = (low | high << 32) * self._block_size
                if place + self._block_size > self._source.size:
                    raise DamagedError(f"Inode {number}: an extent node at {place}, outside the volume.")
                self._see(number, place, seen)
                yield from self._extent_node(self._source.read_at(place, self._block_size), number, depth - 1, seen)
                continue
            first, length, high, low = _EXTENT.unpack_from(data, at)
            if length <= _UNWRITTEN:
                size = length * self._block_size
                yield Segment(first * self._block_size, size, (low | high << 32) * self._block_size)

    def _block_runs(self, inode: _Inode) -> Iterator[Segment]:
        """The blocks of the old map: 12 direct, then one to three levels of indirection."""
        pointers = struct.unpack("<15I", inode.block)
        left = -(-inode.size // self._block_size)
        logical = 0
        seen: set[int] = set()
        for block in pointers[:_DIRECT][:left]:
            if block:
                yield self._block(logical, block)
            logical += 1
        for level, block in enumerate(pointers[_DIRECT:], start=1):
            if logical < left:
                yield from self._indirect(inode.number, block, level, logical, left, seen)
                logical += (self._block_size // 4) ** level

    def _see(self, number: int, place: int, seen: set[int]) -> None:
        """A block of a map has one place in it: otherwise a small volume could describe an endless file."""
        if place in seen:
            raise DamagedError(f"Inode {number}: the map block at {place} is in its map twice.")
        seen.add(place)

    def _indirect(
        self, number: int, block: int, level: int, logical: int, end: int, seen: set[int]
    ) -> Iterator[Segment]:
        if not block:
            return
        if not level:
            yield self._block(logical, block)
            return
        place, each = block * self._block_size, (self._block_size // 4) ** (level - 1)
        if place + self._block_size > self._source.size:
            raise DamagedError(f"Inode {number}: a block map at {place}, outside the volume.")
        self._see(number, place, seen)
        for (pointer,) in struct.iter_unpack("<I", self._source.read_at(place, self._block_size)):
            if logical >= end:
                return
            yield from self._indirect(number, pointer, level - 1, logical, end, seen)
            logical += each

    def _block(self, logical: int, block: int) -> Segment:
        return Segment(logical * self._block_size, self._block_size, block * self._block_size)


def _joined(segments: Iterator[Segment]) -> Iterator[Segment]:
    """Neighbours, in the file and in the volume, as one."""
    current: Segment | None = None
    for segment in segments:
        if (
            current is not None
            and segment.offset == current.offset + current.size
            and segment.place == current.place + current.size
        ):
            current = Segment(current.offset, current.size + segment.size, current.place)
            continue
        if current is not None:
            yield current
        current = segment
    if current is not None:
        yield current
