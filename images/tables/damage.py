"""How a table reader says that a table cannot be believed: source, offset, field, expected, found."""

import itertools
from collections.abc import Iterable

from core.errors import DamagedError
from images.model.layout import Partition
from images.sources import BlockSource, FileSource


def describe(source: BlockSource) -> str:
    """The source in words for the user: its path where it has one."""
    return str(source.path) if isinstance(source, FileSource) else "the disk"


def damaged(source: BlockSource, offset: int, field: str, expected: object, found: object) -> DamagedError:
    """The error for one field at ``offset`` bytes that is not what its format promises."""
    return DamagedError(
        f"{describe(source)}: partition table at byte {offset}: {field}: expected {expected}, found {found}.",
        hint="sfdisk --verify and gdisk show the table in detail; liferaft changes nothing on a source.",
    )


def refuse_overlaps(source: BlockSource, offset: int, partitions: Iterable[Partition]) -> None:
    """Raise DamagedError, naming the table at ``offset`` bytes, when two of the partitions share sectors."""
    ordered = sorted(partitions, key=lambda partition: partition.start_lba)
    for before, after in itertools.pairwise(ordered):
        if after.start_lba < before.end_lba:
            expected = f"not below LBA {before.end_lba}, where partition {before.number} ends"
            raise damaged(source, offset, f"start of partition {after.number}", expected, after.start_lba)
