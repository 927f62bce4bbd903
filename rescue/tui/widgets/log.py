"""The last messages of a running job, as many as fit."""

from collections.abc import Callable

from rich.text import Text
from textual.widget import Widget

from rescue.tui.text import cut


class Log(Widget):
    """Shows the end of a list that grows elsewhere."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._last: Callable[[int], list[str]] = lambda count: []

    def show(self, last: Callable[[int], list[str]]) -> None:
        """Draw what ``last(count)`` gives: the last ``count`` messages."""
        self._last = last
        self.refresh()

    def render(self) -> Text:
        width, height = self.size
        return Text("\n".join(cut(line, width) for line in self._last(height)), no_wrap=True)
