"""Marks against what a set of numbers says, and that they stay small."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.units import MIB
from restore.stream.marks import Marks


@given(st.integers(1, 200), st.data())
def test_marks_are_a_set_of_numbers(count: int, data: st.DataObject) -> None:
    numbers = st.lists(st.integers(0, count - 1))
    first, second, gone = data.draw(numbers), data.draw(numbers), data.draw(numbers)
    marks, others = Marks(count), Marks(count)
    marks.update(first)
    others.update(second)
    marks.join(others)
    for number in gone:
        marks.discard(number)
    expected = (set(first) | set(second)) - set(gone)
    assert [number for number in range(-1, count + 9) if number in marks] == sorted(expected)
    assert len(marks) == len(expected)
    assert [number for start, end in marks.runs() for number in range(start, end)] == sorted(expected)
    assert all(end < start for (_, end), (start, _) in zip(list(marks.runs()), list(marks.runs())[1:], strict=False))


@pytest.mark.parametrize("number", [-1, 8, 100])
def test_a_chunk_that_the_volume_does_not_have_cannot_be_marked(number: int) -> None:
    with pytest.raises(IndexError, match=f"chunk {number} of 8"):
        Marks(8).add(number)


def test_marks_of_two_volumes_are_not_joined() -> None:
    with pytest.raises(ValueError, match="9 and of 8"):
        Marks(8).join(Marks(9))


def test_those_of_16_tib_take_2_mib() -> None:
    tracemalloc.start()
    try:
        marks = Marks(16 << 20)
        marks.add((16 << 20) - 1)
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < 2.1 * MIB
