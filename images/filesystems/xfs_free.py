"""Free space of XFS: the headers of the allocation groups, their B+trees by block, the extents that remain in use.

Works group by group and leaf by leaf, so that memory does not grow with the filesystem. Whatever does not agree with
itself raises DamagedError with a sentence for the user; ``xfs.py`` turns it into "captured whole".
"""

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.errors import DamagedError
from images.filesystems import c_xfs
from images.filesystems.c_xfs import GroupHeader, Superblock, parse_group_header, parse_superblock
from images.filesystems.checksums import CRC32C, crc_of_rows
from images.model.extents import Extent, merge
from images.sources import BlockSource

#: Groups whose headers are looked at together, and leaves of a tree: 4 MiB of the largest blocks.
_BATCH = 64

_Blocks = NDArray[np.int64]


class Group(msgspec.Struct, frozen=True):
    """An allocation group as its header describes it: ``listed`` are the blocks of its free list, sorted."""

    number: int
    length: int
    header: GroupHeader
    listed: _Blocks


def check_groups(source: BlockSource, superblock: Superblock) -> None:
    """Read all that is known of free space once, and hold it against checksums, bounds and counts.

    Raises:
        DamagedError: something does not agree.
        DeviceError: the source cannot be read.
    """
    total = 0
    for group in _groups(source, superblock):
        free = longest = 0
        for records in _free_records(source, superblock, group):
            free += int(records[:, 1].sum())
            longest = max(longest, int(records[:, 1].max()))
        header = group.header
        if (free, longest) != (header.free, header.longest):
            raise DamagedError(
                f"allocation group {group.number} counts {header.free} free blocks, {header.longest} at most together, "
                f"but lists {free} and {longest}"
            )
        total += free + header.list_count + (header.btree_blocks if superblock.lazy_count else 0)
    if total != superblock.free_blocks:
        raise DamagedError(f"its superblock counts {superblock.free_blocks} free blocks, its allocation groups {total}")


def used_extents(source: BlockSource, superblock: Superblock) -> Iterator[Extent]:
    """The bytes in use, merged: all that is in no tree of free space, the free lists and the trees among it.

    Space of the volume behind the end of the filesystem belongs to no file and is not yielded.

    Raises:
        DamagedError: the source has changed since it was checked.
        DeviceError: the source cannot be read.
    """
    return merge(_extents(source, superblock))


def _extents(source: BlockSource, superblock: Superblock) -> Iterator[Extent]:
    size = superblock.block_size
    for group in _groups(source, superblock):
        base, position = superblock.group_offset(group.number), 0
        for records in _free_records(source, superblock, group):
            for start, count in records.tolist():
                yield Extent(base + position * size, base + start * size)
                position = start + count
        yield Extent(base + position * size, base + group.length * size)


def _groups(source: BlockSource, superblock: Superblock) -> Iterator[Group]:
    """All groups, their headers checked; some are read together."""
    for first in range(0, superblock.group_count, _BATCH):
        numbers = range(first, min(first + _BATCH, superblock.group_count))
        size = superblock.sector_size
        content = b"".join(source.read_at(superblock.group_offset(number), 4 * size) for number in numbers)
        sectors = np.frombuffer(content, dtype=np.uint8).reshape(len(numbers), 4, size)
        if superblock.checksummed:
            for index, offset, name in (
                (0, c_xfs.SUPERBLOCK_CRC_OFFSET, "superblock"),
                (1, c_xfs.AGF_CRC_OFFSET, "header"),
                (3, c_xfs.AGFL_CRC_OFFSET, "free list"),
            ):
                wrong = ~checksums_match(sectors[:, index], offset)
                if wrong.any():
                    number = first + int(wrong.argmax())
                    raise DamagedError(f"the {name} of allocation group {number} does not match its checksum")
        for number, (copy, header, _, listed) in zip(numbers, sectors, strict=True):
            _check_copy(superblock, number, copy.tobytes())
            yield _group(superblock, number, header.tobytes(), listed.tobytes())


def checksums_match(rows: NDArray[np.uint8], offset: int) -> NDArray[np.bool_]:
    """Whether each row agrees with the CRC-32C that it holds at ``offset`` (little-endian, zero while computed)."""
    covered = rows.copy()
    covered[:, offset : offset + 4] = 0
    found = ~crc_of_rows(CRC32C, np.full(len(rows), 0xFFFFFFFF, dtype=np.uint32), covered)
    stored = np.ascontiguousarray(rows[:, offset : offset + 4]).view("<u4")[:, 0]
    return np.asarray(found == stored, dtype=np.bool_)


