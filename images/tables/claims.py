"""What a table document claims, checked before bytes are made of it: documents are written by others, too."""

import itertools
from typing import NoReturn

from core.errors import RefusedError
from images.model.layout import PartitionRole, PartitionTable


def refuse(reason: str) -> NoReturn:
    """Raise RefusedError: a table like this cannot be made."""
    raise RefusedError(f"The partition table cannot be made: {reason}.")


def refuse_impossible(table: PartitionTable, size: int, sector_size: int) -> None:
    """What no table can have, of either kind: partitions outside the disk, in each other, numbered twice.

    Args:
        size: bytes of the disk.

    Raises:
        RefusedError: naming the partition and what is wrong with it.
    """
    numbers = [part.number for part in table.partitions]
    if len(set(numbers)) != len(numbers):
        refuse(f"partition number {next(number for number in numbers if numbers.count(number) > 1)} stands there twice")
    sectors = size // sector_size
    for part in table.partitions:
        if part.number < 1 or part.start_lba < 1 or part.sector_count < 1 or part.end_lba > sectors:
            refuse(f"partition {part.number} has LBA {part.start_lba} to {part.end_lba - 1} of a disk of {sectors}")
    for logical in (False, True):
        # Logical partitions lie inside an extended one and beside each other; so do all others beside each other.
        same = [part for part in table.partitions if (part.role is PartitionRole.LOGICAL) is logical]
        for before, after in itertools.pairwise(sorted(same, key=lambda part: part.start_lba)):
            if after.start_lba < before.end_lba:
                refuse(f"partition {after.number} starts at LBA {after.start_lba}, inside partition {before.number}")


def kept_bytes(text: str, size: int, field: str) -> bytes:
    """Bytes that the document keeps in hex.

    Raises:
        RefusedError: they are not hex, or not ``size`` bytes.
    """
    try:
        content = bytes.fromhex(text) if len(text) == 2 * size else b""
    except ValueError:
        content = b""
    if len(content) != size:
        refuse(f"{field}: expected {size} bytes in hex, found {len(text)} characters: {text[:16]}")
    return content
