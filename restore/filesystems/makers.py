"""Makers: how a fresh filesystem of each kind is made like a stored one, checked, and what speaks against it."""

from collections.abc import Callable

import msgspec

from images.filesystems.ext import read_ext
from images.filesystems.used import UsedMap
from images.filesystems.xfs import read_xfs
from images.model.layout import FilesystemKind
from images.sources import BlockSource
from restore.filesystems import ext_make, xfs_make


class Maker(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind is made anew.

    Attributes:
        tools: programs it runs, mounting left out.
        read: the reader that says whether the stored one is sound.
        doubts: what the stored one has that cannot be made again.
        words: the commands; takes the stored one, bytes, bytes of a sector of the device, and the node.
        mounting: options of the mount.
        check: the command that finds any fault and writes nothing; the node is its last word.
        notes: what is not kept and only some have, a line each.
    """

    tools: tuple[str, ...]
    read: Callable[[BlockSource], UsedMap | None]
    doubts: Callable[[BlockSource], tuple[str, ...]]
    words: Callable[[BlockSource, int, int, str], list[list[str]]]
    mounting: str
    check: tuple[str, ...]
    notes: Callable[[BlockSource], tuple[str, ...]] = lambda source: ()


def _xfs_notes(source: BlockSource) -> tuple[str, ...]:
    said = "quotas are counted anew, and their limits are to be set again"
    return (said,) if xfs_make.has_quotas(source) else ()


_EXT = Maker(
    tools=("mke2fs", "tune2fs", "e2fsck"),
    read=read_ext,
    doubts=ext_make.doubts,
    words=lambda source, size, sector_size, node: ext_make.mke2fs_words(source, sector_size, node),
    mounting="noatime",
    check=("e2fsck", "-f", "-n"),
)
MAKERS = {
    FilesystemKind.XFS: Maker(
        tools=("mkfs.xfs", "xfs_repair"),
        read=read_xfs,
        doubts=xfs_make.doubts,
        words=lambda source, size, sector_size, node: [xfs_make.mkfs_words(source, size, sector_size, node)],
        mounting="nouuid,noatime",
        check=("xfs_repair", "-n"),
        notes=_xfs_notes,
    ),
    FilesystemKind.EXT2: _EXT,
    FilesystemKind.EXT3: _EXT,
    FilesystemKind.EXT4: _EXT,
}


def remake_doubts(source: BlockSource, kind: FilesystemKind) -> tuple[str, ...]:
    """Why a stored filesystem cannot be made anew by copying its files; empty when it can.

    Files are read as they lie there: one whose journal was not played, or that has errors, would lose something.
    """
    maker = MAKERS.get(kind)
    if maker is None:
        return (f"this version does not make {kind} anew",)
    found = maker.read(source)
    if found is None:
        return (f"it holds no {kind}",)
    doubt = () if found.trusted else (f"its files cannot be copied, because {found.reason}",)
    return (*doubt, *maker.doubts(source))
