"""Text for a console."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescue.tui.screens.address import complete_address
from rescue.tui.text import columns, cut, plain, wrap


def test_plain_equivalents() -> None:
    assert plain("it’s 1 × “two” … – →") == 'it\'s 1 x "two" ... - ->'
    assert plain("Büro Žižek Ωμέγα Привет") == "Büro Žižek Ωμέγα Привет"
    assert plain("\x1b[2J\x07\r漢") == "?[2J???"


@given(st.text(), st.integers(4, 100))
def test_cut_never_exceeds_its_width(text: str, width: int) -> None:
    assert len(cut(text, width)) <= width
    assert "\n" not in cut(text, width)


@given(st.text(), st.integers(20, 100))
def test_wrapped_lines_fit(text: str, width: int) -> None:
    assert all(len(line) <= width for line in wrap(text, width))


def test_wrap_keeps_every_word_and_indents_what_goes_on() -> None:
    lines = wrap("    - one two three four five six seven", 24)
    assert " ".join(" ".join(lines).split()) == "- one two three four five six seven"
    assert all(line.startswith("    ") for line in lines)


def test_columns() -> None:
    assert columns(("sda", "1.00 GiB", "a model with a long name"), (5, -10, 10)) == "sda     1.00 GiB a model .."


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("  http://10.0.2.2:8080/repo ", "http://10.0.2.2:8080/repo"),
        ("10.0.2.2:8080/repo", "http://10.0.2.2:8080/repo"),
        ("server/backups", "http://server/backups"),
        ("/mnt/backups", "/mnt/backups"),
        ("file:/mnt/backups", "file:/mnt/backups"),
        ("", ""),
    ],
)
def test_an_address_needs_little_typing(typed: str, address: str) -> None:
    assert complete_address(typed) == address
