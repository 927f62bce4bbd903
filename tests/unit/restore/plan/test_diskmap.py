"""The map of a disk, against maps drawn by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.units import MIB
from images.model.machine import Occupant
from restore.plan.diskmap import bar, row, rows


def part(number: int, start: int, size: int, kind: str = "", label: str = "") -> Occupant:
    """Start and size in MiB."""
    return Occupant(number=number, offset=start * MIB, size=size * MIB, kind=kind, label=label)


@pytest.mark.parametrize(
    ("parts", "size", "drawn"),
    [
        # 68 cells between two ends.
        ([], 100, "|" + "." * 68 + "|"),
        ([part(0, 0, 100, "xfs")], 100, "|- xfs " + "=" * 62 + "|"),
        # Three parts leave 66 cells: 16.5, 33 and 16.5; the first of two equal remainders gets the odd one.
        (
            [part(1, 0, 256, "vfat"), part(2, 256, 512, "ext4")],
            1024,
            "|1 vfat " + "=" * 10 + "|2 ext4 " + "=" * 26 + "|" + "." * 16 + "|",
        ),
        # The gap of 1 MiB before the first is less than half a cell; a tiny partition gets the room of its number.
        (
            [part(1, 1, 1), part(12, 2, 8, "swap"), part(3, 10, 6000, "ext4")],
            6010,
            "|1|12|3 ext4 " + "=" * (66 - 3 - 7) + "|",
        ),
        # An extended partition is drawn as those in it.
        (
            [part(2, 0, 100, "extended"), part(5, 0, 50, "ext4"), part(6, 50, 50, "ext4")],
            100,
            "|5 ext4 " + "=" * 27 + "|6 ext4 " + "=" * 26 + "|",
        ),
    ],
    ids=["empty", "whole", "thirds", "tiny", "extended"],
)
def test_bars_by_hand(parts: list[Occupant], size: int, drawn: str) -> None:
    assert bar(parts, size * MIB) == drawn


def test_more_partitions_than_the_line_has_room_for() -> None:
    """68 cells of 1 MiB: one cell for each, the last digit of its number; free where there is more free than taken."""
    parts = [part(number, number, 1) for number in range(1, 60)]
    digits = "".join(str(number % 10) for number in range(1, 60))
    assert bar(parts, 68 * MIB) == "[." + digits + "." * 8 + "]"


def test_a_row_says_what_lies_where() -> None:
    header, line = rows([part(2, 33, 128, "ext4", "ro\x1bot")])
    assert header.split() == ["#", "holds", "name", "from", "to", "size"]
    assert line.split() == ["2", "ext4", '"ro?ot"', "33.00", "MiB", "161.00", "MiB", "128.00", "MiB"]
    assert row(part(0, 0, 1)).split()[:2] == ["-", "unknown"]


@given(
    st.lists(
        st.builds(
            Occupant,
            number=st.integers(0, 999),
            offset=st.integers(0, 1 << 45),
            size=st.integers(0, 1 << 45),
            kind=st.sampled_from(["", "ext4", "extended", "x" * 90]),
            label=st.text(max_size=80),
        ),
        max_size=140,
    ),
    st.integers(1, 1 << 45),
)
def test_no_table_however_wrong_breaks_the_screen(parts: list[Occupant], size: int) -> None:
    """Overlapping, behind the end, by the hundred: 70 columns for the bar, 76 for a row, no control characters."""
    assert len(bar(parts, size)) == 70
    for line in rows(parts):
        assert len(line) <= 76
        assert line.isprintable()
