"""Making ext2, ext3 and ext4 smaller: what they need at least, and resize2fs on a file.

The need is computed from the superblock and the group descriptors alone. It is below what ``resize2fs -P`` says, which
counts the metadata of a whole flexible group to be safe: a filesystem of 2 GiB that is filled to 60 % could not be made
smaller at all (e2fsprogs, resize/resize2fs.c, calculate_minimum_resize_size). That caution is for filesystems that
would be lost. Here a copy is worked on, which is thrown away when it does not pass e2fsck.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.process import Runner
from images.filesystems import c_ext
from images.filesystems.c_ext import Incompat, RoCompat, Superblock
from images.filesystems.ext import MAX_GROUPS, sound_superblock
from images.filesystems.ext_groups import Groups, read_groups
from images.sources import BlockSource
from restore.shrink.needs import Needs

TOOLS = ("e2fsck", "resize2fs")
#: Seconds: checking and moving the files of a large filesystem takes its time.
_LONG = 24 * 3600
#: e2fsck: 0 clean, 1 something was mended.
_CHECKED = frozenset({0, 1})
#: Blocks that resize2fs wants in the last group beside its metadata.
_LAST_GROUP = 50
#: What is added, in parts of the data and in blocks at least: moved files can need more blocks for their trees of
#: extents, and no system starts from a filesystem without a free block.
_SPARE, _SPARE_BLOCKS = 32, 64


def least_ext(source: BlockSource) -> Needs:
    """What an ext filesystem needs. An estimate where it was not cleanly unmounted: its counts may be old.

    Raises:
        DamagedError: its superblock or descriptors are damaged. DeviceError: the source cannot be read.
    """
    superblock = sound_superblock(source)
    reason = _reason_against(superblock, source.size)
    if reason:
        return Needs(size=source.size, reason=reason)
    groups = read_groups(source, superblock)
    blocks = least_blocks(superblock, groups)
    unsettled = bool(superblock.incompat & Incompat.RECOVER) or not superblock.state & c_ext.STATE_VALID
    return Needs(size=min(blocks * superblock.block_size, source.size), estimate=unsettled)


def shrink_ext(path: Path, size: int, runner: Runner) -> tuple[str, ...]:
    """Make the filesystem in ``path`` smaller; ``size`` in bytes, rounded down to its blocks.

    Returns:
        what was mended on the way, a line each.

    Raises:
        ProcessError: a tool failed, or the result does not pass its check.
    """
    # resize2fs insists on a check since the last mount; "preen" mends only what is safe without a question.
    checked = runner.run(["e2fsck", "-f", "-p", str(path)], success=_CHECKED, timeout=_LONG)
    # -f passes over the tool's own idea of the least size; whether it worked is seen by the next check.
    runner.run(["resize2fs", "-f", str(path), f"{size // 1024}K"], timeout=_LONG)
    runner.run(["e2fsck", "-f", "-n", str(path)], timeout=_LONG)
    return ("e2fsck mended the filesystem before it was made smaller",) if checked.returncode else ()


def _reason_against(superblock: Superblock, size: int) -> str:
    """Why resize2fs will not touch it; empty when it will."""
    if superblock.incompat & ~c_ext.KNOWN_INCOMPAT or superblock.ro_compat & ~c_ext.KNOWN_RO_COMPAT:
        return "it has features that liferaft does not know"
    if superblock.incompat & Incompat.JOURNAL_DEV:
        return "it is the journal of another filesystem"
    if superblock.ro_compat & RoCompat.BIGALLOC:
        return "it allocates in clusters (bigalloc), which resize2fs does not make fewer"
    if superblock.compat & c_ext.Compat.STABLE_INODES:
        return "its inodes keep their numbers (stable_inodes), and resize2fs would give them others"
    if superblock.compat & c_ext.Compat.HAS_JOURNAL and not superblock.journal_inode:
        return "its journal is on another device"
    if superblock.state & c_ext.STATE_ERROR:
        return "it has recorded errors"
    if superblock.blocks_count * superblock.block_size > size:
        return f"it claims {superblock.blocks_count * superblock.block_size} bytes, but the volume has {size}"
    if superblock.group_count > MAX_GROUPS:
        return f"it has {superblock.group_count} groups"
    return ""


def least_blocks(superblock: Superblock, groups: Groups) -> int:
    """Blocks in which the data and what describes it have room, with something to spare."""
    size, first = superblock.blocks_per_group, superblock.first_data_block
    metadata = _metadata_blocks(superblock)
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(metadata)])
    data = max(superblock.blocks_count - first - int(before[-1]) - int(groups.free.sum()), 0)
    # With sparse_super2 the last group has a copy of the superblock and the descriptors, whichever is the last.
    copy = 1 + superblock.old_descriptor_blocks if superblock.compat & c_ext.Compat.SPARSE_SUPER2 else 0
    data += max(data // _SPARE, _SPARE_BLOCKS) + copy
    inodes = max(superblock.inodes_count - superblock.free_inodes, 1)
    least_groups = min(-(-inodes // superblock.inodes_per_group), superblock.group_count)
    counts = np.arange(least_groups, superblock.group_count + 1, dtype=np.int64)
    needed = first + data + before[_flexible(superblock, counts)]
    fitting = np.flatnonzero(needed <= np.minimum(first + counts * size, superblock.blocks_count))
    if not len(fitting):
        return superblock.blocks_count
    count = int(counts[fitting[0]])
    last = first + (count - 1) * size + int(metadata[count - 1]) + _LAST_GROUP
    table = int(groups.inode_table[count - 1]) + superblock.inode_table_blocks
    return min(max(int(needed[fitting[0]]), last, table), superblock.blocks_count)


def _flexible(superblock: Superblock, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups whose metadata must have room when there are ``counts``: all of the last flexible group.

    The tables of its groups lie together, and those of the groups that go are let go of last.
    """
    if not superblock.incompat & Incompat.FLEX_BG:
        return counts
    flex = 1 << min(superblock.log_groups_per_flex, 31)
    return np.minimum(-(-counts // flex) * flex, superblock.group_count)


def _metadata_blocks(superblock: Superblock) -> NDArray[np.int64]:
    """Blocks of metadata of each group, wherever they lie: bitmaps, inode table, superblock, descriptors."""
    blocks = np.full(superblock.group_count, superblock.inode_table_blocks + 2, dtype=np.int64)
    for group in _with_superblock(superblock):
        blocks[group] += 1
        if not superblock.in_meta_group(group):
            blocks[group] += superblock.old_descriptor_blocks
    if superblock.incompat & Incompat.META_BG:
        span = superblock.descriptors_per_block
        first = superblock.first_meta_bg * span
        for place in (0, 1, span - 1):
            blocks[first + place :: span] += 1
    return blocks


def _with_superblock(superblock: Superblock) -> Iterator[int]:
    """Groups with a copy of the superblock."""
    if not superblock.ro_compat & RoCompat.SPARSE_SUPER and not superblock.compat & c_ext.Compat.SPARSE_SUPER2:
        yield from range(superblock.group_count)
        return
    powers = {base**power for base in (3, 5, 7) for power in range(1, 24)}
    named = {0, 1, superblock.backup_group_a, superblock.backup_group_b, *powers}
    for group in sorted(named):
        if group < superblock.group_count and superblock.has_superblock(group):
            yield group
