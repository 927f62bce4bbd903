"""A list to choose from: rows of text, a cursor that is also visible without colours, rows that cannot be chosen.

Draws only what fits its height; no scroll bar, because those need glyphs a console does not have. When
rows are hidden the border says which one the cursor is on.
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.widget import Widget

from rescue.tui.text import cut


class Row(msgspec.Struct, frozen=True):
    """``key`` names it in :class:`Picker.Chosen`; ``lines`` is its text, the first beside the cursor."""

    key: str
    lines: tuple[str, ...]
    enabled: bool = True


class _Answer(Message):
    """What a person did with a row of the list as it was then."""

    def __init__(self, picker: "Picker") -> None:
        super().__init__()
        self._picker = picker
        self._showing = picker.showing

    @property
    def stale(self) -> bool:
        """Whether the list shows other rows by now. Of keys that come in a burst, the second is given to the same list
        as the first, before the screen has answered that one."""
        return self._picker.showing != self._showing


class Picker(Widget, can_focus=True):
    """The list. Up, Down, Page, Home and End move; Enter and Space choose.

    Attributes:
        showing: counts the lists that were shown here; answers to an earlier one are stale.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"picker--cursor", "picker--off", "picker--header"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "move(-8)", show=False),
        Binding("pagedown", "move(8)", show=False),
        Binding("home", "move(-9999)", show=False),
        Binding("end", "move(9999)", show=False),
        Binding("enter,space", "choose", show=False),
    ]

    class Chosen(_Answer):
        """The person chose the row with that key."""

        def __init__(self, picker: "Picker", key: str) -> None:
            super().__init__(picker)
            self.key = key

    class Refused(_Answer):
        """The person chose a row that cannot be chosen."""

        def __init__(self, picker: "Picker", row: Row) -> None:
            super().__init__(picker)
            self.row = row

    def __init__(self, rows: Sequence[Row] = (), *, header: str = "", classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._rows = tuple(rows)
        self._header = header
        self._cursor = self._first()
        self._moved = False
        self.showing = 0

    @property
    def current(self) -> Row | None:
        """The row under the cursor; None in an empty list."""
        return self._rows[self._cursor] if self._rows else None

    def show(self, rows: Sequence[Row], *, header: str = "", at: str = "") -> None:
        """Other rows. A cursor that the person moved stays on its row; else it is on the first that can be chosen.

        Args:
            at: the key of the row that it goes to instead.
        """
        before = at or (self.current.key if self.current and self._moved else "")
        self._rows = tuple(rows)
        self._header = header
        self.showing += 1
        found = next((number for number, row in enumerate(rows) if row.key == before and row.enabled), None)
        self._cursor = self._first() if found is None else found
        self._changed()
        # A height that follows the rows is reckoned anew only when that is asked for.
        self.refresh(layout=True)

    def action_move(self, steps: int) -> None:
        if self._rows:
            self._moved = True
            self._cursor = min(max(self._cursor + steps, 0), len(self._rows) - 1)
            self._changed()

    def action_choose(self) -> None:
        row = self.current
        if row is not None:
            self.post_message(self.Chosen(self, row.key) if row.enabled else self.Refused(self, row))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """All lines, for a list whose height is ``auto``."""
        return sum(len(row.lines) for row in self._rows) + bool(self._header)

    def on_resize(self, event: events.Resize) -> None:
        self._changed()

    def render(self) -> Text:
        width, height = self.size
        lines = self._lines(width)
        top = self._top(height - bool(self._header))
        shown = lines[top : top + height - bool(self._header)]
        if self._header:
            shown.insert(0, Text("  " + cut(self._header, width - 2), self._style("header")))
        return Text("\n", no_wrap=True).join(shown)

    def _lines(self, width: int) -> list[Text]:
        lines = []
        for number, row in enumerate(self._rows):
            chosen = number == self._cursor
            style = self._style("cursor" if chosen else "" if row.enabled else "off")
            for at, line in enumerate(row.lines):
                marker = "> " if chosen and not at else "  "
                lines.append(Text((marker + cut(line, width - 2)).ljust(width), style))
        return lines

    def _style(self, part: str) -> str:
        return str(self.get_component_rich_style(f"picker--{part}", partial=True)) if part else ""

    def _top(self, height: int) -> int:
        """The first line drawn: as few lines are hidden above as show the whole row under the cursor."""
        if not self._rows:
            return 0
        end = sum(len(row.lines) for row in self._rows[: self._cursor + 1])
        start = end - len(self._rows[self._cursor].lines)
        return min(max(end - height, 0), start)

    def _first(self) -> int:
        return next((number for number, row in enumerate(self._rows) if row.enabled), 0)

    def _changed(self) -> None:
        hidden = sum(len(row.lines) for row in self._rows) + bool(self._header) > self.size.height
        self.border_subtitle = f"{self._cursor + 1} of {len(self._rows)}" if hidden and self._rows else ""
        self.refresh()
