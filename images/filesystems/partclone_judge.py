"""Whether the map that partclone makes of a filesystem would be current: what a superblock says about it.

partclone reads what lies on the disk and mostly does not ask whether a log has still to be played or other devices
belong to it; it also goes on, and ends well, when a block cannot be read. So it is only asked about filesystems that
are found clean here, and its answer is held against the count of used bytes that the filesystem itself keeps. A kind
that cannot be judged is not believed. Structures: kernel include/uapi/linux/btrfs_tree.h, include/linux/f2fs_fs.h,
include/uapi/linux/minix_fs.h; Apple's Technical Note TN1150 (HFS Plus).
"""

import struct
from collections.abc import Callable

import msgspec

from core.errors import DamagedError
from images.filesystems import partclone_btrfs
from images.filesystems.checksums import crc
from images.filesystems.partclone_btrfs import checksum_matches, tree_extents
from images.model.extents import Extent, merge
from images.model.layout import FilesystemKind
from images.sources import BlockSource

_CRC32 = 0xEDB88320

#: Of the superblock, beside the first.
_BTRFS_COPIES = (64 << 20, 256 << 30)
#: Nothing is ever allocated below; boot loaders use it.
_BTRFS_RESERVED = 1 << 20
_BTRFS_FLAGS = 0x3  # written, relocated
#: All up to RAID1C34: not zoned, extent tree v2, RAID stripe tree, simple quota, which change how extents are kept.
_BTRFS_INCOMPAT = 0xFFF
_BTRFS_RO_COMPAT = 0xF  # free space tree and that it is valid, verity, block group tree

_F2FS_MAGIC = 0xF2F52010
_F2FS_BLOCK = 4096
#: All up to compression and read-only, but not zoned.
_F2FS_FEATURES = 0x7FFF & ~0x2
_F2FS_UNMOUNTED = 0x1
_F2FS_TROUBLE = 0x8 | 0x10 | 0x1000 | 0x2000 | 0x4000  # error, fsck, disabled, disabled in haste, being resized

_HFS_UNMOUNTED, _HFS_INCONSISTENT, _HFS_JOURNALED = 0x100, 0x800, 0x2000

