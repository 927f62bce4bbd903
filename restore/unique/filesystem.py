"""Giving a filesystem another identity, through its own tools; libblkid is the witness."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.errors import DeviceError, RefusedError
from core.process import Runner
from images.filesystems.c_ext import Compat
from images.filesystems.ext import sound_superblock
from images.filesystems.ntfs import read_ntfs
from images.filesystems.used import UsedMap
from images.filesystems.xfs import read_xfs
from images.model.layout import FilesystemKind
from images.sources import BlockSource, open_source
from restore.planning.abilities import EXT, FAT
from restore.shrink.btrfs import least_btrfs
from restore.unique.renewal import Renewal

_HOURS = 24 * 3600.0
#: e2fsck: 0 clean, 1 something was mended.
_CHECKED = frozenset({0, 1})
#: Readers of those whose tools work on a sound filesystem only, and mend nothing before.
_WANT_CLEAN: dict[FilesystemKind, Callable[[BlockSource], UsedMap | None]] = {
    FilesystemKind.XFS: read_xfs,
    FilesystemKind.NTFS: partial(read_ntfs, marked=True),
}


def tools(kind: FilesystemKind) -> tuple[str, ...]:
    """The programs that renewing such a filesystem runs."""
    if kind in EXT:
        return "e2fsck", "tune2fs"
    if kind in FAT:
        return ("mlabel",)
    return {
        FilesystemKind.XFS: ("xfs_admin",),
        FilesystemKind.BTRFS: ("btrfstune",),
        FilesystemKind.SWAP: ("swaplabel",),
        FilesystemKind.NTFS: ("ntfslabel",),
        FilesystemKind.EXFAT: ("tune.exfat",),
    }.get(kind, ())


def doubt(source: BlockSource, kind: FilesystemKind) -> str:
    """Why the tools will not give the stored filesystem another identity; empty when they will.

    Raises:
        DamagedError: it has no sound superblock. DeviceError: it cannot be read.
    """
    if kind is FilesystemKind.BTRFS:
        # btrfstune, left without the other devices, stops half-way with all metadata between two identities.
        return least_btrfs(source).reason
    if kind in EXT and sound_superblock(source).compat & Compat.STABLE_INODES:
        return "its identity is part of its encryption (stable_inodes)"
    if kind in _WANT_CLEAN:
        # xfs_admin refuses a log that was not played, ntfslabel a volume that was not let go of: half-way, then.
        found = _WANT_CLEAN[kind](source)
        return "" if found is not None and found.trusted else (found.reason if found else f"it holds no {kind}")
    return ""


def renew_filesystem(node: str, renewal: Renewal, runner: Runner) -> str:
    """Give the filesystem on ``node`` its new identity; nothing is done when it has it already.

    Returns:
        what the user must know; empty for nothing.

    Raises:
        DeviceError: it has neither the old nor the new identity, or did not take the new one.
        ProcessError: its tool failed.
    """
    found = identity(node, runner)
    if _same(found, renewal.new):
        return ""
    if not _same(found, renewal.old):
        raise DeviceError(f"The filesystem on {node} has the identity {found or 'none'}, expected {renewal.old}.")
    mended = _renew(node, renewal, runner)
    found = identity(node, runner)
    if not _same(found, renewal.new):
        raise DeviceError(f"The filesystem on {node} has the identity {found or 'none'} after renewing it.")
    return f"e2fsck mended the filesystem on {node} before its identity was renewed" if mended else ""


def identity(node: str, runner: Runner) -> str:
    """What libblkid reads from the device now, past every cache; empty for nothing."""
    words = ["blkid", "--probe", "--match-tag", "UUID", "--output", "value", node]
    return runner.run(words, success=frozenset({0, 2}), timeout=60).stdout.strip()


def _renew(node: str, renewal: Renewal, runner: Runner) -> bool:
    """Whether a checker mended something before."""
    kind, new = renewal.kind, renewal.new
    if kind in EXT:
        # tune2fs wants a check since the last mount when checksums depend on the UUID.
        checked = runner.run(["e2fsck", "-f", "-p", node], success=_CHECKED, timeout=_HOURS)
        runner.run(["tune2fs", "-U", new, node], timeout=_HOURS)
        return checked.returncode != 0
    if kind in FAT:
        runner.run(["mlabel", "-N", new.replace("-", ""), "-i", node, "::"], timeout=120)
    elif kind is FilesystemKind.XFS:
        runner.run(["xfs_admin", "-U", new, node], timeout=_HOURS)
    elif kind is FilesystemKind.BTRFS:
        # -U writes every block of metadata anew and leaves no incompatible feature behind, unlike -M.
        runner.run(["btrfstune", "-f", "-U", new, node], timeout=_HOURS)
    elif kind is FilesystemKind.SWAP:
        runner.run(["swaplabel", "--uuid", new, node], timeout=120)
    elif kind is FilesystemKind.NTFS:
        runner.run(["ntfslabel", *_force_words(node), f"--new-serial={new}", node], timeout=120)
    elif kind is FilesystemKind.EXFAT:
        runner.run(["tune.exfat", "-I", f"0x{new.replace('-', '')}", node], timeout=120)
    else:
        raise RefusedError(f"The identity of a {kind} filesystem cannot be renewed.")
    return False


def _same(found: str, wanted: str) -> bool:
    return bool(found) and found.lower() == wanted.lower()


def _force_words(node: str) -> tuple[str, ...]:
    """ntfslabel wants to be forced where ntfsresize left its mark for a check; with any other doubt it is not."""
    with open_source(Path(node)) as source:
        found = read_ntfs(source, marked=True)
    return ("--force",) if found is not None and found.trusted else ()
