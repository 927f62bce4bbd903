"""Patches: bytes of a volume that are put in the place of others, and the volume as it is with them.

A correction of a boot sector is worked out on a source and written by somebody else: nothing is written here.
"""

import msgspec

from images.sources import BlockSource


class Patch(msgspec.Struct, frozen=True):
    """``content`` belongs at ``offset`` bytes from the start of the volume."""

    offset: int
    content: bytes


class Correction(msgspec.Struct, frozen=True):
    """What must be written to a volume so that it tells the truth.

    Attributes:
        patches: in the order in which they are to be written; empty when nothing is to be done.
        warnings: what was found and left as it is, a line each.
    """

    patches: tuple[Patch, ...] = ()
    warnings: tuple[str, ...] = ()


class PatchedSource:
    """A source that reads as if the patches were written already. A later patch covers an earlier one."""

    def __init__(self, inner: BlockSource, patches: tuple[Patch, ...], sector_size: int = 0) -> None:
        self._inner = inner
        self._patches = patches
        self._sector_size = sector_size or inner.sector_size

    @property
    def size(self) -> int:
        return self._inner.size

    @property
    def sector_size(self) -> int:
        return self._sector_size

    def read_at(self, offset: int, length: int) -> bytes:
        """As :meth:`images.sources.BlockSource.read_at`."""
        data = bytearray(self._inner.read_at(offset, length))
        for patch in self._patches:
            first, last = max(offset, patch.offset), min(offset + length, patch.offset + len(patch.content))
            if first < last:
                data[first - offset : last - offset] = patch.content[first - patch.offset : last - patch.offset]
        return bytes(data)
