"""What all screens of the wizard have in common: title, body, one line to speak, one line of keys.

Work goes to a worker thread and comes back as a message: ``start`` is the bridge. A job's error becomes
the problem screen, with a way back.
"""

import time
from collections.abc import Callable, Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from core.errors import LiferaftError
from rescue.tui.decisions import Memory
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Back, Failed, Go, ToProblem, WantShell
from rescue.tui.text import plain
from rescue.tui.widgets.picker import Picker, Row


class WizardScreen(Screen[None]):
    """A screen.

    Attributes:
        HEADLINE: what the screen is for; tests and the boot lab find it by this.
        KEYS: what the keys do here.
        memory: what the person decided on any screen; the app gives all screens the same before it shows them.
    """

    HEADLINE: ClassVar[str] = ""
    KEYS: ClassVar[str] = "Up/Down: choose   Enter: go on   Esc: back"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", show=False),
        Binding("f2", "shell", show=False),
    ]

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self.jobs = jobs
        self.memory = Memory()
        self._doing: Timer | None = None
        self._doing_what = ""
        self._left = False

    def compose(self) -> ComposeResult:
        yield Static(f" liferaft - {self.HEADLINE}", id="title", markup=False)
        yield from self.body()
        yield Static("", id="say", markup=False)
        yield Static(f" {self.KEYS}", id="keys", markup=False)

    def body(self) -> Iterable[Widget]:
        """The widgets between title and keys."""
        return ()

    def head(self, text: str) -> None:
        """Change the title."""
        self.query_one("#title", Static).update(f" liferaft - {text}")

    def say(self, text: str, *, warning: bool = False) -> None:
        """One sentence above the keys."""
        line = self.query_one("#say", Static)
        line.set_class(warning, "warning")
        line.update(plain(text))

    def keys(self, text: str) -> None:
        """Change what the line of keys says."""
        self.query_one("#keys", Static).update(f" {text}")

    def start(self, work: Callable[[], Message], doing: str) -> None:
        """Have ``work`` done in a thread; the message it returns, or :class:`Failed`, comes to this screen.

        Args:
            doing: said with the seconds it has taken, until the message comes.
        """
        self._stop_counting()
        started = time.monotonic()
        self._doing_what = doing

        def count() -> None:
            seconds = int(time.monotonic() - started)
            self.say(f"{self._doing_what} ..." + (f" {seconds} s" if seconds else ""))

        count()
        self._doing = self.set_interval(1.0, count)
        self.run_worker(lambda: self._bridge(work), thread=True, exclusive=True, group="job", exit_on_error=False)

    def doing(self, what: str) -> None:
        """Say something else of the work that goes on."""
        if self._doing is not None:
            self._doing_what = what

    def finished(self) -> None:
        """The work has answered: be quiet again."""
        self._stop_counting()
        self.say("")

    def _bridge(self, work: Callable[[], Message]) -> None:
        try:
            message = work()
        except LiferaftError as error:
            message = Failed(error)
        except Exception as error:  # noqa: BLE001 - the bridge: a fault of liferaft must not leave a dead screen
            hint = "Alt+F2 opens a shell on a screen; liferaft --debug says more there."
            message = Failed(LiferaftError(f"liferaft itself failed: {type(error).__name__}: {error}", hint=hint))
        if not get_current_worker().is_cancelled:
            self.post_message(message)

    def _stop_counting(self) -> None:
        if self._doing is not None:
            self._doing.stop()
            self._doing = None

    def on_failed(self, message: Failed) -> None:
        message.stop()
        self.finished()
        self.failed(message.error)

    def failed(self, error: LiferaftError) -> None:
        """What an error leads to: here it is shown in place of this screen; Esc there goes to the one before."""
        self.post_message(Go(ToProblem(error), replace=True))

    def on_screen_resume(self) -> None:
        self._left = False

    def on_go(self, message: Go) -> None:
        """From one screen to one other: what a second key of a burst, or a job that fails behind the next screen, leads
        to does not come on top of that one. Two restores of one plan would run at once."""
        if self._left:
            message.stop()
        self._left = True

    def on_picker_chosen(self, message: Picker.Chosen) -> None:
        message.stop()
        if not message.stale:
            self.chosen(message.key)

    def on_picker_refused(self, message: Picker.Refused) -> None:
        message.stop()
        if not message.stale:
            self.refused(message.row)

    def chosen(self, key: str) -> None:
        """A row of the list that is shown now was chosen."""

    def refused(self, row: Row) -> None:
        """The same of a row that cannot be chosen."""

    def action_back(self) -> None:
        self.post_message(Back())

    def action_shell(self) -> None:
        self.post_message(WantShell())
