"""The reader of the chain of boot records through the logical partitions of an extended one.

LBAs of partitions in a record count from that record, those of the next record from the start of the extended
partition (kernel, block/partitions/msdos.c, parse_extended). Logical partitions are numbered in the order of the chain.
"""

import msgspec

from images.model.layout import BootRecord, Partition, PartitionRole
from images.sources import BlockSource
from images.tables import c_dos
from images.tables.damage import damaged, refuse_overlaps

#: Links of a chain that are followed at most. Linux names at most 256 partitions of a disk.
MAX_LOGICAL = 256


class Chain(msgspec.Struct, frozen=True):
    """What a chain says: its partitions, its records as they lie there, and what is odd about it."""

    partitions: tuple[Partition, ...]
    records: tuple[BootRecord, ...]
    notes: tuple[str, ...]


def read_chain(source: BlockSource, extended: Partition, number: int) -> Chain:
    """The logical partitions inside ``extended``.

    Args:
        number: of the first of them.

    Raises:
        DamagedError: the chain loops, leaves the extended partition, or its partitions contradict each other.
    """
    partitions: list[Partition] = []
    records: list[BootRecord] = []
    notes: list[str] = []
    seen: set[int] = set()
    link: int | None = extended.start_lba
    while link is not None:
        offset = link * source.sector_size
        if link in seen or len(seen) >= MAX_LOGICAL:
            raise damaged(source, offset, "chain of logical partitions", f"at most {MAX_LOGICAL} links, no loop", link)
        seen.add(link)
        content = source.read_at(offset, c_dos.RECORD_SIZE)
        mark = content[c_dos.MARK_OFFSET :]
        if mark != c_dos.MARK:
            if link != extended.start_lba:
                raise damaged(source, offset + c_dos.MARK_OFFSET, "signature of a boot record", "55aa", mark.hex())
            notes.append(f"the extended partition {extended.number} has no boot record: it is empty")
            break
        records.append(BootRecord(lba=link, content=content.hex()))
        entries = c_dos.parse_entries(content)
        if any(entry.used for entry in entries[2:]):
            notes.append(f"the boot record at LBA {link} has more than two entries; the others are not partitions")
        for index, entry in enumerate(entries[:2]):
            if entry.used and not entry.extended:
                where = offset + c_dos.entry_offset(index)
                partitions.append(_logical(source, extended, number + len(partitions), link, entry, where))
        link = _next(source, extended, entries, offset)
    refuse_overlaps(source, extended.start_lba * source.sector_size, partitions)
    return Chain(tuple(partitions), tuple(records), tuple(notes))


def _logical(
    source: BlockSource, extended: Partition, number: int, link: int, entry: c_dos.Entry, where: int
) -> Partition:
    """The partition that ``entry``, at byte ``where``, describes."""
    start = link + entry.start
    if entry.start == 0 or start + entry.count > extended.end_lba:
        expected = f"inside the extended partition, LBA {extended.start_lba} to {extended.end_lba}"
        found = f"{entry.count} sectors from {start}"
        raise damaged(source, where + 8, f"partition {number}", expected, found)
    return partition_of(number, entry, start, PartitionRole.LOGICAL)


def _next(source: BlockSource, extended: Partition, entries: list[c_dos.Entry], offset: int) -> int | None:
    """The LBA of the record behind the one at byte ``offset``, or None at the end of the chain."""
    for index, entry in enumerate(entries[:2]):
        if entry.extended:
            link = extended.start_lba + entry.start
            if link >= extended.end_lba:
                expected = f"below LBA {extended.end_lba}, the end of the extended partition"
                where = offset + c_dos.entry_offset(index) + 8
                raise damaged(source, where, "next boot record", expected, link)
            return link
    return None


def partition_of(number: int, entry: c_dos.Entry, start: int, role: PartitionRole) -> Partition:
    """An entry as a partition from LBA ``start``."""
    return Partition(
        id=f"part{number}",
        number=number,
        start_lba=start,
        sector_count=entry.count,
        type=f"0x{entry.type:02x}",
        role=role,
        active=entry.status == c_dos.ACTIVE,
    )
