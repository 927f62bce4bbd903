"""Stored filesystems with kernels: which one is a /boot, and the room that one more kernel takes there.

A system whose kernels lie on a filesystem that is full can neither have its initramfs made again for another controller
nor take the next security update. So what holds kernels needs room for one more of them beyond what it holds, and a
filesystem that is for nothing else keeps its size as long as there is another way.

Names and sizes are read from the recovery point, metadata alone. Nothing is decided here.
"""

import re

import msgspec

from core.errors import DamagedError, RefusedError
from core.units import MIB
from images.browse.entry import Kind
from images.browse.point import VolumeSource
from images.browse.tree import Found, Tree
from images.model.filesystem import FilesystemKind
from restore.planning.abilities import EXT

#: Filesystems that Linux keeps its kernels on, but for those of the firmware.
_KINDS = EXT | {FilesystemKind.XFS, FilesystemKind.BTRFS}
#: As Debian, Fedora, SUSE and Arch call them.
_KERNEL = re.compile(r"vmlinu[xz](-.+)?|[bz]?[Ii]mage-.+")
_INITRAMFS = re.compile(r"init(rd|ramfs)([.-].+)?")
#: Where they lie below the top of a filesystem that is no /boot: on a root, in the subvolume of a root that is not the
#: default one.
_FOLDERS = (("boot",), *((name, "boot") for name in ("@", "root", "@rootfs")))
#: Bytes for kernel and initramfs where they cannot be looked for, and the share of the filesystem that is enough.
_UNKNOWN = 128 * MIB
_UNKNOWN_SHARE = 4


class Kernels(msgspec.Struct, frozen=True):
    """What a filesystem has to do with kernels.

    Attributes:
        room: bytes that one more kernel with its initramfs takes: as much as the largest of each; 0 where none are.
        boot: they lie at its top: it is a /boot.
    """

    room: int = 0
    boot: bool = False


def kernels_on(source: VolumeSource, kind: FilesystemKind) -> Kernels:
    """Look for kernels on a stored volume. A filesystem whose files cannot be listed may have some."""
    if kind not in _KINDS:
        return Kernels()
    try:
        tree = Tree(source)
        top = _files(tree, tree.root)
        room = _room(tree, top)
        if room:
            return Kernels(room, boot=True)
        for path in _FOLDERS:
            folder = _folder(tree, top, path)
            room = _room(tree, _files(tree, folder)) if folder is not None else 0
            if room:
                return Kernels(room)
        return _by_default(tree) if kind is FilesystemKind.BTRFS else Kernels()
    except (DamagedError, RefusedError):
        return Kernels(min(_UNKNOWN, source.size // _UNKNOWN_SHARE))


def _by_default(tree: Tree) -> Kernels:
    """Of the subvolume that is mounted when none is named: openSUSE's root is one of snapper's snapshots."""
    default = tree.default
    if default.entry.node == tree.root.entry.node:
        return Kernels()
    files = _files(tree, default)
    room = _room(tree, files)
    if room:
        return Kernels(room, boot=True)
    folder = _folder(tree, files, ("boot",))
    return Kernels(_room(tree, _files(tree, folder)) if folder is not None else 0)


def _files(tree: Tree, folder: Found) -> dict[str, tuple[str, int, Kind | None]]:
    """By name: path, node and kind of what is in a folder; listed once, for it is read from the repository."""
    top = folder.path.rstrip("/")
    return {name: (f"{top}/{name}", node, kind) for name, node, kind in tree.names(folder)}


def _folder(tree: Tree, top: dict[str, tuple[str, int, Kind | None]], path: tuple[str, ...]) -> Found | None:
    """A folder by the names below the top, or None."""
    name, *others = path
    if name not in top:
        return None
    here: Found | None = tree.node(*top[name][:2])
    for name in others:
        here = tree.child(here, name) if here is not None and here.entry.kind is Kind.FOLDER else None
    return here if here is not None and here.entry.kind is Kind.FOLDER else None


def _room(tree: Tree, files: dict[str, tuple[str, int, Kind | None]]) -> int:
    """The largest kernel and the largest initramfs of a folder; 0 without a kernel. Links are none."""
    sizes = {_KERNEL: 0, _INITRAMFS: 0}
    for name, (path, node, kind) in files.items():
        if kind not in (None, Kind.FILE):
            continue
        for pattern in sizes:
            if pattern.fullmatch(name):
                entry = tree.node(path, node).entry
                if entry.kind is Kind.FILE:
                    sizes[pattern] = max(sizes[pattern], entry.size)
    return sum(sizes.values()) if sizes[_KERNEL] else 0
