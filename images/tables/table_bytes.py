"""A partition table as the bytes of a disk, whichever kind it is."""

from images.model.layout import PartitionTable, TableKind
from images.tables.dos_bytes import dos_pieces
from images.tables.gpt_bytes import gpt_pieces
from images.tables.piece import TablePiece


def table_pieces(table: PartitionTable, size: int, sector_size: int) -> tuple[TablePiece, ...]:
    """Every byte that belongs to ``table`` on a disk of ``size`` bytes, boot code excepted.

    Raises:
        RefusedError: the table contradicts itself or the disk.
    """
    pieces = gpt_pieces if table.kind is TableKind.GPT else dos_pieces
    return pieces(table, size, sector_size)
