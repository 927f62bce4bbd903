"""Which reader a volume needs, by its signatures; and the sentence for those that have none."""

import importlib
from collections.abc import Callable
from typing import cast

from core.errors import RefusedError
from images.browse.entry import Filesystem
from images.filesystems.containers import container_name
from images.model.filesystem import MemberKind
from images.sources import BlockSource

#: Offset and bytes of a signature, and the reader behind it: the module beside this one and its class, loaded when a
#: volume needs it, because all of them together take a tenth of a second. FAT has the weakest signature and comes last.
_SIGNATURES = (
    (1024 + 56, b"\x53\xef", "ext", "ExtFilesystem"),
    (0, b"XFSB", "xfs", "XfsFilesystem"),
    (65536 + 64, b"_BHRfS_M", "btrfs", "BtrfsFilesystem"),
    (3, b"NTFS    ", "ntfs", "NtfsFilesystem"),
    (3, b"EXFAT   ", "exfat", "ExfatFilesystem"),
    (510, b"\x55\xaa", "fat", "FatFilesystem"),
)
_CONTAINERS = {
    MemberKind.LUKS: "is encrypted with LUKS",
    MemberKind.LVM: "is a physical volume of LVM",
    MemberKind.MD: "is a member of a Linux software RAID",
    MemberKind.BCACHE: "belongs to a bcache",
}


def container_sentence(source: BlockSource) -> str:
    """Why files cannot be read from a volume that others are built on; empty when it is none of those."""
    name = container_name(source)
    return f"it {_CONTAINERS[name]}; its files cannot be read out of an image yet" if name else ""


def open_filesystem(source: BlockSource, name: str) -> Filesystem:
    """The filesystem of a volume.

    Args:
        name: the volume, for errors.

    Raises:
        RefusedError: it holds none that liferaft can read files from.
        DamagedError: what it holds contradicts itself; errors of the library come through.
    """
    if reason := container_sentence(source):
        raise RefusedError(f"{name}: {reason}.", hint="restore or export give it back as it was.")
    if _at(source, 4096 - 10, 10) in (b"SWAPSPACE2", b"SWAP-SPACE"):
        raise RefusedError(f"{name} is swap space: it holds no files.")
    for offset, signature, module, reader in _SIGNATURES:
        if _at(source, offset, len(signature)) != signature:
            continue
        if module == "fat" and not _like_fat(source):
            continue
        return _reader(module, reader)(source)
    raise RefusedError(
        f"{name} holds no filesystem liferaft can read files from.",
        hint="It reads ext2/3/4, NTFS, FAT, exFAT, XFS and btrfs; export gives you the whole disk as a file.",
    )


def _reader(module: str, name: str) -> Callable[[BlockSource], Filesystem]:
    found = getattr(importlib.import_module(f"images.browse.{module}"), name)
    return cast(Callable[[BlockSource], Filesystem], found)


def _like_fat(source: BlockSource) -> bool:
    """A boot sector's end mark is shared by all boot sectors: FAT's own fields must make sense too."""
    sector = _at(source, 0, 64)
    size, per_cluster, copies = int.from_bytes(sector[11:13], "little"), sector[13], sector[16]
    return size in (512, 1024, 2048, 4096) and per_cluster.bit_count() == 1 and copies in (1, 2)


def _at(source: BlockSource, offset: int, length: int) -> bytes:
    """The bytes at ``offset``, or none where the source is too small for them."""
    return source.read_at(offset, length) if offset + length <= source.size else b""
