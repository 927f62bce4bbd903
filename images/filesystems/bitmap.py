"""Allocation bitmaps that lie in pieces: a bit for each cluster, the first in the lowest bit of the first byte.

NTFS and exFAT keep one such bitmap for the whole volume; it may have 512 MiB and is never held as one.
"""

from collections.abc import Iterable, Iterator

import numpy as np

#: Bytes of a bitmap looked at together. The worst of them, every other bit set, makes a list of 16 MiB.
PIECE = 1 << 16


def set_ranges(pieces: Iterable[bytes], count: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of the set bits among the first ``count``, sorted; ranges of two pieces may touch.

    Args:
        pieces: the bitmap's bytes in order.
        count: meaningful bits; whatever lies behind them is padding.
    """
    first = 0
    for piece in pieces:
        if first >= count:
            return
        meaningful = min(len(piece) * 8, count - first)
        if piece.count(0) < len(piece):
            bits = np.unpackbits(np.frombuffer(piece, dtype=np.uint8), count=meaningful, bitorder="little")
            edges = np.flatnonzero(np.diff(bits, prepend=np.uint8(0), append=np.uint8(0))) + first
            yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        first += len(piece) * 8


def all_set(content: bytes, first: int, end: int) -> bool:
    """Whether the bits from ``first`` up to, not including, ``end`` of ``content`` are all set."""
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8), count=end, bitorder="little")
    return bool(bits[first:].all())
