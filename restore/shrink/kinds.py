"""The kinds of filesystems that can be made smaller, and who does it."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from core.process import Runner
from images.filesystems.ext import read_ext
from images.filesystems.ntfs import read_ntfs
from images.filesystems.used import UsedMap
from images.model.layout import FilesystemKind
from images.sources import BlockSource
from restore.shrink.btrfs import TOOLS as BTRFS_TOOLS
from restore.shrink.btrfs import least_btrfs, shrink_btrfs
from restore.shrink.ext import TOOLS as EXT_TOOLS
from restore.shrink.ext import least_ext, shrink_ext
from restore.shrink.needs import Needs
from restore.shrink.ntfs import TOOLS as NTFS_TOOLS
from restore.shrink.ntfs import least_ntfs, shrink_ntfs


class Shrinker(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind is made smaller.

    Attributes:
        tools: programs that are run.
        least: what it needs, from metadata alone.
        shrink: works on a file; gives back what the person should know, a line each.
        read: the map of the result; None where nobody can be asked, and all that is held counts.
        root: it is mounted for that.
    """

    tools: tuple[str, ...]
    least: Callable[[BlockSource], Needs]
    shrink: Callable[[Path, int, Runner], tuple[str, ...]]
    read: Callable[[BlockSource], UsedMap | None] | None = None
    root: bool = False


def _read_marked(source: BlockSource) -> UsedMap | None:
    """NTFS as ntfsresize leaves it: checked, and marked to be checked by Windows."""
    return read_ntfs(source, marked=True)


_EXT = Shrinker(tools=EXT_TOOLS, least=least_ext, shrink=shrink_ext, read=read_ext)
SHRINKERS = {
    FilesystemKind.EXT2: _EXT,
    FilesystemKind.EXT3: _EXT,
    FilesystemKind.EXT4: _EXT,
    FilesystemKind.NTFS: Shrinker(tools=NTFS_TOOLS, least=least_ntfs, shrink=shrink_ntfs, read=_read_marked),
    FilesystemKind.BTRFS: Shrinker(tools=BTRFS_TOOLS, least=least_btrfs, shrink=shrink_btrfs, root=True),
}
