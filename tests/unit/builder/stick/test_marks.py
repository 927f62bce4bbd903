"""Marks on a stick: close enough together that no false end fits between them, each one like no other."""

from hypothesis import given
from hypothesis import strategies as st

from builder.stick.marks import MARK, MOST, mark_content, mark_offsets

GIB = 1 << 30
SEED = bytes(range(16))


@given(st.integers(0, 64 * GIB), st.integers(0, 4096 * GIB), st.integers(1, GIB))
def test_marks_lie_inside_in_order_and_are_few(begin: int, length: int, stride: int) -> None:
    end = begin + length
    found = mark_offsets(begin, end, stride)
    assert list(found) == sorted(set(found))
    assert all(begin <= at and at + MARK <= end and at % MARK == 0 for at in found)
    # The marks of the stride, the last one, and one for each address bit.
    assert len(found) <= MOST + 2 + 63


@given(st.integers(1, 64), st.integers(2, 1000), st.data())
def test_whatever_the_true_end_a_mark_comes_round_to_where_the_iso_is(
    iso: int, times: int, data: st.DataObject
) -> None:
    """Sizes in MiB: a stick that is ``times`` its ISO, true ends up to where at least an ISO's length is missing."""
    mib = 1 << 20
    size = iso * mib * times
    true = data.draw(st.integers(iso * mib // MARK, (size - iso * mib) // MARK)) * MARK
    marks = mark_offsets(iso * mib, size, iso * mib - MARK)
    assert any(at >= true and at % true < iso * mib for at in marks)


@given(st.integers(12, 38), st.integers(2, 2000))
def test_an_address_bit_that_is_ignored_puts_two_marks_together_or_one_into_the_iso(bit: int, iso: int) -> None:
    """The ISO's size in MiB; of its first MiB nothing is written before the marks are looked at."""
    begin = iso << 20
    marks = mark_offsets(begin, 512 * GIB, begin)
    places = [at & ~(1 << bit) for at in marks]
    assert len(set(places)) < len(marks) or any(1 << 20 <= place < begin for place in places)


def test_no_two_places_have_the_same_mark_and_no_two_runs() -> None:
    contents = {mark_content(SEED, at) for at in range(0, 100 * MARK, MARK)} | {mark_content(bytes(16), 0)}
    assert len(contents) == 101
    assert {len(content) for content in contents} == {MARK}


def test_where_nothing_fits_there_is_no_mark() -> None:
    assert mark_offsets(0, MARK - 1, 1) == ()
    assert mark_offsets(10, 2 * MARK, 1) == (MARK,)
