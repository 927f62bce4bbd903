"""How much a fresh XFS of some size holds, from below: what its log, its headers and the kernel's reserves leave.

mkfs.xfs decides the first, the kernel the last, and neither can be asked at plan time. So each is taken at its largest.
Sources: xfsprogs mkfs/xfs_mkfs.c (calculate_log_size: 64 MiB from 300 MiB on, a 2048th from 128 GiB on, at most 2 GiB);
kernel fs/xfs/xfs_mount.c (xfs_default_resblks: a 20th, at most 8192 blocks), fs/xfs/libxfs/xfs_ag_resv.c. Compared with
what the tools and the kernel do in tests/disk/test_xfs_room.py.
"""

from core.units import MIB

#: From here on the log is large: a little larger filesystem then holds less.
_LARGE = 300 * MIB
_SMALL_LOG, _LOG, _LONGEST_LOG, _LOG_PART = 13 * MIB, 64 * MIB, 2048 * MIB, 2048
_RESERVE_PART, _RESERVE = 20, 32 * MIB
#: Free-space, inode, reverse-map and reference-count trees of all groups together, at most: in 1000. Blocks below 4 KiB
#: hold so few entries that the trees have more of them.
_TREES, _TREES_OF_SMALL_BLOCKS, _BLOCK = 30, 90, 4096
_HEADERS = MIB


def usable(size: int, block_size: int) -> int:
    """Bytes that files, their folders and inodes find in a fresh XFS of ``size`` bytes, at least."""
    log = max(_LOG, min(size // _LOG_PART, _LONGEST_LOG)) if size >= _LARGE else _SMALL_LOG
    reserve = min(size // _RESERVE_PART, _RESERVE)
    trees = _TREES if block_size >= _BLOCK else _TREES_OF_SMALL_BLOCKS
    return max(size - log - reserve - size * trees // 1000 - _HEADERS, 0)


def least_size(content: int, block_size: int) -> int:
    """Bytes from which on every fresh XFS holds so many bytes, a multiple of 1 MiB."""
    low = high = 16 * MIB if content <= usable(_LARGE, block_size) else _LARGE
    while usable(high, block_size) < content:
        high *= 2
    while high - low > MIB:
        middle = (low + high) // 2 // MIB * MIB
        low, high = (low, middle) if usable(middle, block_size) >= content else (middle, high)
    return low if usable(low, block_size) >= content else high