_MINIX_MAGIC = (0x137F, 0x138F, 0x2468, 0x2478)


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the superblock says. Sizes in bytes.

    Attributes:
        doubt: why a map would not be believed; empty when it would.
        size, block_size: of the filesystem.
        at_least: as much must be in use.
        kept: what is kept whatever the map says, sorted.
    """

    doubt: str = ""
    size: int = 0
    block_size: int = 0
    at_least: int = 0
    kept: tuple[Extent, ...] = ()


def judge(kind: FilesystemKind, source: BlockSource) -> Judgement:
    """What the superblock of a filesystem of that kind says.

    Raises:
        DeviceError: the source cannot be read.
    """
    judges: dict[FilesystemKind, Callable[[BlockSource], Judgement]] = {
        FilesystemKind.BTRFS: _judge_btrfs,
        FilesystemKind.F2FS: _judge_f2fs,
        FilesystemKind.HFSPLUS: _judge_hfsplus,
        FilesystemKind.MINIX: _judge_minix,
    }
    if kind not in judges:
        return Judgement(doubt="liferaft cannot tell whether its map is current")
    judgement = judges[kind](source)
    if not judgement.doubt and judgement.size > source.size:
        reason = f"it claims {judgement.size} bytes, but the volume has {source.size}"
        return msgspec.structs.replace(judgement, doubt=reason)
    return judgement


def _at(source: BlockSource, offset: int, length: int) -> bytes:
    """The bytes at ``offset``, zeros where the source is too small for them."""
    return source.read_at(offset, length) if offset + length <= source.size else bytes(length)


def _judge_btrfs(source: BlockSource) -> Judgement:
    """A log tree is not in the extent tree, and files that were synced lie in it; other devices hold what is missing.

    Otherwise btrfs is never dirty: what the superblock points to is whole.
    """
    content = _at(source, partclone_btrfs.OFFSET, partclone_btrfs.SIZE)
    own, flags, magic, log_root, size, used, devices, sector_size, node_size = struct.unpack_from(
        "<16xQQ8s24xQ8xQQ8xQII", content, 32
    )
    ro_compat, incompat, checksum_type = struct.unpack_from("<QQH", content, 180)
    damage = "its superblock is damaged: "
    if magic != b"_BHRfS_M" or own != partclone_btrfs.OFFSET:
        return Judgement(doubt=f"{damage}it is not where it says it is")
    if not checksum_matches(content, checksum_type):
        return Judgement(doubt=f"{damage}it does not match its checksum")
    if checksum_type > 3 or incompat & ~_BTRFS_INCOMPAT or ro_compat & ~_BTRFS_RO_COMPAT:
        features = f"incompat {incompat:#x}, ro_compat {ro_compat:#x}, checksum {checksum_type}"
        return Judgement(doubt=f"it has features liferaft does not know ({features})")
    if not 512 <= sector_size <= node_size <= 65536 or used > size:
        return Judgement(doubt=f"{damage}blocks of {sector_size} and {node_size} bytes, {used} of {size} bytes in use")
    if devices != 1:
        return Judgement(doubt=f"it lies on {devices} devices")
    if flags & ~_BTRFS_FLAGS:
        return Judgement(doubt=f"it is a seed, was damaged or is being changed (flags {flags:#x})")
    if log_root:
        return Judgement(doubt="its log needs recovery: it is mounted, or was not cleanly unmounted")
    if size > source.size:
        return Judgement(doubt=f"it claims {size} bytes, but the volume has {source.size}")
    copies = [Extent(offset, offset + node_size) for offset in _BTRFS_COPIES if offset + node_size <= size]
    try:
        trees = tree_extents(source, content)
    except DamagedError as error:
        return Judgement(doubt=error.message)
    kept = tuple(merge(sorted([Extent(0, _BTRFS_RESERVED), *copies, *trees])))
    return Judgement(size=size, block_size=sector_size, at_least=used, kept=kept)


def _judge_f2fs(source: BlockSource) -> Judgement:
    """What was synced after the last checkpoint is in no map: only the checkpoint of an unmount is believed."""
    content = _at(source, 1024, 3072)
    magic, block_log, segment_log = struct.unpack_from("<I12xII", content)
    blocks, checkpoint, main = struct.unpack_from("<36xQ32xI12xI", content)
    features, device = struct.unpack_from("<I17xB", content, 2180)
    if magic != _F2FS_MAGIC or block_log != 12 or segment_log != 9:
        return Judgement(doubt=f"it has blocks of 2^{block_log} bytes in segments of 2^{segment_log}")
    if features & ~_F2FS_FEATURES:
        return Judgement(doubt=f"it has features liferaft does not know ({features:#x})")
    if device:
        return Judgement(doubt="it lies on several devices")
    if not checkpoint < main < blocks:
        return Judgement(doubt="its superblock is damaged: its areas are out of order")
    packs = [_f2fs_checkpoint(source, checkpoint + number * 512) for number in range(2)]
    version, flags, valid = max(packs)
    if version == 0:
        return Judgement(doubt="it has no sound checkpoint")
    if not flags & _F2FS_UNMOUNTED:
        return Judgement(doubt="it is mounted, or was not cleanly unmounted")
    if flags & _F2FS_TROUBLE:
        return Judgement(doubt=f"it has recorded errors: run fsck.f2fs (flags {flags:#x})")
    size = blocks * _F2FS_BLOCK
    at_least = (main + valid) * _F2FS_BLOCK
    metadata = Extent(0, main * _F2FS_BLOCK)
    return Judgement(size=size, block_size=_F2FS_BLOCK, at_least=at_least, kept=(metadata,))


def _f2fs_checkpoint(source: BlockSource, block: int) -> tuple[int, int, int]:
    """Version, flags and valid blocks of a pack whose first and last block are whole; zeros when they are not."""
    first = _at(source, block * _F2FS_BLOCK, _F2FS_BLOCK)
    version, valid = struct.unpack_from("<Q8xQ", first)
    flags, length = struct.unpack_from("<II", first, 132)
    offset = struct.unpack_from("<I", first, 164)[0]
    if not 192 <= offset <= _F2FS_BLOCK - 4 or not 0 < length <= 512:
        return 0, 0, 0
    last = _at(source, (block + length - 1) * _F2FS_BLOCK, _F2FS_BLOCK)
    for pack in (first, last):
        place = struct.unpack_from("<I", pack, 164)[0]
        if place != offset or crc(_CRC32, _F2FS_MAGIC, pack[:offset]) != struct.unpack_from("<I", pack, offset)[0]:
            return 0, 0, 0
    return (version, flags, valid) if last[:8] == first[:8] else (0, 0, 0)


def _judge_hfsplus(source: BlockSource) -> Judgement:
    """Unmounted, consistent, and nothing in the journal. A volume wrapped in old HFS is not believed."""
    header = _at(source, 1024, 512)
    signature, attributes, journal = struct.unpack_from(">2s2xI4xI", header)
    block_size, blocks, free = struct.unpack_from(">III", header, 40)
    if signature not in (b"H+", b"HX"):
        return Judgement(doubt="it is wrapped in an old HFS volume")
    if not 512 <= block_size <= 1 << 20 or block_size.bit_count() != 1 or free > blocks:
        return Judgement(
            doubt=f"its volume header is damaged: {free} of {blocks} blocks of {block_size} bytes are free"
        )
    if not attributes & _HFS_UNMOUNTED or attributes & _HFS_INCONSISTENT:
        return Judgement(doubt="it is mounted, or was not cleanly unmounted")
    if attributes & _HFS_JOURNALED and not _hfs_journal_is_empty(source, journal * block_size):
        return Judgement(doubt="its journal needs recovery, or is on another device")
    # the other copy of the header lies in the last but one sector of the volume
    size, used = blocks * block_size, (blocks - free) * block_size
    return Judgement(
        size=size, block_size=block_size, at_least=used, kept=(Extent(0, 2048), Extent(max(size - 2048, 2048), size))
    )


def _hfs_journal_is_empty(source: BlockSource, info: int) -> bool:
    flags, offset = struct.unpack(">I32xQ", _at(source, info, 44))
    header = _at(source, offset, 24)
    order = ">" if header[:4] == b"JNLx" else "<"
    magic, endian, start, end = struct.unpack(f"{order}IIQQ", header)
    return bool(flags & 1 and magic == 0x4A4E4C78 and endian == 0x12345678 and start == end)


def _judge_minix(source: BlockSource) -> Judgement:
    """Versions 1 and 2 say whether they were unmounted; version 3 does not."""
    header = _at(source, 1024, 32)
    zones16, inode_map, zone_map, first_zone, zone_log = struct.unpack_from("<2xHHHHH", header)
    magic, state, zones32 = struct.unpack_from("<HHI", header, 16)
    if magic not in _MINIX_MAGIC:
        return Judgement(doubt="its version does not say whether it was unmounted")
    if zone_log:
        return Judgement(doubt=f"its zones are blocks shifted by {zone_log}")
    if state & 3 != 1:
        return Judgement(doubt="it is mounted, was not cleanly unmounted, or has errors")
    zones = zones16 if magic in _MINIX_MAGIC[:2] else zones32
    if not 2 + inode_map + zone_map < first_zone < zones:
        return Judgement(doubt="its superblock is damaged: its areas are out of order")
    metadata = first_zone * 1024
    return Judgement(size=zones * 1024, block_size=1024, at_least=metadata, kept=(Extent(0, metadata),))
