"""Text that may be longer than its place: wrapped, and moved by whole lines. No scroll bar; the border says where."""

from rich.text import Text
from textual import events
from textual.widget import Widget

from rescue.tui.text import wrap


class Pager(Widget):
    """The text. It takes no focus: its screen binds keys to ``move``, so that a list or a field keeps the cursor."""

    def __init__(self, text: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text = text
        self._lines: list[str] = []
        self._top = 0

    def show(self, text: str) -> None:
        """Other text, from its beginning."""
        self._text = text
        self._top = 0
        self._changed()

    def move(self, lines: int) -> None:
        """Down by that many lines, up when negative."""
        self._top += lines
        self._changed()

    @property
    def page(self) -> int:
        """Lines to move by for the next page: one stays in sight."""
        return max(self.size.height - 1, 1)

    def on_resize(self, event: events.Resize) -> None:
        self._changed()

    def render(self) -> Text:
        return Text("\n".join(self._lines[self._top : self._top + self.size.height]), no_wrap=True)

    def _changed(self) -> None:
        height = self.size.height
        self._lines = wrap(self._text.rstrip("\n"), self.size.width) if self._text else []
        self._top = max(min(self._top, len(self._lines) - height), 0)
        last = min(self._top + height, len(self._lines))
        hidden = len(self._lines) > height
        self.border_subtitle = f"lines {self._top + 1} to {last} of {len(self._lines)}" if hidden else ""
        self.refresh()
