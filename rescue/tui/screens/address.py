"""Typing where a repository is."""

from collections.abc import Iterable

from textual.widget import Widget
from textual.widgets import Input, Static

from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToAddress, ToPoints
from rescue.tui.screen import WizardScreen
from rescue.tui.text import plain_line

_HELP = """\
Where is the repository? For example:

  http://192.168.1.10/backups       a folder on an HTTP server
  192.168.1.10/backups              the same: http:// may be left out
  /mnt/disk/backups                 a folder that you have mounted yourself
"""


class AddressScreen(WizardScreen):
    """One field. What was typed stays when the person comes back."""

    HEADLINE = "Type the address of a repository"
    KEYS = "Enter: go on   Esc: back"

    def __init__(self, jobs: Jobs, to: ToAddress) -> None:
        super().__init__(jobs)
        self._to = to

    def body(self) -> Iterable[Widget]:
        yield Static(_HELP, classes="text", markup=False)
        field = Input(self.memory.address, id="address")
        field.cursor_blink = False
        yield field
        yield Static(plain_line(self._to.network), classes="text", markup=False)

    def on_input_changed(self, message: Input.Changed) -> None:
        self.memory.address = message.value

    def on_input_submitted(self, message: Input.Submitted) -> None:
        address = complete_address(message.value)
        if not address:
            self.say("Type an address first.", warning=True)
            return
        self.post_message(Go(ToPoints(address)))


def complete_address(text: str) -> str:
    """What a person typed as an address: without a scheme and not from the root it is a server."""
    address = text.strip()
    if not address or address.startswith(("/", "./", "../", "file:")) or "://" in address:
        return address
    return f"http://{address}"
