"""Block groups of ext2, ext3 and ext4: their descriptors, their bitmaps, the extents in use.

Works group by group, so that a filesystem of 16 TiB needs some 20 MiB of memory. Whatever does not agree
with itself raises DamagedError with a sentence for the user; ``ext.py`` turns it into "captured whole".
"""

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.errors import DamagedError
from images.filesystems.c_ext import Incompat, RoCompat, Superblock
from images.filesystems.checksums import CRC16, CRC32C, crc, crc_of_rows
from images.model.extents import Extent, merge
from images.sources import BlockSource

_BLOCK_UNINIT = 0x2
#: Groups whose bitmaps are looked at together: 256 of 4 KiB unpack to 8 MiB.
_BATCH = 256
#: Blocks of descriptors that are read together.
_DESCRIPTOR_BATCH = 256

_Blocks = NDArray[np.int64]


class Groups(msgspec.Struct, frozen=True):
    """What the descriptors of all groups say, one array element for each group.

    Attributes:
        block_bitmap, inode_bitmap, inode_table: block numbers.
        free: free bits of the block bitmap.
        bitmap_checksum: as stored, 0 where the format has none.
        uninit: the bitmap was never written; the group holds metadata only.
        stray: metadata that lies in uninit groups, by group: half-open ranges of block numbers.
    """

    block_bitmap: _Blocks
    inode_bitmap: _Blocks
    inode_table: _Blocks
    free: _Blocks
    bitmap_checksum: _Blocks
    uninit: NDArray[np.bool_]
    stray: dict[int, list[tuple[int, int]]]


def read_groups(source: BlockSource, superblock: Superblock) -> Groups:
    """All group descriptors, their checksums and bounds checked.

    Raises:
        DamagedError: a descriptor does not match its checksum or points outside the filesystem.
        DeviceError: the source cannot be read.
    """
    parts: dict[str, list[_Blocks]] = {}
    group = 0
    for content in _descriptor_chunks(source, superblock):
        rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, superblock.descriptor_size)
        rows = rows[: superblock.group_count - group]
        if superblock.checks_descriptors:
            _check_descriptors(superblock, group, rows)
        for name, values in _columns(superblock, rows).items():
            parts.setdefault(name, []).append(values)
        group += len(rows)
    fields = {name: np.concatenate(values) for name, values in parts.items()}
    uninit = (fields.pop("flags") & _BLOCK_UNINIT != 0) & superblock.checks_descriptors
    for name, length in _metadata(superblock).items():
        outside = (fields[name] < superblock.first_data_block) | (fields[name] + length > superblock.blocks_count)
        if outside.any():
            number = int(outside.argmax())
            raise DamagedError(f"the {name.replace('_', ' ')} of group {number} lies outside the filesystem")
    return Groups(**fields, uninit=uninit, stray=_stray_metadata(superblock, fields, uninit))


def check_bitmaps(source: BlockSource, superblock: Superblock, groups: Groups) -> None:
    """Read every block bitmap once and compare it with its checksum and with the count of free blocks.

    Raises:
        DamagedError: one of them does not agree.
        DeviceError: the source cannot be read.
    """
    weights = np.unpackbits(np.arange(256, dtype=np.uint8).reshape(-1, 1), axis=1).sum(axis=1, dtype=np.uint8)
    checksummed = superblock.ro_compat & RoCompat.METADATA_CSUM
    seed = checksum_seed(superblock)
    for first, rows in _raw_bitmaps(source, superblock, groups):
        batch = slice(first, first + len(rows))
        if checksummed:
            found = crc_of_rows(CRC32C, np.full(len(rows), seed, dtype=np.uint32), rows).astype(np.int64)
            mask = 0xFFFFFFFF if superblock.descriptor_size >= 64 else 0xFFFF
            _refuse(
                (found & mask != groups.bitmap_checksum[batch]) & ~groups.uninit[batch],
                first,
                "the block bitmap of group {} does not match its checksum",
            )
        _complete(superblock, groups, first, rows)
        used = weights[rows].sum(axis=1, dtype=np.int64)
        free = np.full(len(rows), superblock.bits_per_group, dtype=np.int64) - used
        if first + len(rows) == superblock.group_count:
            free[-1] = _bits_in_last_group(superblock) - used[-1]
        _refuse(
            free != groups.free[batch],
            first,
            "the block bitmap of group {} and its count of free blocks contradict each other",
        )


