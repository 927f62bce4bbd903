"""Text as a console can show it: which characters are drawn, and columns of a fixed width.

Labels, serial numbers and messages come from disks and from other programs. A Linux console has 512
glyphs and a serial line may have fewer; control characters would move its cursor. What is certain to be
shown passes, what has a plain equivalent is replaced by it, the rest becomes a question mark.
"""

import textwrap
from collections.abc import Sequence

_PLAIN = str.maketrans(
    {
        "…": "...",
        "–": "-",
        "—": "-",
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "•": "*",
        "·": "-",
        "×": "x",
        "→": "->",
        "\u00a0": " ",
        "\t": "    ",
    }
)
#: Letters that the console font has (tests/unit/builder/test_font.py): Latin-1, Latin Extended-A, Greek, Cyrillic.
_LETTERS = ((0xA1, 0x17F), (0x386, 0x3CE), (0x400, 0x45F))
#: Those among them that Debian's console fonts leave out.
_UNDRAWN = frozenset(
    "\u0114\u0115\u0128\u0129\u012c\u012d\u0132\u0133\u0138\u013f\u0140\u0149\u014a\u014b\u014e\u014f"
) | frozenset("\u0166\u0167\u0168\u0169\u017f\u0387\u038b\u038d\u03a2")
_BOX = (0x2500, 0x257F)


def plain(text: str) -> str:
    """``text`` with only characters that every console shows; line ends are kept."""
    return "".join(character if _shown(character) else "?" for character in text.translate(_PLAIN))


def plain_line(text: str) -> str:
    """The same as one line."""
    return plain(" ".join(text.split("\n")))


def cut(text: str, width: int) -> str:
    """One line of at most ``width`` characters; ``..`` at its end says that there was more."""
    line = plain_line(text)
    return line if len(line) <= width else line[: max(width - 2, 0)] + ".."[:width]


def short_node(node: str) -> str:
    """What a person reads and types for a disk: ``sda`` for its node; of an image file its name."""
    return plain_line(node.removeprefix("/dev/") if node.startswith("/dev/") else node.rsplit("/", 1)[-1])


def columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells side by side, each cut or padded to its width; a negative width aligns to the right."""
    padded = (
        cut(cell, -width).rjust(-width) if width < 0 else cut(cell, width).ljust(width)
        for cell, width in zip(cells, widths, strict=True)
    )
    return " ".join(padded).rstrip()


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters; the continuation of an indented line is indented two more."""
    lines: list[str] = []
    for line in plain(text).split("\n"):
        margin = line[: len(line) - len(line.lstrip())]
        indent = margin and margin + "  "
        lines += textwrap.wrap(
            line, max(width, 20), subsequent_indent=indent, break_on_hyphens=False, replace_whitespace=False
        ) or [""]
    return lines


def _shown(character: str) -> bool:
    value = ord(character)
    ascii_text = 0x20 <= value <= 0x7E or character == "\n"
    soft_hyphen = value == 0xAD
    return not (soft_hyphen or character in _UNDRAWN) and (
        ascii_text or any(low <= value <= high for low, high in _LETTERS) or _BOX[0] <= value <= _BOX[1]
    )
