import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from core.units import (
    MIB,
    align_down,
    align_up,
    exact_size,
    format_duration,
    format_size,
    parse_size,
    subtract,
    to_sectors,
)


@given(st.integers(0, 1 << 60), st.sampled_from([512, 4096, MIB]))
def test_alignment_brackets_the_value(value: int, unit: int) -> None:
    assert align_down(value, unit) <= value <= align_up(value, unit)
    assert align_up(value, unit) - align_down(value, unit) in (0, unit)


def test_a_negative_size_raises() -> None:
    with pytest.raises(ValueError, match="the gap"):
        subtract(1, 2, "the gap")


def test_half_a_sector_raises() -> None:
    with pytest.raises(ValueError, match="whole sectors"):
        to_sectors(4097, 4096)


@pytest.mark.parametrize(("text", "size"), [("4 GiB", 4 << 30), ("512M", 512 << 20), ("1048576", 1 << 20)])
def test_sizes_are_binary(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_nonsense_is_no_size() -> None:
    with pytest.raises(UsageError):
        parse_size("a lot")


@given(st.integers(0, 1 << 53))
def test_an_exact_size_is_read_back_as_it_was(size: int) -> None:
    assert parse_size(exact_size(size)) == size


def test_text_for_people() -> None:
    assert [exact_size(size) for size in (1500 << 30, 1536 << 20, 999, 1 << 40)] == [
        "1500 GiB",
        "1536 MiB",
        "999",
        "1 TiB",
    ]
    assert format_size(1536 << 20) == "1.50 GiB"
    assert format_size(999) == "999 bytes"
    assert format_duration(185) == "3 min 05 s"
    assert format_duration(7625) == "2 h 07 min"
