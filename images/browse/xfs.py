"""Files of XFS, versions 4 and 5.

``dissect.xfs`` reads superblocks, inodes and extent trees. Folders, extended attributes and content are read here,
because the library (3.13) leaves out entries of folders whose blocks are larger than the filesystem's, knows no
attributes, and shows what lies in unwritten extents instead of zeros. The log is not played.

Structures: XFS Algorithms and Data Structures (kernel.org), chapters 12 to 15; kernel, fs/xfs/libxfs/xfs_da_format.h.
"""

import stat
import struct
from collections.abc import Iterator

from dissect.xfs import XFS
from dissect.xfs.c_xfs import c_xfs
from dissect.xfs.xfs import INode, parse_fsblock

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
from images.browse.ext import MODES
from images.browse.stream import SourceStream
from images.browse.xfs_attributes import AttributeFork, leaf_attributes, named, short_attributes
from images.sources import BlockSource

_LOCAL, _EXTENTS, _BTREE = 1, 2, 3
_BLOCK_MAGICS, _DATA_MAGICS = (b"XD2B", b"XDB3"), (b"XD2D", b"XDD3")
#: The part of a folder behind this offset is its index, not its entries (XFS_DIR2_LEAF_OFFSET).
_LEAF_OFFSET = 32 << 30
_UNUSED = 0xFFFF
_LINK_LIMIT = 1024
_TYPES = {1: Kind.FILE, 2: Kind.FOLDER, 3: Kind.CHARACTER, 4: Kind.BLOCK, 5: Kind.FIFO, 6: Kind.SOCKET, 7: Kind.LINK}


