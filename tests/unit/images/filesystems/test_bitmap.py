"""Ranges of set bits against counting one bit after the other."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.filesystems.bitmap import all_set, set_ranges


@given(pieces=st.lists(st.binary(max_size=40), max_size=5), cut=st.integers(0, 20))
def test_ranges_are_the_bits(pieces: list[bytes], cut: int) -> None:
    content = b"".join(pieces)
    count = max(8 * len(content) - cut, 0)
    expected = {bit for bit in range(count) if content[bit // 8] >> bit % 8 & 1}
    ranges = list(set_ranges(pieces, count))
    assert [start for start, _ in ranges] == sorted(start for start, _ in ranges)
    assert all(start < end for start, end in ranges)
    found = [bit for start, end in ranges for bit in range(start, end)]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_pieces_are_taken_one_by_one() -> None:
    """Whoever asks for the first range causes one piece to be read."""

    def pieces() -> Iterator[bytes]:
        yield b"\x06"
        raise AssertionError("a second piece was read")

    assert next(set_ranges(pieces(), 16)) == (1, 3)


@pytest.mark.parametrize(
    ("content", "first", "end", "expected"),
    [(b"\xfe\x01", 1, 9, True), (b"\xfe\x01", 0, 9, False), (b"\xfe\x01", 1, 10, False), (b"\xff", 3, 3, True)],
)
def test_all_set(content: bytes, first: int, end: int, expected: bool) -> None:
    assert all_set(content, first, end) == expected
