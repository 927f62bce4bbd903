"""Typing the passphrase of an encrypted repository."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from builder.archive.mirror import without_user
from core.errors import LiferaftError
from images.store.passphrase import Passphrase, WrongPassphraseError
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToPassphrase, ToPoints
from rescue.tui.screen import WizardScreen
from rescue.tui.text import cut
from rescue.tui.widgets.secret import Secret

if TYPE_CHECKING:  # the screen stands before the job is loaded
    from images.store.catalogue import PointSummary

_HELP = """\
It is encrypted. What you type is not shown, only a star for each character.

On the screen of the rescue system the keyboard has the US layout: with other
keyboards Y and Z and most signs are elsewhere. Over SSH and on a serial line
it is the layout of your own terminal."""


class PassphraseScreen(WizardScreen):
    """One field. A wrong passphrase says so and may be typed again; opening takes a thread, not the screen."""

    HEADLINE = "Type the passphrase"
    KEYS = "Enter: go on   Esc: back"

    class Opened(Message):
        """The passphrase was right. Recovery points oldest first."""

        def __init__(self, points: tuple[PointSummary, ...]) -> None:
            super().__init__()
            self.points = points

    def __init__(self, jobs: Jobs, to: ToPassphrase) -> None:
        super().__init__(jobs)
        self._repository = to.repository
        self._trying = False

    def body(self) -> Iterable[Widget]:
        yield Static(cut(f"Repository: {without_user(self._repository)}", 78), classes="text", markup=False)
        yield Static(f"\n{_HELP}\n", classes="text", markup=False)
        yield Secret(id="passphrase")

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if self._trying:
            return
        if not message.value:
            self.say("Type the passphrase first.", warning=True)
            return
        passphrase = Passphrase(message.value)
        self._trying = True
        self.start(lambda: self.Opened(self.jobs.points(self._repository, passphrase)), "Opening the repository")

    def on_passphrase_screen_opened(self, message: Opened) -> None:
        self.finished()
        self._clear()
        self.post_message(Go(ToPoints(self._repository, message.points), replace=True))

    def failed(self, error: LiferaftError) -> None:
        self._trying = False
        self._clear()
        if isinstance(error, WrongPassphraseError):
            self.say("That passphrase does not open it. Mind the keyboard layout and Caps Lock.", warning=True)
            return
        super().failed(error)

    def _clear(self) -> None:
        self.query_one(Secret).clear()
