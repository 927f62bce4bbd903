"""How much scratch is said to be needed."""

from core.units import MIB
from images.model.extents import Extent
from restore.shrink.room import scratch_needed

GIB = 1 << 30


def test_what_lies_behind_the_new_end_has_to_move() -> None:
    used = [Extent(0, 6 * GIB), Extent(9 * GIB, 10 * GIB)]
    assert scratch_needed(used, 8 * GIB, 12 * GIB) >= GIB
    assert scratch_needed(used, 8 * GIB, 12 * GIB) < 2 * GIB


def test_an_extent_across_the_end_counts_in_part() -> None:
    near = scratch_needed([Extent(0, 100 * MIB)], 99 * MIB, GIB)
    far = scratch_needed([Extent(0, 100 * MIB)], 50 * MIB, GIB)
    assert far - near >= 49 * MIB


def test_never_more_than_the_whole_volume() -> None:
    assert scratch_needed([Extent(0, 10 * MIB)], 5 * MIB, 12 * MIB) == 12 * MIB
