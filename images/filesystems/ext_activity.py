"""Signs beside the superblock that an ext filesystem is in use or was left in use: its journal, its MMP block.

A superblock may say "clean" over a journal that still has to be played: e2fsck plays it all the same
(e2fsck/journal.c), and then the bitmaps change. Multi-mount protection says which machine has the filesystem open.
Structures: kernel include/linux/jbd2.h, fs/ext4/ext4_extents.h, fs/ext4/ext4.h (struct mmp_struct).
"""

import struct

from images.filesystems.c_ext import Incompat, Superblock
from images.filesystems.ext_groups import Groups
from images.sources import BlockSource

_JOURNAL_MAGIC = 0xC03B3998
_JOURNAL_SUPERBLOCKS = (3, 4)
_EXTENT_MAGIC = 0xF30A
_EXTENTS_FLAG = 0x80000
_MAX_DEPTH = 5
_MMP_MAGIC = 0x004D4D50
_MMP_CLEAN = 0xFF4D4D50
_MMP_FSCK = 0xE24D4D50


def doubt_about_journal(source: BlockSource, superblock: Superblock, groups: Groups) -> str:
    """Why an internal journal may change the bitmaps; empty when it is empty.

    Raises:
        DeviceError: the source cannot be read.
    """
    number = superblock.journal_inode - 1
    if not 0 <= number < superblock.inodes_count or number // superblock.inodes_per_group >= superblock.group_count:
        return f"its journal is damaged: it has no inode {superblock.journal_inode}"
    group, index = divmod(number, superblock.inodes_per_group)
    offset = int(groups.inode_table[group]) * superblock.block_size + index * superblock.inode_size
    block = _first_block(source, superblock, source.read_at(offset, 128))
    if not superblock.first_data_block <= block < superblock.blocks_count:
        return "its journal is damaged: its first block cannot be found"
    magic, kind = struct.unpack(">II", source.read_at(block * superblock.block_size, 8))
    start = struct.unpack(">I", source.read_at(block * superblock.block_size + 28, 4))[0]
    if magic != _JOURNAL_MAGIC or kind not in _JOURNAL_SUPERBLOCKS:
        return f"its journal is damaged: block {block} is not its superblock"
    if start:
        return "its journal is not empty, although its superblock says that no recovery is needed: run e2fsck"
    return ""


def doubt_about_mmp(source: BlockSource, superblock: Superblock) -> str:
    """Which machine has the filesystem open, by its multi-mount protection; empty when none has.

    Raises:
        DeviceError: the source cannot be read.
    """
    if not superblock.incompat & Incompat.MMP:
        return ""
    block = superblock.mmp_block
    if not superblock.first_data_block < block < superblock.blocks_count:
        return f"its multi-mount protection is damaged: its block is {block}"
    content = source.read_at(block * superblock.block_size, 128)
    magic, sequence = struct.unpack_from("<II", content)
    machine = content[16:80].split(b"\0", 1)[0].decode(errors="replace") or "a machine without a name"
    if magic != _MMP_MAGIC:
        return f"its multi-mount protection is damaged: block {block} is none"
    if sequence == _MMP_FSCK:
        return f"e2fsck is at work on it, or was interrupted, on {machine} (multi-mount protection)"
    if sequence != _MMP_CLEAN:
        return f"it is in use, or was not cleanly unmounted, on {machine} (multi-mount protection)"
    return ""


def _first_block(source: BlockSource, superblock: Superblock, inode: bytes) -> int:
    """Where the first block of a file lies; 0 when that cannot be told."""
    if not struct.unpack_from("<I", inode, 32)[0] & _EXTENTS_FLAG:
        return int(struct.unpack_from("<I", inode, 40)[0])
    node = inode[40:100]
    for _ in range(_MAX_DEPTH + 1):
        magic, entries, _, depth = struct.unpack_from("<HHHH", node)
        first, low, high = struct.unpack_from("<IIH", node, 12)
        if magic != _EXTENT_MAGIC or not entries or first:
            return 0
        if not depth:  # a leaf: logical block, length, high and low half of the address
            length_high, low = struct.unpack_from("<II", node, 16)
            return int(length_high >> 16 << 32 | low)
        block = high << 32 | low
        if not superblock.first_data_block <= block < superblock.blocks_count:
            return 0
        node = source.read_at(block * superblock.block_size, superblock.block_size)
    return 0
