"""A volume that was made smaller on its way to a target that does not always keep what it was given."""

import os
from pathlib import Path
from typing import cast

import pytest

from core.errors import DeviceError
from core.events import Meter, Stage, ignore
from core.units import MIB
from images.model.extents import Extent
from images.overlay import BLOCK, open_overlay
from images.sources import BytesSource
from restore.shrink.result import PIECE, Shrunk
from restore.shrink.writing import Writing
from restore.target.target import Target

SIZE = 2 * PIECE + 3 * BLOCK
OFFSET = MIB
CONTENT = os.urandom(SIZE)
#: Used: all but the second piece. Held: what is not zero in the source.
USED = (Extent(0, PIECE), Extent(2 * PIECE, SIZE))


class Disk:
    """A target in memory. ``forgets``: byte -> how many writes over it come out wrong."""

    node = "a disk in memory"

    def __init__(self, forgets: dict[int, int]) -> None:
        self.content = bytearray(b"\xee" * (OFFSET + SIZE + MIB))
        self.forgets = dict(forgets)
        self.written: list[Extent] = []

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        self.content[offset : offset + len(data)] = data
        self.written.append(Extent(offset, offset + len(data)))
        for place, left in self.forgets.items():
            if left and offset <= place < offset + len(data):
                self.content[place] ^= 1
                self.forgets[place] -= 1

    write_from = write_at

    def zero(self, offset: int, length: int) -> None:
        self.write_at(offset, bytes(length))

    def read_at(self, offset: int, length: int) -> memoryview:
        return memoryview(bytes(self.content[offset : offset + length]))

    def is_hole(self, offset: int, length: int) -> bool:
        return False

    def discard(self, offset: int, length: int) -> bool:
        return True

    def flush(self) -> None:
        pass


class Sparse(BytesSource):
    """The last block is not allocated."""

    def allocated(self) -> tuple[Extent, ...]:
        return (Extent(0, SIZE - BLOCK),)


def bring(disk: Disk, *, resume: bool = False) -> tuple[int, int, int]:
    """Bytes written, kept, and written once more."""
    content = CONTENT[: SIZE - BLOCK] + bytes(BLOCK)
    with open_overlay(Sparse(content), Path("/tmp")) as overlay:
        shrunk = Shrunk(overlay, lambda: iter(USED))
        target = cast(Target, disk)
        writing = Writing(shrunk, target, OFFSET, "volume", resume=resume, discard=True, halt=lambda: None)
        count = writing.write(Meter(ignore, Stage.STREAM, writing.size))
        mended = writing.verify(Meter(ignore, Stage.VERIFY, writing.size))
    for extent in USED:
        assert disk.content[OFFSET + extent.start : OFFSET + extent.end] == content[extent.start : extent.end]
    return count.written, count.kept, mended.rewritten


def test_only_what_is_used_is_written() -> None:
    disk = Disk({})
    assert bring(disk) == (PIECE + 2 * BLOCK, 0, 0)
    before, behind = disk.content[:OFFSET], disk.content[OFFSET + SIZE :]
    free = disk.content[OFFSET + PIECE : OFFSET + 2 * PIECE]
    assert set(before + behind + free) == {0xEE}


def test_what_is_there_already_is_kept() -> None:
    disk = Disk({})
    bring(disk)
    disk.written.clear()
    assert bring(disk, resume=True) == (0, PIECE + 2 * BLOCK, 0)


@pytest.mark.parametrize("place", [OFFSET + 7, OFFSET + SIZE - 9])
def test_what_reads_back_wrong_is_written_once_more(place: int) -> None:
    """In data, and in zeros."""
    assert bring(Disk({place: 1}))[2] in (PIECE, BLOCK)


@pytest.mark.parametrize("place", [OFFSET + 7, OFFSET + SIZE - 9])
def test_a_disk_that_keeps_nothing_is_named_with_the_place(place: int) -> None:
    with pytest.raises(DeviceError, match="a disk in memory holds at bytes"):
        bring(Disk({place: 5}))
