"""The pieces of a volume that was made smaller: everything used is written or zeroed, once, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from images.model.extents import Extent, merge
from restore.shrink.result import PIECE, Lot, divide

BOUNDS = Extent(0, 64)


def extents(numbers: list[int]) -> list[Extent]:
    return list(merge(Extent(number, number + 1) for number in sorted(set(numbers))))


NUMBERS = st.lists(st.integers(0, 63), max_size=40)


@given(used=NUMBERS, held=NUMBERS)
def test_every_byte_has_the_lot_that_its_two_lists_say(used: list[int], held: list[int]) -> None:
    pieces = list(divide(extents(used), extents(held), BOUNDS))
    lots = {place: piece.lot for piece in pieces for place in range(piece.extent.start, piece.extent.end)}
    assert sum(piece.extent.size for piece in pieces) == BOUNDS.size, "pieces overlap or leave gaps"
    assert lots == {
        place: (Lot.DATA if place in held else Lot.ZERO) if place in used else Lot.FREE for place in range(64)
    }
    assert [piece.extent.start for piece in pieces] == sorted(piece.extent.start for piece in pieces)


def test_data_is_cut_into_pieces_that_fit_a_buffer() -> None:
    size = 3 * PIECE + 5
    pieces = list(divide([Extent(0, size)], [Extent(0, size)], Extent(0, size)))
    assert [piece.extent.size for piece in pieces] == [PIECE, PIECE, PIECE, 5]
