"""The console font: one of the system's, with the glyphs that a wizard draws and no console font has.

A Linux console shows 512 glyphs. Debian's fonts give them to many alphabets and leave out half and eighth blocks and
the check mark; those take the places of glyphs that lie outside Latin, Greek and Cyrillic. Format: PSF version 1
(kbd's ``psf.h``): magic 36 04, mode, bytes per glyph; bitmaps of 8 pixels per byte, top row first; then for each
glyph its Unicode values as little-endian 16-bit words, ended by FFFF.
"""

import gzip
import struct
from collections.abc import Callable

from core.errors import DamagedError

_MAGIC = b"\x36\x04"
_MODE_512 = 0x01
_MODE_UNICODE = 0x02
_END = 0xFFFF
_SEQUENCE = 0xFFFE
_WIDTH = 8
#: Glyphs with a value in one of these ranges stay: what people and terminals write most.
_KEPT = ((0x20, 0x17F), (0x370, 0x45F), (0x2010, 0x203A), (0x20AC, 0x20AC), (0x2190, 0x2193), (0x2500, 0x257F))
_KEPT_SYMBOLS = ((0x2580, 0x25FF), (0x2022, 0x2026), (0xFFFD, 0xFFFD), (0x2260, 0x2265))

_CHECK = (".......#", "......##", "......#.", ".....##.", "#....#..", "##..##..", ".##.#...", "..###...", "...#....")
_CROSS = ("#.....#.", "##...##.", ".##.##..", "..###...", ".##.##..", "##...##.", "#.....#.")
_WARNING = ("...#....", "...#....", "..#.#...", "..#.#...", ".#.#.#..", ".#.#.#..", "#.....#.", "#..#..#.", "#######.")
_CIRCLE = ("..###...", ".#...#..", "#.....#.", "#.....#.", "#.....#.", ".#...#..", "..###...")
_DOT = ("..###...", ".#####..", "#######.", "#######.", "#######.", ".#####..", "..###...")
_SQUARE = ("......", "......", ".####...", ".####...", ".####...", ".####...", "........")


def console_font(packed: bytes) -> bytes:
    """A font like ``packed`` (PSF 1, gzip), uncompressed, with the missing glyphs put in.

    Raises:
        DamagedError: it is not a PSF 1 font of 8 pixels width with a Unicode table.
    """
    content = gzip.decompress(packed)
    if content[:2] != _MAGIC or len(content) < 4 or not content[2] & _MODE_UNICODE:
        raise DamagedError("The console font is not PSF version 1 with a Unicode table.")
    height = content[3]
    count = 512 if content[2] & _MODE_512 else 256
    end = 4 + count * height
    glyphs = [content[place : place + height] for place in range(4, end, height)]
    names = _names(content[end:], count)
    wanted = {value: draw(height) for value, draw in _drawings().items()}
    for value, bitmap in wanted.items():
        holder = next((slot for slot, values in enumerate(names) if value in values), None)
        slot = _free_slot(names, wanted) if holder is None or len(names[holder]) > 1 else holder
        if holder is not None:
            names[holder].remove(value)
        names[slot] = [value]
        glyphs[slot] = bitmap
    table = b"".join(struct.pack(f"<{len(values) + 1}H", *values, _END) for values in names)
    return content[:2] + bytes([content[2] & ~0x04, height]) + b"".join(glyphs) + table


def _names(table: bytes, count: int) -> list[list[int]]:
    """The Unicode values of each glyph; combined sequences are left out."""
    names: list[list[int]] = []
    current: list[int] = []
    in_sequence = False
    for (word,) in struct.iter_unpack("<H", table[: len(table) // 2 * 2]):
        if word == _END:
            names.append(current)
            current, in_sequence = [], False
        elif word == _SEQUENCE:
            in_sequence = True
        elif not in_sequence:
            current.append(word)
    if len(names) != count:
        raise DamagedError(f"The console font names {len(names)} glyphs and has {count}.")
    return names


def _free_slot(names: list[list[int]], wanted: dict[int, bytes]) -> int:
    """A glyph that nothing kept needs, the one of the highest value first."""
    kept = (*_KEPT, *_KEPT_SYMBOLS)

    def needed(value: int) -> bool:
        return value in wanted or any(first <= value <= last for first, last in kept)

    free = [slot for slot, values in enumerate(names) if not any(needed(value) for value in values)]
    # Slot 32 is what the console clears the screen with, and the first 256 are the only ones in a bright colour.
    free = [slot for slot in free if slot != 32]
    if not free:
        raise DamagedError("The console font has no glyph to spare.")
    return max(free, key=lambda slot: max(names[slot], default=0x10000))


def _drawings() -> dict[int, Callable[[int], bytes]]:
    """Unicode value to what draws it for a glyph height in rows."""
    drawings: dict[int, Callable[[int], bytes]] = {
        0x2580: _rows(0, 4),
        0x2590: _columns(4, 8),
        0x2594: _rows(0, 1),
        0x2595: _columns(7, 8),
        0x2593: _shade(0xEE, 0xBB),
        0x25A0: _picture(_SQUARE),
        0x25AA: _picture(_SQUARE),
        0x25CF: _picture(_DOT),
        0x25CB: _picture(_CIRCLE),
        0x2713: _picture(_CHECK),
        0x2714: _picture(_CHECK),
        0x2717: _picture(_CROSS),
        0x26A0: _picture(_WARNING),
    }
    for eighths in range(1, 9):
        drawings[0x2580 + eighths] = _rows(8 - eighths, 8)
    for eighths in range(1, 8):
        drawings[0x2590 - eighths] = _columns(0, eighths)
    return drawings


def _rows(first: int, last: int) -> Callable[[int], bytes]:
    """Full rows from ``first`` to ``last`` eighths of the height, counted from the top."""

    def draw(height: int) -> bytes:
        start, end = height * first // 8, height * last // 8
        return bytes(0xFF if start <= row < end else 0 for row in range(height))

    return draw


def _columns(first: int, last: int) -> Callable[[int], bytes]:
    """Full columns from ``first`` to ``last`` of eight, counted from the left."""
    mask = (0xFF >> first) & (0xFF << (_WIDTH - last)) & 0xFF
    return lambda height: bytes([mask]) * height


def _shade(even: int, odd: int) -> Callable[[int], bytes]:
    return lambda height: bytes(odd if row % 2 else even for row in range(height))


def _picture(rows: tuple[str, ...]) -> Callable[[int], bytes]:
    """A drawing, one string per row, ``#`` for a lit pixel, set in the middle of the height."""

    def draw(height: int) -> bytes:
        above = max((height - len(rows)) // 2, 0)
        lit = [sum(0x80 >> column for column, pixel in enumerate(row) if pixel == "#") for row in rows]
        return bytes([0] * above + lit + [0] * height)[:height]

    return draw