def _check_copy(superblock: Superblock, number: int, sector: bytes) -> None:
    """A group's copy of the superblock describes the same filesystem."""
    copy = parse_superblock(sector)
    fields = ("magic", "block_size", "blocks_count", "group_blocks", "group_count", "sector_size", "stamp")
    for field in fields:
        if getattr(copy, field) != getattr(superblock, field):
            raise DamagedError(
                f"its superblock and the copy in allocation group {number} contradict each other ({field})"
            )


def _group(superblock: Superblock, number: int, sector: bytes, list_sector: bytes) -> Group:
    header = parse_group_header(sector)
    length = superblock.group_length(number)
    expected = {"magic": c_xfs.AGF_MAGIC, "version": 1, "number": number, "length": length}
    if superblock.checksummed:
        expected["uuid"] = superblock.stamp
    for field, value in expected.items():
        if getattr(header, field) != value:
            raise DamagedError(
                f"the header of allocation group {number} is damaged: "
                f"its {field} is {getattr(header, field)!r}, not {value!r}"
            )
    if not 1 <= header.levels <= c_xfs.MAX_LEVELS:
        raise DamagedError(f"allocation group {number} has a tree of free space with {header.levels} levels")
    return Group(number, length, header, _free_list(superblock, header, list_sector))


def _free_list(superblock: Superblock, header: GroupHeader, sector: bytes) -> _Blocks:
    """The blocks that a group keeps for the growth of its trees, sorted: a ring of which a part is in use."""
    size, number = superblock.list_size, header.number
    if superblock.checksummed and (sector[:4], sector[4:8], sector[8:24]) != (
        c_xfs.AGFL_MAGIC,
        number.to_bytes(4, "big"),
        superblock.stamp,
    ):
        raise DamagedError(f"the free list of allocation group {number} is another's")
    if header.list_count == 0:
        return np.zeros(0, dtype=np.int64)
    ends_right = (header.list_first + header.list_count - 1) % size == header.list_last
    if header.list_first >= size or header.list_count > size or not ends_right:
        raise DamagedError(
            f"the free list of allocation group {number} has {header.list_count} entries, "
            f"from {header.list_first} to {header.list_last} of {size}"
        )
    ring = np.frombuffer(sector, dtype=">u4", count=size, offset=superblock.list_header).astype(np.int64)
    listed = np.sort(ring[(header.list_first + np.arange(header.list_count)) % size])
    if int(listed[0]) < superblock.reserved_blocks or int(listed[-1]) >= header.length:
        raise DamagedError(f"the free list of allocation group {number} names a block outside it")
    return listed


def _free_records(source: BlockSource, superblock: Superblock, group: Group) -> Iterator[_Blocks]:
    """The free extents of a group in order, some together: rows of first block and number of blocks, never none.

    Blocks count from the start of the group. Each leaf must bring records behind those of the one before, so that
    pointers that go round in circles end in an error.
    """
    position = superblock.reserved_blocks
    for records in _leaves(source, superblock, group, group.header.root, group.header.levels - 1):
        if not len(records):
            continue
        starts, ends = records[:, 0], records[:, 0] + records[:, 1]
        if (
            int(starts[0]) < position
            or int(ends[-1]) > group.length
            or (records[:, 1] <= 0).any()
            or (starts[1:] < ends[:-1]).any()
        ):
            raise DamagedError(
                f"the free space of allocation group {group.number} overlaps, is out of order or leaves the group"
            )
        _check_taken(superblock, group, starts, ends)
        position = int(ends[-1])
        yield records


def _check_taken(superblock: Superblock, group: Group, starts: _Blocks, ends: _Blocks) -> None:
    """Neither the log nor the free list nor the root of the tree may be free."""
    log = superblock.log_group_block
    if superblock.log_group == group.number and ((starts < log + superblock.log_blocks) & (ends > log)).any():
        raise DamagedError(f"the log lies in free space of allocation group {group.number}")
    taken = np.append(group.listed, group.header.root)
    within = np.searchsorted(starts, taken, side="right") - 1
    if ((within >= 0) & (taken < ends[within])).any():
        raise DamagedError(f"free space of allocation group {group.number} lists a block that is in use")


