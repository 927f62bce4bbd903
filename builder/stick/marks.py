"""Marks: small blocks with contents of their own, spread over a stick, that show whether it is as large as it says.

A forged stick throws away what lies behind its true end, or puts it over something that lies before. The first kind
loses marks. The second kind is caught because the ISO is written after the marks, in one piece, and the marks lie
closer together than the ISO is long: wherever the true end is, the addresses behind it come round to the start, and
one of the marks lay where the ISO is now. Sticks that ignore high address bits put two marks over each other.
On a stick that would need more than MOST marks they lie further apart, and some true ends between half the size and
the size are not noticed.
"""

import hashlib
from collections.abc import Iterator

from core.units import align_down, align_up

#: Bytes of a mark: a page of flash or a part of it, and whole sectors of every device.
MARK = 4096
#: More marks would take longer than they are worth: sticks write single blocks slowly.
MOST = 2048


def mark_offsets(begin: int, end: int, stride: int) -> tuple[int, ...]:
    """Where marks go: multiples of MARK in bytes ``begin`` to ``end``, ``end`` not included, ascending.

    Args:
        stride: bytes that at most should lie between two; it is made larger where there would be too many.
    """
    first, last = align_up(begin, MARK), align_down(end, MARK) - MARK
    if first > last:
        return ()
    step = align_up(max(stride, (last - first) // MOST, MARK), MARK)
    found = set(range(first, last + 1, step)) | {last}
    # Of an address bit that is ignored: the first mark and this are the same place, or one of them lies in the ISO.
    found |= {first + (1 << bit) for bit in range(MARK.bit_length() - 1, 63) if first + (1 << bit) <= last}
    return tuple(sorted(found))


def mark_content(seed: bytes, offset: int) -> bytes:
    """The mark of one place: like no other's, and not what an earlier run left there.

    Args:
        seed: 16 random bytes of this run.
    """
    return b"".join(_digests(seed, offset))


def _digests(seed: bytes, offset: int) -> Iterator[bytes]:
    for part in range(MARK // 64):
        yield hashlib.blake2b(seed + offset.to_bytes(8, "little") + bytes([part])).digest()
