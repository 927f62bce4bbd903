"""Limits: how large a stored filesystem can become, from the width of its own fields. Read, never guessed.

What the tools say only after hours of restoring is a reason against the plan. FAT has no entry: it is made anew, and
what makes it knows its limits.
"""

from collections.abc import Callable

import msgspec

from images.filesystems.c_ext import Incompat
from images.filesystems.ext import sound_superblock
from images.filesystems.ntfs import read_ntfs
from images.filesystems.swap import read_swap
from images.model.layout import FilesystemKind
from images.sources import BlockSource
from restore.planning.abilities import EXT

#: What 32 bits count: blocks of an ext without the feature 64bit (Linux, Documentation/filesystems/ext4/blocks.rst),
#: clusters of NTFS (Microsoft, "NTFS overview"), pages of swap (util-linux, include/swapheader.h).
_COUNT = (1 << 32) - 1


class Limit(msgspec.Struct, frozen=True):
    """``size``: bytes that the filesystem can have at most; ``why``: what counts only so far."""

    size: int
    why: str


def limit(source: BlockSource, kind: FilesystemKind) -> Limit | None:
    """The limit of a stored filesystem; None when no disk reaches it.

    Raises:
        DamagedError: it cannot be read as that kind.
    """
    if kind in EXT:
        return _ext(source)
    return _LIMITS[kind](source) if kind in _LIMITS else None


def _ext(source: BlockSource) -> Limit | None:
    superblock = sound_superblock(source)
    if superblock.incompat & Incompat.BIT64:
        return None
    return Limit(_COUNT * superblock.block_size, "without the feature 64bit ext counts its blocks in 32 bits")


def _ntfs(source: BlockSource) -> Limit | None:
    found = read_ntfs(source, marked=True)
    block_size = found.filesystem.block_size if found is not None else 0
    return Limit(_COUNT * block_size, "Windows counts the clusters of NTFS in 32 bits") if block_size else None


def _swap(source: BlockSource) -> Limit | None:
    found = read_swap(source)
    block_size = found.filesystem.block_size if found is not None else 0
    return Limit(_COUNT * block_size, "swap counts its pages in 32 bits") if block_size else None


_LIMITS: dict[FilesystemKind, Callable[[BlockSource], Limit | None]] = {
    FilesystemKind.NTFS: _ntfs,
    FilesystemKind.SWAP: _swap,
}