def _leaves(source: BlockSource, superblock: Superblock, group: Group, block: int, level: int) -> Iterator[_Blocks]:
    """The records below one block of the tree; recursion is as deep as the tree has levels."""
    rows = _tree_blocks(source, superblock, group, np.array([block]), level)
    if level == 0:
        yield _records(superblock, group, rows, root=group.header.levels == 1)
        return
    pointers = _pointers(superblock, group, rows[0])
    if level > 1:
        for pointer in pointers.tolist():
            yield from _leaves(source, superblock, group, pointer, level - 1)
        return
    for first in range(0, len(pointers), _BATCH):
        batch = pointers[first : first + _BATCH]
        yield _records(superblock, group, _tree_blocks(source, superblock, group, batch, 0), root=False)


def _tree_blocks(
    source: BlockSource, superblock: Superblock, group: Group, numbers: _Blocks, level: int
) -> NDArray[np.uint8]:
    """Blocks of the tree, one row for each, that say that they belong where they were found."""
    size = superblock.block_size
    if (numbers < superblock.reserved_blocks).any() or (numbers >= group.length).any():
        raise DamagedError(f"the tree of free space of allocation group {group.number} points outside it")
    base = superblock.group_offset(group.number)
    content = b"".join(source.read_at(base + number * size, size) for number in numbers.tolist())
    rows = np.frombuffer(content, dtype=np.uint8).reshape(len(numbers), size)
    magic = c_xfs.BNO_CRC_MAGIC if superblock.checksummed else c_xfs.BNO_MAGIC
    words = np.ascontiguousarray(rows[:, :16]).view(">u4")
    right = (rows[:, :4] == np.frombuffer(magic, dtype=np.uint8)).all(axis=1)
    right &= words[:, 1] >> 16 == level
    right[1:] &= words[1:, 2] == numbers[:-1]  # each names the one to its left and to its right
    right[:-1] &= words[:-1, 3] == numbers[1:]
    if superblock.checksummed:
        addresses = (base + numbers * size) // 512
        right &= np.ascontiguousarray(rows[:, 16:24]).view(">u8")[:, 0].astype(np.int64) == addresses
        right &= (rows[:, 32:48] == np.frombuffer(superblock.stamp, dtype=np.uint8)).all(axis=1)
        right &= np.ascontiguousarray(rows[:, 48:52]).view(">u4")[:, 0] == group.number
        right &= checksums_match(rows, c_xfs.BTREE_CRC_OFFSET)
    if not right.all():
        number = int(numbers[(~right).argmax()])
        raise DamagedError(
            f"block {number} of allocation group {group.number}, at byte {base + number * size}, "
            f"is no sound block of its tree of free space (level {level})"
        )
    return rows


def _records(superblock: Superblock, group: Group, rows: NDArray[np.uint8], *, root: bool) -> _Blocks:
    """The records of leaves, in order; only a tree that is a single leaf may be empty."""
    most = (superblock.block_size - superblock.tree_header) // 8
    counts = _counts(group, rows, most, 0 if root else 1)
    start = superblock.tree_header
    pairs = np.ascontiguousarray(rows[:, start : start + 8 * most]).view(">u4").reshape(len(rows), most, 2)
    return pairs[np.arange(most) < counts[:, None]].astype(np.int64)


def _pointers(superblock: Superblock, group: Group, row: NDArray[np.uint8]) -> _Blocks:
    """The blocks one level below: pointers lie behind room for all keys a block can hold."""
    most = (superblock.block_size - superblock.tree_header) // 12
    count = int(_counts(group, row.reshape(1, -1), most, 1)[0])
    start = superblock.tree_header + 8 * most
    return np.ascontiguousarray(row[start : start + 4 * count]).view(">u4").astype(np.int64)


def _counts(group: Group, rows: NDArray[np.uint8], most: int, least: int) -> _Blocks:
    counts = np.ascontiguousarray(rows[:, 6:8]).view(">u2")[:, 0].astype(np.int64)
    wrong = (counts < least) | (counts > most)
    if wrong.any():
        raise DamagedError(
            f"a block of the tree of free space of allocation group {group.number} holds "
            f"{int(counts[wrong.argmax()])} records; {least} to {most} are possible"
        )
    return counts
