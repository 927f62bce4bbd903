"""The console font: made from a font written here by hand after kbd's psf.h."""

import gzip
import struct
from pathlib import Path

import pytest

from builder.font import console_font
from core.errors import DamagedError
from rescue.tui.text import plain
from tests.unit.rescue.tui.driving import DRAWN


def _font(count: int = 512, height: int = 16, mode: int = 0x03) -> bytes:
    bitmaps = b"".join(bytes([slot % 256]) * height for slot in range(count))
    # Latin in its places, the rest in the private area, the full block and the check mark shared with others.
    names = [[slot] if 0x20 <= slot < 0x180 else [0xE000 + slot] for slot in range(count)]
    names[1] = [0x2588, 0x2593]
    table = b"".join(struct.pack(f"<{len(values) + 1}H", *values, 0xFFFF) for values in names)
    return gzip.compress(b"\x36\x04" + bytes([mode, height]) + bitmaps + table)


def _glyphs(font: bytes) -> dict[int, bytes]:
    height = font[3]
    words = [word for (word,) in struct.iter_unpack("<H", font[4 + 512 * height :])]
    glyphs, slots, slot = {}, {}, 0
    for word in words:
        if word == 0xFFFF:
            slot += 1
        else:
            # Debian's fonts name the s twice for the same glyph.
            assert slots.setdefault(word, slot) == slot, f"{word:04x} is named by two glyphs"
            glyphs[word] = font[4 + slot * height : 4 + (slot + 1) * height]
    assert slot == 512
    return glyphs


def test_blocks_are_drawn_where_the_unicode_chart_puts_them() -> None:
    glyphs = _glyphs(console_font(_font()))
    assert glyphs[0x2580] == b"\xff" * 8 + b"\x00" * 8
    assert glyphs[0x2584] == b"\x00" * 8 + b"\xff" * 8
    assert glyphs[0x2588] == b"\xff" * 16
    assert glyphs[0x2581] == b"\x00" * 14 + b"\xff" * 2
    assert glyphs[0x258C] == b"\xf0" * 16
    assert glyphs[0x2590] == b"\x0f" * 16
    assert glyphs[0x258F] == b"\x80" * 16
    assert glyphs[0x2595] == b"\x01" * 16
    assert glyphs[0x2594] == b"\xff" * 2 + b"\x00" * 14
    assert any(glyphs[0x2713])


def test_letters_stay_and_the_space_stays_in_its_place() -> None:
    before = _glyphs(gzip.decompress(_font()))
    font = console_font(_font())
    after = _glyphs(font)
    for letter in "Aaz0Éßőž ":
        assert after[ord(letter)] == before[ord(letter)]
    assert len(font) > 4 + 512 * 16


@pytest.fixture(scope="module")
def debian_font() -> dict[int, bytes]:
    """The console font that the medium has, made from Debian's."""
    source = Path("/usr/share/consolefonts/Uni2-Terminus16.psf.gz")
    if not source.exists():
        pytest.skip("the Debian package console-setup-linux is not installed")
    return _glyphs(console_font(source.read_bytes()))


def test_the_console_font_has_every_glyph_that_a_screen_may_draw(debian_font: dict[int, bytes]) -> None:
    """What tests/unit/rescue/tui/test_screens.py finds on every screen is among these."""
    drawn = {ord(character) for character in DRAWN}
    assert drawn >= {ord(character) for character in "Az09>[x]─│┌┐└┘"}
    assert {chr(value) for value in drawn - set(debian_font)} == set()
    assert [chr(value) for value in drawn if value != 0x20 and not any(debian_font[value])] == []


def test_the_console_font_has_every_character_that_passes_to_the_screen(debian_font: dict[int, bytes]) -> None:
    """Labels and messages come from disks: what the wizard does not replace, the font must show."""
    passing = {value for value in range(0x20, 0x30000) if plain(chr(value)) == chr(value)}
    assert len(passing) > 500
    assert {f"{value:04x}" for value in passing - set(debian_font)} == set()


# Named, because gzip writes down when it packed, and two workers must collect the same names.
@pytest.mark.parametrize(
    "packed",
    [gzip.compress(b"\x72\xb5\x4a\x86rest"), _font(mode=0x01), gzip.compress(b"")],
    ids=["another magic", "another mode", "empty"],
)
def test_other_fonts_are_refused(packed: bytes) -> None:
    with pytest.raises(DamagedError):
        console_font(packed)