def used_extents(source: BlockSource, superblock: Superblock, groups: Groups) -> Iterator[Extent]:
    """The bytes in use, merged: the boot block, then what the bitmaps say.

    Space of the volume behind the end of the filesystem belongs to no file and is not yielded.

    Raises:
        DeviceError: the source cannot be read.
    """
    return merge(_extents(source, superblock, groups))


def checksum_seed(superblock: Superblock) -> int:
    """What every metadata checksum starts from: stored, or the CRC of the UUID."""
    if superblock.incompat & Incompat.CSUM_SEED:
        return superblock.checksum_seed
    return crc(CRC32C, 0xFFFFFFFF, superblock.uuid)


def _extents(source: BlockSource, superblock: Superblock, groups: Groups) -> Iterator[Extent]:
    end_of_all = superblock.blocks_count * superblock.block_size
    unit = superblock.cluster_ratio * superblock.block_size
    yield Extent(0, 1024)
    for first, rows in _raw_bitmaps(source, superblock, groups):
        _complete(superblock, groups, first, rows)
        base = superblock.first_block(first) * superblock.block_size
        bits = np.unpackbits(rows[:, : superblock.bits_per_group // 8], bitorder="little")
        edges = np.flatnonzero(np.diff(bits, prepend=np.uint8(0), append=np.uint8(0))) * unit + base
        for start, end in edges.reshape(-1, 2).tolist():
            if start < end_of_all:
                yield Extent(start, min(end, end_of_all))


def _raw_bitmaps(
    source: BlockSource, superblock: Superblock, groups: Groups
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Batches of block bitmaps as they lie on disk: the first group's number, and a row for each group.

    Bitmaps that lie behind each other are read in one go. Rows of uninit groups are zero.
    """
    size, length = superblock.block_size, superblock.bits_per_group // 8
    for first in range(0, superblock.group_count, _BATCH):
        blocks = groups.block_bitmap[first : first + _BATCH]
        uninit = groups.uninit[first : first + _BATCH]
        rows = np.zeros((len(blocks), length), dtype=np.uint8)
        wanted = np.flatnonzero(~uninit)
        breaks = np.flatnonzero((np.diff(blocks[wanted]) != 1) | (np.diff(wanted) != 1)) + 1
        for run in np.split(wanted, breaks):
            if len(run):
                content = source.read_at(int(blocks[run[0]]) * size, len(run) * size)
                rows[run] = np.frombuffer(content, dtype=np.uint8).reshape(-1, size)[:, :length]
        yield first, rows


def _complete(superblock: Superblock, groups: Groups, first: int, rows: NDArray[np.uint8]) -> None:
    """Write the bitmaps of uninit groups into ``rows`` and clear what lies behind the last block."""
    for index in np.flatnonzero(groups.uninit[first : first + len(rows)]).tolist():
        group = first + index
        ranges = [*_reserved(superblock, group), *groups.stray.get(group, ())]
        if ranges:
            rows[index] = _bitmap(superblock, group, ranges)
    if first + len(rows) == superblock.group_count:
        bits = np.unpackbits(rows[-1], bitorder="little")
        bits[_bits_in_last_group(superblock) :] = 0
        rows[-1] = np.packbits(bits, bitorder="little")


def _bits_in_last_group(superblock: Superblock) -> int:
    blocks = superblock.blocks_count - superblock.first_block(superblock.group_count - 1)
    return -(-blocks // superblock.cluster_ratio)


def _bitmap(superblock: Superblock, group: int, ranges: list[tuple[int, int]]) -> NDArray[np.uint8]:
    """The block bitmap of a group in which only ``ranges`` of blocks are in use."""
    bits = np.zeros(superblock.bits_per_group, dtype=np.uint8)
    base, ratio = superblock.first_block(group), superblock.cluster_ratio
    for start, end in ranges:
        low, high = max(start - base, 0), min(end - base, superblock.blocks_per_group)
        bits[low // ratio : -(-high // ratio)] = 1
    return np.packbits(bits, bitorder="little")


def _reserved(superblock: Superblock, group: int) -> list[tuple[int, int]]:
    """Blocks of a group kept for copies of superblock and descriptors (ext2fs_reserve_super_and_bgd)."""
    ranges = []
    block = superblock.superblock_block(group)
    has_superblock = superblock.has_superblock(group)
    if has_superblock:
        ranges.append((superblock.first_block(group), block + 1))
    if not superblock.in_meta_group(group):
        if has_superblock:
            end = min(block + 1 + superblock.old_descriptor_blocks, superblock.blocks_count)
            ranges.append((block + 1, max(end, block + 1)))
    elif group % superblock.descriptors_per_block in (0, 1, superblock.descriptors_per_block - 1):
        ranges.append((block + has_superblock, block + has_superblock + 1))
    return ranges


def _stray_metadata(
    superblock: Superblock, fields: dict[str, _Blocks], uninit: NDArray[np.bool_]
) -> dict[int, list[tuple[int, int]]]:
    """Bitmaps and inode tables of any group that lie in uninit ones.

    Usually a group's own; with flex_bg they may be those of other groups.
    """
    stray: dict[int, list[tuple[int, int]]] = {}
    before = np.concatenate([[0], np.cumsum(uninit)])
    for name, length in _metadata(superblock).items():
        low = (fields[name] - superblock.first_data_block) // superblock.blocks_per_group
        high = (fields[name] + length - 1 - superblock.first_data_block) // superblock.blocks_per_group
        for index in np.flatnonzero(before[high + 1] > before[low]).tolist():
            start = int(fields[name][index])
            for group in range(int(low[index]), int(high[index]) + 1):
                if uninit[group]:
                    stray.setdefault(group, []).append((start, start + length))
    return stray


def _metadata(superblock: Superblock) -> dict[str, int]:
    """Each kind of metadata that a descriptor points to, and its length in blocks."""
    return {"block_bitmap": 1, "inode_bitmap": 1, "inode_table": superblock.inode_table_blocks}


def _descriptor_chunks(source: BlockSource, superblock: Superblock) -> Iterator[bytes]:
    """The primary descriptor table, some blocks at a time, wherever they lie."""
    size, count = superblock.block_size, superblock.descriptor_blocks
    together = min(count, superblock.first_meta_bg if superblock.incompat & Incompat.META_BG else count)
    for index in range(0, together, _DESCRIPTOR_BATCH):
        blocks = min(_DESCRIPTOR_BATCH, together - index)
        yield source.read_at(superblock.descriptor_block(index) * size, blocks * size)
    for index in range(together, count):
        yield source.read_at(superblock.descriptor_block(index) * size, size)


def _columns(superblock: Superblock, rows: NDArray[np.uint8]) -> dict[str, _Blocks]:
    """The fields of descriptors, low and high halves joined (struct ext4_group_desc)."""
    wide = superblock.descriptor_size >= 64
    halves = {
        "block_bitmap": ("<u4", 0, 32),
        "inode_bitmap": ("<u4", 4, 36),
        "inode_table": ("<u4", 8, 40),
        "free": ("<u2", 12, 44),
        "bitmap_checksum": ("<u2", 24, 56),
    }
    columns = {"flags": _column(rows, "<u2", 18)}
    for name, (kind, low, high) in halves.items():
        columns[name] = _column(rows, kind, low)
        if wide:
            columns[name] = columns[name] | (_column(rows, kind, high) << (32 if kind == "<u4" else 16))
    return columns


def _column(rows: NDArray[np.uint8], kind: str, offset: int) -> _Blocks:
    width = np.dtype(kind).itemsize
    return np.ascontiguousarray(rows[:, offset : offset + width]).view(kind)[:, 0].astype(np.int64)


def _check_descriptors(superblock: Superblock, first: int, rows: NDArray[np.uint8]) -> None:
    """Compare descriptors with their checksums (kernel: ext4_group_desc_csum in fs/ext4/super.c)."""
    numbers = np.arange(first, first + len(rows), dtype="<u4").view(np.uint8).reshape(-1, 4)
    if superblock.ro_compat & RoCompat.METADATA_CSUM:
        polynomial, seed = CRC32C, checksum_seed(superblock)
        covered = np.hstack([numbers, rows])
        covered[:, 4 + 30 : 4 + 32] = 0
    else:
        polynomial, seed = CRC16, crc(CRC16, 0xFFFF, superblock.uuid)
        covered = np.hstack([numbers, rows[:, :30], rows[:, 32:]])
    found = crc_of_rows(polynomial, np.full(len(rows), seed, dtype=np.uint32), covered).astype(np.int64)
    wrong = found & 0xFFFF != _column(rows, "<u2", 30)
    _refuse(wrong, first, "the descriptor of group {} does not match its checksum")


def _refuse(wrong: NDArray[np.bool_], first: int, sentence: str) -> None:
    if wrong.any():
        raise DamagedError(sentence.format(first + int(wrong.argmax())))
