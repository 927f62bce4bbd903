"""A field for a passphrase: what is typed is neither shown nor given to the terminal's clipboard."""

from rich.text import Text
from textual.widgets import Input


class Secret(Input):
    """Shows an asterisk for each character: the bullet that textual draws is not in every console's font."""

    def __init__(self, *, id: str) -> None:
        super().__init__(password=True, id=id)
        self.cursor_blink = False

    @property
    def _value(self) -> Text:
        return Text("*" * len(self.value), no_wrap=True, overflow="ignore", end="")

    def action_copy(self) -> None:
        """Not from here: a terminal's clipboard is an escape sequence with the text in it; serial lines are logged."""

    def action_cut(self) -> None:
        """As copy."""
