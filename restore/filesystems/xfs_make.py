"""A fresh XFS like a stored one: the words for mkfs.xfs, and what of the old one it could not have.

The features are those of the old filesystem, not those that are new in the tools: the kernel and the boot loader of
the restored machine know these. Fields: kernel fs/xfs/libxfs/xfs_format.h; words: mkfs.xfs(8).
"""

import struct
from uuid import UUID

from core.units import MIB
from images.filesystems import c_xfs
from images.filesystems.c_xfs import Features2, Incompat, RoCompat, Superblock
from images.sources import BlockSource

_QUOTA_FLAGS_AT, _INODE_SIZE_AT, _DIRECTORY_LOG_AT = 176, 104, 192
#: Below this mkfs.xfs makes one only for those who insist (xfsprogs 5.19 and newer).
_SMALL = 300 * MIB


def doubts(source: BlockSource) -> tuple[str, ...]:
    """What the stored XFS has that cannot be made again: reasons against, for a plan."""
    superblock = c_xfs.parse_superblock(source.read_at(0, c_xfs.SUPERBLOCK_SIZE))
    found = []
    if superblock.realtime_blocks:
        found.append("it has a realtime section, whose files cannot be read out of an image")
    if not superblock.log_start:
        found.append("its log is on another device")
    if superblock.checksummed and superblock.incompat & Incompat.METADIR:
        found.append("it keeps its metadata in a folder of its own (metadir)")
    return tuple(found)


def block_size(source: BlockSource, sector_size: int) -> int:
    """Bytes of a block of the XFS that :func:`mkfs_words` makes."""
    return max(c_xfs.parse_superblock(source.read_at(0, c_xfs.SUPERBLOCK_SIZE)).block_size, sector_size)


def log_size(source: BlockSource) -> int:
    """Bytes of the stored XFS's own log, which no copy of its files has."""
    superblock = c_xfs.parse_superblock(source.read_at(0, c_xfs.SUPERBLOCK_SIZE))
    return superblock.log_blocks * superblock.block_size if superblock.log_start else 0


def has_quotas(source: BlockSource) -> bool:
    """Whether quotas were counted: limits are not files and are not copied."""
    return any(source.read_at(_QUOTA_FLAGS_AT, 2))


def mkfs_words(source: BlockSource, size: int, sector_size: int, node: str) -> list[str]:
    """The command that makes an XFS of ``size`` bytes with UUID, label and features of the stored one.

    Args:
        sector_size: of the device, in bytes.
    """
    content = source.read_at(0, c_xfs.SUPERBLOCK_SIZE)
    old = c_xfs.parse_superblock(content)
    (inode_size,) = struct.unpack_from(">H", content, _INODE_SIZE_AT)
    directory = max(old.block_size << content[_DIRECTORY_LOG_AT], sector_size)
    words = ["mkfs.xfs", "-f", "-q", "-b", f"size={max(old.block_size, sector_size)}"]
    words += ["-s", f"size={max(old.sector_size, sector_size)}"]
    words += ["-m", _metadata(old), "-i", _inodes(old, inode_size), "-n", _names(old, directory)]
    label = old.name.split(b"\0", 1)[0].decode(errors="surrogateescape")
    words += ["-L", label] if label else []
    words += ["--unsupported"] if size < _SMALL else []
    return [*words, node]


def _metadata(old: Superblock) -> str:
    flags = {"finobt": RoCompat.FINOBT, "rmapbt": RoCompat.RMAPBT, "reflink": RoCompat.REFLINK}
    flags["inobtcount"] = RoCompat.INOBT_COUNT
    words = [f"uuid={UUID(bytes=old.uuid)}", f"crc={int(old.checksummed)}"]
    words += [f"{name}={int(old.checksummed and bool(old.ro_compat & flag))}" for name, flag in flags.items()]
    words.append(f"bigtime={int(old.checksummed and bool(old.incompat & Incompat.BIG_TIME))}")
    return ",".join(words)


def _inodes(old: Superblock, size: int) -> str:
    words = [f"size={size}"]
    if not old.checksummed:
        wide = bool(old.features2 & Features2.PROJECT_ID_32)
        return ",".join([*words, "sparse=0", "nrext64=0", f"projid32bit={int(wide)}"])
    words.append(f"sparse={int(bool(old.incompat & Incompat.SPARSE_INODES))}")
    words.append(f"nrext64={int(bool(old.incompat & Incompat.NREXT64))}")
    # Words of newer tools, used only where the old filesystem was made by them.
    words += ["exchange=1"] if old.incompat & Incompat.EXCHANGE_RANGE else []
    return ",".join(words)


def _names(old: Superblock, directory: int) -> str:
    words = [f"size={directory}"]
    if not old.checksummed:
        words.append(f"ftype={int(bool(old.features2 & Features2.FTYPE))}")
    elif old.incompat & Incompat.PARENT:
        words.append("parent=1")
    return ",".join(words)
