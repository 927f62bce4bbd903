"""The overlay behaves as a file would that began as a copy of its source, and the source stays as it was."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DamagedError, DeviceError
from images.model.extents import Extent
from images.overlay import BLOCK, Overlay, ScratchFullError, open_overlay
from images.sources import BytesSource

SIZE = 5 * BLOCK + 1536
CONTENT = os.urandom(SIZE)


class Counting(BytesSource):
    """A source that says which parts are allocated, and counts what is read of it."""

    def __init__(self, content: bytes, allocated: tuple[Extent, ...]) -> None:
        super().__init__(content)
        self.extents = allocated
        self.reads = 0

    def allocated(self) -> tuple[Extent, ...]:
        return self.extents

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read_at(offset, length)


WRITE = st.tuples(st.just("write"), st.integers(0, SIZE - 1), st.integers(0, 3 * BLOCK))
CUT = st.tuples(st.just("resize"), st.integers(0, SIZE), st.just(0))


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.one_of(WRITE, WRITE, CUT), max_size=12))
def test_it_reads_as_a_file_does_to_which_the_same_was_done(steps: list[tuple[str, int, int]]) -> None:
    model = bytearray(CONTENT)
    with open_overlay(BytesSource(CONTENT), Path("/tmp")) as overlay:
        for number, (what, offset, length) in enumerate(steps):
            if what == "resize":
                model = model[:offset] + bytes(max(offset - len(model), 0))
                overlay.resize(offset)
            elif offset < len(model):
                data = bytes([number + 1]) * min(length, len(model) - offset)
                model[offset : offset + len(data)] = data
                overlay.write_at(offset, data)
            assert overlay.size == len(model)
            assert overlay.read_at(0, len(model)) == model
        held = bytearray(len(model))
        for extent in overlay.held():
            held[extent.start : extent.end] = model[extent.start : extent.end]
        assert held == model, "something that is not zero is not held"


def test_a_whole_block_is_written_without_reading_what_is_below() -> None:
    source = Counting(CONTENT, (Extent(0, SIZE),))
    with open_overlay(source, Path("/tmp")) as overlay:
        overlay.write_at(BLOCK, bytes(2 * BLOCK))
        assert source.reads == 0
        assert overlay.written == 2 * BLOCK
        overlay.write_at(4 * BLOCK + 5, b"x")
        assert (source.reads, overlay.written) == (1, 3 * BLOCK)


def test_what_nobody_allocated_and_nobody_wrote_is_not_held() -> None:
    source = Counting(bytes(SIZE), (Extent(0, 100), Extent(3 * BLOCK, 3 * BLOCK + 10)))
    with open_overlay(source, Path("/tmp")) as overlay:
        overlay.write_at(BLOCK, b"x")
        assert list(overlay.held()) == [Extent(0, 100), Extent(BLOCK, 2 * BLOCK), Extent(3 * BLOCK, 3 * BLOCK + 10)]
        overlay.resize(BLOCK + 7)
        assert list(overlay.held()) == [Extent(0, 100), Extent(BLOCK, BLOCK + 7)]


@pytest.mark.parametrize(("offset", "length"), [(-1, 4), (0, -1), (SIZE, 1), (SIZE - 1, 2)])
def test_ranges_outside_are_refused(offset: int, length: int) -> None:
    with open_overlay(BytesSource(CONTENT), Path("/tmp")) as overlay:
        with pytest.raises(DeviceError, match="outside"):
            overlay.read_at(offset, length)
    with open_overlay(BytesSource(CONTENT), Path("/tmp")) as overlay:
        if length > 0:
            with pytest.raises(DeviceError, match="outside"):
                overlay.write_at(offset, bytes(length))
        with pytest.raises(DeviceError, match="cannot have"):
            overlay.resize(SIZE + 1)


def test_a_full_scratch_folder_is_said_and_remembered() -> None:
    # The kernel's own full disk: every write to it fails with ENOSPC.
    descriptor = os.open("/dev/full", os.O_RDWR)
    try:
        overlay = Overlay(BytesSource(CONTENT), descriptor, Path("/dev/full"))
        with pytest.raises(ScratchFullError, match="full") as caught:
            overlay.write_at(0, bytes(BLOCK))
        assert "--scratch" in caught.value.hint
        assert overlay.failure is caught.value
    finally:
        os.close(descriptor)


def test_damage_below_is_remembered() -> None:
    class Damaged(BytesSource):
        def read_at(self, offset: int, length: int) -> bytes:
            raise DamagedError("chunk 7 is missing")

    with open_overlay(Damaged(CONTENT), Path("/tmp")) as overlay:
        with pytest.raises(DamagedError):
            overlay.write_at(10, b"x")
        assert overlay.failure is not None and "chunk 7" in overlay.failure.message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No scratch file"):
        with open_overlay(BytesSource(CONTENT), tmp_path / "none"):
            pass


def test_scratch_leaves_nothing_behind(tmp_path: Path) -> None:
    with open_overlay(BytesSource(CONTENT), tmp_path) as overlay:
        overlay.write_at(0, CONTENT)
        assert list(tmp_path.iterdir()) == []
