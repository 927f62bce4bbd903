"""Pieces of a partition table: bytes and where on the disk they belong. Data for whoever writes the disk."""

from collections.abc import Iterable

import msgspec

from images.model.extents import Extent


class TablePiece(msgspec.Struct, frozen=True):
    """Bytes of a table. ``offset``: bytes on the disk, not always the start of a sector."""

    offset: int
    data: bytes

    @property
    def extent(self) -> Extent:
        """The bytes of the disk that it covers."""
        return Extent(self.offset, self.offset + len(self.data))


def extents_of(pieces: Iterable[TablePiece]) -> tuple[Extent, ...]:
    """Where the pieces lie, sorted."""
    return tuple(sorted(piece.extent for piece in pieces))
