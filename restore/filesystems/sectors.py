"""Sectors of another size: by what means a volume comes from a disk of 512-byte sectors to one of 4096, and back.

Answers from the stored bytes alone, before anything is written: a filesystem that the drivers would refuse on the
other disk is named here with the reason, and not found out at its first mount.

What decides, and where it is written: no driver reads or writes parts of a sector, so nothing that is addressed alone
may be smaller than one. ext: blocks (kernel fs/ext4/super.c, "block size too small for device"). XFS: the sector size
of superblock and log (fs/xfs/xfs_super.c; mkfs.xfs(8) -s). btrfs: its sectorsize (fs/btrfs/disk-io.c). swap: pages.
NTFS: see ``ntfs_sectors.py``. FAT and exFAT count everything in sectors of the disk, and firmware and Windows want
those to be its own.
"""

from core.errors import DamagedError, DeviceError, RefusedError
from images.filesystems import c_xfs
from images.model.layout import Filesystem, FilesystemKind
from images.sources import BlockSource
from restore.filesystems.ntfs_sectors import refusal
from restore.planning.abilities import EXT, FAT, REMAKEABLE
from restore.planning.seat import Means

#: btrfs: where the superblock lies, its magic and its sectorsize in it (kernel: include/uapi/linux/btrfs_tree.h).
_BTRFS_SUPER, _BTRFS_MAGIC_AT, _BTRFS_SECTOR_AT = 65536, 64, 144
#: XFS: the bit of ``versionnum`` that gives sectors of more than 512 bytes, and the size of a sector of the log.
_XFS_HAS_SECTORS, _XFS_LOG_SECTOR_AT = 0x0800, 194


def conversion(source: BlockSource, filesystem: Filesystem | None, old: int, new: int) -> Means | str:
    """By what means the stored volume comes to sectors of ``new`` bytes, or the reason why it cannot.

    Args:
        source: the volume; read only where its kind asks for it.
        old: bytes of a sector of the disk it was captured from.
    """
    kind = filesystem.kind if filesystem is not None else FilesystemKind.UNKNOWN
    if old == new:
        return Means.STREAM
    if source.size % new:
        return f"its {source.size} bytes are not whole sectors of {new} bytes"
    try:
        return _answer(source, filesystem, kind, new)
    except (DamagedError, DeviceError, RefusedError) as error:
        return error.message.rstrip(".")


def _answer(source: BlockSource, filesystem: Filesystem | None, kind: FilesystemKind, new: int) -> Means | str:
    if kind in EXT:
        assert filesystem is not None
        # Blocks cannot be made larger in place: the files move into a filesystem that has larger ones.
        return Means.STREAM if filesystem.block_size >= new else Means.REMAKE
    if kind is FilesystemKind.SWAP:
        assert filesystem is not None
        return _by_size(filesystem.block_size, "pages", kind, new)
    if kind is FilesystemKind.BTRFS:
        return _by_size(btrfs_sector_size(source), "sectors", kind, new)
    if kind is FilesystemKind.XFS:
        size = xfs_sector_size(source)
        if size < new and kind in REMAKEABLE:
            return Means.REMAKE
        return _by_size(size, "sectors", kind, new)
    if kind is FilesystemKind.NTFS:
        return refusal(source, new) or Means.STREAM
    if kind in FAT and kind in REMAKEABLE:
        # Whether its files fit clusters of the new size is found out when its size
        # is known (``restore.planning.contents``).
        return Means.REMAKE
    name = filesystem.detail if filesystem is not None and filesystem.detail else kind
    what = f"it holds {name}" if name != FilesystemKind.UNKNOWN else "it holds something liferaft does not know"
    return f"{what}, which this version does not bring to sectors of {new} bytes"


def _by_size(size: int, what: str, kind: FilesystemKind, new: int) -> Means | str:
    if size < new:
        return f"its {kind} has {what} of {size} bytes, and no driver uses parts of a sector of {new} bytes"
    return Means.STREAM


def xfs_sector_size(source: BlockSource) -> int:
    """Bytes of the smallest unit an XFS reads and writes: a sector of its metadata or of its log.

    Raises:
        DamagedError: there is no superblock of XFS.
    """
    content = source.read_at(0, 512)
    superblock = c_xfs.parse_superblock(content)
    if superblock.magic != c_xfs.MAGIC:
        raise DamagedError(f"Its superblock begins with {superblock.magic!r}, expected {c_xfs.MAGIC!r}.")
    if not superblock.version & _XFS_HAS_SECTORS:
        return 512
    log = int.from_bytes(content[_XFS_LOG_SECTOR_AT : _XFS_LOG_SECTOR_AT + 2], "big")
    return min(superblock.sector_size, log or 512)


def btrfs_sector_size(source: BlockSource) -> int:
    """Bytes of the smallest unit a btrfs reads and writes.

    Raises:
        DamagedError: there is no superblock of btrfs.
    """
    block = source.read_at(_BTRFS_SUPER, 4096)
    if block[_BTRFS_MAGIC_AT : _BTRFS_MAGIC_AT + 8] != b"_BHRfS_M":
        raise DamagedError(f"It has no superblock of btrfs at byte {_BTRFS_SUPER}.")
    return int.from_bytes(block[_BTRFS_SECTOR_AT : _BTRFS_SECTOR_AT + 4], "little")
