"""Maps of a disk as lines of text: a bar in proportion, and a row for each partition. Plain ASCII, 76 columns.

The wizard's text widget is that wide on a screen of 80x24, and a Linux console or a serial line draws nothing but ASCII
for certain (docs/wizard.md).
"""

from collections.abc import Iterator, Sequence

import msgspec

from core.units import format_size
from images.model.machine import Occupant

WIDTH = 76
_BAR = 70
_INDENT = "    "
_HEADER = ("#", "holds", "name", "from", "to", "size")
_WIDTHS = (-3, 12, 18, -11, -11, -11)
_EXTENDED = "extended"


class _Segment(msgspec.Struct, frozen=True):
    """A part of the bar. ``mark``: the partition's number, empty for a gap."""

    mark: str
    kind: str
    size: int


def bar(occupants: Sequence[Occupant], size: int) -> str:
    """A disk of ``size`` bytes as one line: ``|1 vfat =|2 ext4 ==========|......|``, dots for gaps.

    Partitions that are too small to be seen get the room of their number. When there are more than the line has room
    for, each cell shows the last digit of the partition that has most of it.
    """
    drawn = [occupant for occupant in occupants if occupant.kind != _EXTENDED and occupant.size > 0]
    segments = list(_segments(drawn, size))
    least = [max(len(segment.mark), 1) for segment in segments]
    room = _BAR - len(segments) - 1
    if sum(least) > room:
        return "[" + "".join(_cell(drawn, size, at) for at in range(_BAR - 2)) + "]"
    widths = _share([segment.size for segment in segments], least, room)
    return "|" + "|".join(_drawn(segment, width) for segment, width in zip(segments, widths, strict=True)) + "|"


def rows(occupants: Sequence[Occupant]) -> Iterator[str]:
    """The header and a line for each partition."""
    yield _INDENT + _columns(_HEADER)
    for occupant in occupants:
        yield row(occupant)


def row(occupant: Occupant) -> str:
    """One partition: number, content, label, and its range, the end not included."""
    end = occupant.offset + occupant.size
    cells = (
        str(occupant.number or "-"),
        occupant.kind or "unknown",
        f'"{readable(occupant.label)}"' if occupant.label else "",
        format_size(occupant.offset),
        format_size(end),
        format_size(occupant.size),
    )
    return _INDENT + _columns(cells)


def readable(text: str) -> str:
    """Text from a disk as a terminal may have it: what would move its cursor becomes a question mark."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _segments(occupants: Sequence[Occupant], size: int) -> Iterator[_Segment]:
    """Partitions and the gaps between them that have at least half a cell, in order."""
    position = 0
    for occupant in sorted(occupants, key=lambda occupant: (occupant.offset, occupant.number)):
        # What overlaps (nothing keeps a foreign table from saying so) is shown behind what came first.
        start, end = max(occupant.offset, position), occupant.offset + occupant.size
        if (start - position) * _BAR * 2 >= size:
            yield _Segment("", "", start - position)
        yield _Segment(str(occupant.number or "-"), occupant.kind, max(end - start, 0))
        position = max(position, end)
    if (size - position) * _BAR * 2 >= size:
        yield _Segment("", "", size - position)


def _share(sizes: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Cells for each size, in proportion, none below its least; together exactly ``room``."""
    fixed: set[int] = set()
    while True:
        free = room - sum(least[at] for at in fixed)
        total = sum(size for at, size in enumerate(sizes) if at not in fixed)
        small = {at for at, size in enumerate(sizes) if at not in fixed and size * free < least[at] * total}
        if not small or total == 0:
            break
        fixed |= small
    widths = [least[at] if at in fixed or not total else sizes[at] * free // total for at in range(len(sizes))]
    rest = [at for at in range(len(sizes)) if at not in fixed] or list(range(len(sizes)))
    # What rounding left goes to those that lost most by it.
    rest.sort(key=lambda at: (-(sizes[at] * free % total) if total else 0, at))
    for place in range(room - sum(widths) if widths else 0):
        widths[rest[place % len(rest)]] += 1
    return widths


def _drawn(segment: _Segment, width: int) -> str:
    if not segment.mark:
        return "." * width
    named = f"{segment.mark} {readable(segment.kind)} "
    text = named if segment.kind and len(named) <= width else segment.mark
    return text.ljust(width, "=")


def _cell(occupants: Sequence[Occupant], size: int, at: int) -> str:
    start, end = size * at // (_BAR - 2), size * (at + 1) // (_BAR - 2)
    covered = [
        (min(end, occupant.offset + occupant.size) - max(start, occupant.offset), -occupant.number)
        for occupant in occupants
    ]
    most, number = max(covered)
    free = end - start - sum(max(length, 0) for length, _ in covered)
    return str(-number % 10) if most > 0 and most >= free else "."


def _columns(cells: Sequence[str]) -> str:
    padded = (
        _cut(cell, -width).rjust(-width) if width < 0 else _cut(cell, width).ljust(width)
        for cell, width in zip(cells, _WIDTHS, strict=True)
    )
    return " ".join(padded).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."
