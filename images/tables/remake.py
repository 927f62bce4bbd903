"""The parts of a partition table that an image does not keep raw, made again as bytes.

Those are the backup GPT at the end of the disk, a copy of the primary one, and the boot records in front of logical
partitions. Nothing is written here: the pieces are data for whoever writes the disk.
"""

import msgspec

from core.errors import DamagedError, DeviceError, RefusedError
from core.units import align_up
from images.model.layout import Disk, PartitionTable, TableKind
from images.sources import BlockSource
from images.tables import c_dos
from images.tables.gpt import read_copy
from images.tables.gpt_bytes import copy_pieces
from images.tables.piece import TablePiece
from images.tables.table_bytes import table_pieces


def missing_pieces(source: BlockSource, disk: Disk, notes: list[str]) -> tuple[TablePiece, ...]:
    """What of the disk's table lies outside its head.

    Args:
        source: the disk as the image has it; its head is read.
        notes: takes a sentence for what cannot be made as it was.

    Raises:
        DamagedError: the head cannot be read, or a logical partition leaves no place for its boot record.
    """
    if disk.table is None:
        return ()
    try:
        if disk.table.kind is TableKind.DOS:
            return _without_mbr(table_pieces(disk.table, disk.size, disk.sector_size))
        return _backup_gpt(source, disk, disk.table, notes)
    except RefusedError as error:
        raise DamagedError(f"{disk.id}: {error.message}") from None


def _without_mbr(pieces: tuple[TablePiece, ...]) -> tuple[TablePiece, ...]:
    """LBA 0 is in the head."""
    return tuple(piece for piece in pieces if piece.offset != c_dos.BOOT_CODE_SIZE)


def _backup_gpt(source: BlockSource, disk: Disk, table: PartitionTable, notes: list[str]) -> tuple[TablePiece, ...]:
    """Array and header of the backup, where the primary header says it lies."""
    size = disk.sector_size
    try:
        header, entries = read_copy(source, 1)
    except (DamagedError, DeviceError):
        notes.append("the primary GPT in the image cannot be believed: both copies are made from the layout")
        return _without_mbr(table_pieces(table, disk.size, size))
    array = header.alternate_lba - align_up(len(entries), size) // size
    last_used = max((partition.end_lba for partition in table.partitions), default=0)
    if not last_used <= array or header.alternate_lba >= disk.size // size:
        notes.append(f"the backup GPT has no place at LBA {header.alternate_lba} and is left out")
        return ()
    backup = msgspec.structs.replace(header, my_lba=header.alternate_lba, alternate_lba=1, entries_lba=array)
    return copy_pieces(backup, entries, size)