class XfsFilesystem:
    """See :class:`images.browse.entry.Filesystem`. A node is an inode number."""

    name = "xfs"
    ignores_case = False
    default = "/"
    notes: tuple[str, ...] = ()

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self._fs = XFS(SourceStream(source))
        sb = self._fs.sb
        block = self._fs.block_size
        if not 512 <= block <= 65536 or block & (block - 1) or not 0 <= sb.sb_dirblklog <= 7:
            raise DamagedError(f"Superblock: blocks of {block} bytes, folder blocks of 2^{sb.sb_dirblklog} of them.")
        if not 256 <= sb.sb_inodesize <= 2048 or not sb.sb_agblocks or sb.sb_agblklog > 31:
            raise DamagedError(f"Superblock: inodes of {sb.sb_inodesize} bytes, {sb.sb_agblocks} blocks a group.")
        self._block: int = block
        self._folder_block: int = block << sb.sb_dirblklog
        self._types = bool(self._fs._has_ftype)
        self._crc = bool(self._fs._has_crc)
        self.root = int(sb.sb_rootino)

    def children(self, node: int) -> Iterator[Child]:
        inode = self._inode(node)
        if inode.filetype != stat.S_IFDIR:
            raise DamagedError(f"Inode {node} is no folder.")
        if inode.inode.di_format == _LOCAL:
            yield from self._short_names(inode)
            return
        for segment in self._segments(inode):
            if segment.offset >= _LEAF_OFFSET:
                return
            for at in range(0, segment.size, self._folder_block):
                if at + self._folder_block > segment.size:
                    raise DamagedError(f"Folder inode {node}: a run of {segment.size} bytes is not whole blocks.")
                yield from self._names(self._source.read_at(segment.place + at, self._folder_block), node)

    def entry(self, node: int) -> Entry:
        inode = self._inode(node)
        raw = inode.inode
        kind = MODES.get(stat.S_IFMT(raw.di_mode))
        links = raw.di_onlink if raw.di_version == 1 else raw.di_nlink
        if kind is None or not links:
            raise DamagedError(f"Inode {node}: mode {raw.di_mode:o} with {links} links is no file.")
        device = 0
        if kind in (Kind.CHARACTER, Kind.BLOCK):
            device = int.from_bytes(inode.datafork().read(4), "big")
        wide = inode._has_bigtime()
        return Entry(
            node=node,
            kind=kind,
            size=raw.di_size if kind in (Kind.FILE, Kind.LINK) else 0,
            mode=stat.S_IMODE(raw.di_mode),
            uid=raw.di_uid,
            gid=raw.di_gid,
            mtime=_time(raw.di_mtime, wide),
            atime=_time(raw.di_atime, wide),
            ctime=_time(raw.di_ctime, wide),
            links=links,
            target=self._target(inode) if kind is Kind.LINK else "",
            # The numbers are packed as on IRIX: 14 bits and 18 bits.
            major=device >> 18,
            minor=device & 0x3FFFF,
        )

    def attributes(self, node: int) -> tuple[Attribute, ...]:
        inode = self._inode(node)
        if not inode.inode.di_forkoff:
            return ()
        fork = inode.attrfork()
        if inode.inode.di_aformat == _LOCAL:
            found = short_attributes(fork.read())
        elif inode.inode.di_aformat in (_EXTENTS, _BTREE):
            attribute_fork = self._attribute_fork(inode, inode.inode.di_aformat == _BTREE)
            # A fork that is set up and has no block yet holds nothing.
            found = leaf_attributes(attribute_fork) if attribute_fork.places else iter(())
        else:
            return ()
        return tuple(sorted(map(named, found), key=lambda attribute: attribute.name))

    def content(self, node: int, stream: str = "") -> Content:
        inode = self._inode(node)
        if stream:
            raise DamagedError("XFS has no alternate streams.")
        if inode.inode.di_format == _LOCAL:
            return inline_content(inode.datafork().read(inode.size))
        if inode.inode.di_flags & c_xfs.XFS_DIFLAG_REALTIME:
            raise UnreadableError("it lies in the realtime section, which is another device")
        return stored_content(self._source, inode.size, clip_segments(self._segments(inode), inode.size))

    def _inode(self, number: int) -> INode:
        inode = self._fs.get_inode(number)
        raw = inode.inode
        if raw.di_version not in (1, 2, 3) or raw.di_forkoff * 8 > self._fs.sb.sb_inodesize - 100:
            raise DamagedError(f"Inode {number}: version {raw.di_version}, attribute fork at {raw.di_forkoff * 8}.")
        return inode

    def _segments(self, inode: INode) -> tuple[Segment, ...]:
        if inode.inode.di_format != _BTREE:
            return tuple(self._placed(inode._iter_blocks()))
        return tuple(self._placed(self._tree_extents(inode.datafork().read())))

    def _tree_extents(self, root: bytes) -> Iterator[tuple[int, int, int, int]]:
        """The extents of a fork kept as a B-tree, whose root lies in the inode (chapter 19.2)."""
        level, count = struct.unpack_from(">HH", root)
        first = 4 + (len(root) - 4) // 16 * 8
        seen: set[int] = set()
        for at in range(first, first + 8 * count, 8):
            yield from self._tree_below(int.from_bytes(root[at : at + 8], "big"), level - 1, seen)

    def _tree_below(self, block: int, level: int, seen: set[int]) -> Iterator[tuple[int, int, int, int]]:
        if block in seen or level < 0:
            raise DamagedError(f"Block {block} of an extent tree stands in it twice, or too deep.")
        seen.add(block)
        group, inside = block >> self._fs.sb.sb_agblklog, block & ((1 << self._fs.sb.sb_agblklog) - 1)
        data = self._source.read_at((group * self._fs.sb.sb_agblocks + inside) * self._block, self._block)
        magic, found, count = struct.unpack_from(">4sHH", data)
        header = 72 if self._crc else 24
        most = (len(data) - header) // 16
        if magic not in (b"BMAP", b"BMA3") or found != level or count > most:
            raise DamagedError(f"Block {block} of an extent tree: magic {magic.hex()}, level {found}, {count} records.")
        if not level:
            for at in range(header, header + 16 * count, 16):
                yield parse_fsblock(data[at : at + 16])
            return
        first = header + 8 * most
        for at in range(first, first + 8 * count, 8):
            yield from self._tree_below(int.from_bytes(data[at : at + 8], "big"), level - 1, seen)

    def _placed(self, blocks: Iterator[tuple[int, int, int, int]]) -> Iterator[Segment]:
        """Extents as bytes of the volume; unwritten ones are holes."""
        total = 0
        for offset, block, count, unwritten in blocks:
            group, inside = block >> self._fs.sb.sb_agblklog, block & ((1 << self._fs.sb.sb_agblklog) - 1)
            place = (group * self._fs.sb.sb_agblocks + inside) * self._block
            if place + count * self._block > self._source.size:
                raise DamagedError(f"An extent of {count} blocks at {place} lies outside the volume.")
            total += count
            if not count or total * self._block > self._source.size:
                raise DamagedError(f"Extents of {total} blocks do not fit the volume, or one is empty.")
            if not unwritten:
                yield Segment(offset * self._block, count * self._block, place)

    def _short_names(self, inode: INode) -> Iterator[Child]:
        data = inode.datafork().read()
        count, wide = data[0], bool(data[1])
        width = 8 if wide else 4
        at = 2 + width
        for _ in range(count):
            length = data[at]
            name = data[at + 3 : at + 3 + length]
            at += 3 + length
            kind = _TYPES.get(data[at]) if self._types else None
            at += 1 if self._types else 0
            number = data[at : at + width]
            at += width
            if not length or len(number) != width:
                raise DamagedError(f"Folder inode {inode.inum}: an entry ends behind its inode.")
            yield Child(name.decode("utf-8", "surrogateescape"), int.from_bytes(number, "big"), kind)

    def _names(self, block: bytes, node: int) -> Iterator[Child]:
        """The entries of one folder block."""
        magic, end = block[:4], len(block)
        if magic in _BLOCK_MAGICS:
            (count,) = struct.unpack_from(">I", block, end - 8)
            end -= 8 + 8 * count
        elif magic not in _DATA_MAGICS:
            raise DamagedError(f"Folder inode {node}: a block with magic {magic.hex()}.")
        at = 64 if self._crc else 16
        while at < end:
            tag, length = struct.unpack_from(">HH", block, at)
            if tag == _UNUSED:
                if length < 8 or length % 8 or at + length > end:
                    raise DamagedError(f"Folder inode {node}: an unused entry of {length} bytes at {at}.")
                at += length
                continue
            number, name_length = struct.unpack_from(">QB", block, at)
            name = block[at + 9 : at + 9 + name_length]
            kind = _TYPES.get(block[at + 9 + name_length]) if self._types else None
            size = 8 + 1 + name_length + int(self._types) + 2
            at += -(-size // 8) * 8
            if not name_length or at > end:
                raise DamagedError(f"Folder inode {node}: an entry with a name of {name_length} ends at {at}.")
            if name not in (b".", b".."):
                yield Child(name.decode("utf-8", "surrogateescape"), number, kind)

    def _target(self, inode: INode) -> str:
        """A symbolic link; in version 5 each of its extents begins with a header of 56 bytes."""
        size = int(inode.size)
        if size > _LINK_LIMIT:
            raise DamagedError(f"Inode {inode.inum}: a symbolic link of {size} bytes.")
        if inode.inode.di_format == _LOCAL:
            data = inode.datafork().read(size)
        elif not self._crc:
            data = stored_content(self._source, size, clip_segments(self._segments(inode), size)).read(_LINK_LIMIT)
        else:
            data = b""
            for segment in self._segments(inode):
                block = self._source.read_at(segment.place, min(segment.size, _LINK_LIMIT + self._block))
                magic, offset, length = struct.unpack_from(">4sII", block)
                if magic != b"XSLM" or offset != len(data) or 56 + length > len(block):
                    raise DamagedError(f"Inode {inode.inum}: a link block with magic {magic.hex()}, {length} bytes.")
                data += block[56 : 56 + length]
        if len(data) != size:
            raise DamagedError(f"Inode {inode.inum}: a link of {len(data)} bytes, expected {size}.")
        return bytes(data).decode("utf-8", "surrogateescape")

    def _attribute_fork(self, inode: INode, tree: bool) -> AttributeFork:
        fork = inode.attrfork()
        data = fork.read()
        if tree:
            blocks = self._tree_extents(data)
        else:
            blocks = (parse_fsblock(data[at : at + 16]) for at in range(0, 16 * int(inode.attr_extents), 16))
        places = {}
        for segment in self._placed(blocks):
            for at in range(0, segment.size, self._block):
                places[(segment.offset + at) // self._block] = segment.place + at
        return AttributeFork(self._source, places, self._block, self._crc)


def _time(stamp: int, wide: bool) -> int:
    """Nanoseconds since 1970; "bigtime" counts nanoseconds from the earliest 32-bit time."""
    if wide:
        return int(stamp) - (1 << 31) * 1_000_000_000
    seconds = stamp >> 32
    return (seconds - (1 << 32) if seconds >> 31 else seconds) * 1_000_000_000 + (stamp & 0xFFFFFFFF)
