"""A job while it runs: stages, figures, messages, and a way to stop. What the job is, its own screen says."""

import threading
from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from core.errors import StoppedError
from core.events import Event, Stage
from core.stopping import is_stopping
from rescue.tui.board import Board
from rescue.tui.jobs import Jobs
from rescue.tui.screen import WizardScreen
from rescue.tui.text import cut
from rescue.tui.widgets.log import Log

_RUNNING = "Esc: stop"


class RunningScreen(WizardScreen):
    """Runs a job in a worker. Stopping is cooperative: the next event raises in the worker. So it is, too, when the
    program is told to stop, even while a shell has the terminal and no message is handled.

    Attributes:
        QUESTION: asked when somebody wants to stop. STOP, GO_ON: what the keys for yes and no do.
        board: what has been told.
    """

    QUESTION: ClassVar[str] = ""
    STOP: ClassVar[str] = "stop"
    GO_ON: ClassVar[str] = "go on"
    KEYS = _RUNNING
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "stop", show=False)]

    class Told(Message):
        """An event of the job."""

        def __init__(self, event: Event) -> None:
            super().__init__()
            self.event = event

    def __init__(self, jobs: Jobs, board: Board) -> None:
        super().__init__(jobs)
        self.board = board
        self._stop = threading.Event()
        self._asks = False

    def about(self) -> str:
        """A line about what runs."""
        raise NotImplementedError

    def work(self) -> Message:
        """The job, in a thread; the message says that it came to its end."""
        raise NotImplementedError

    def stopped(self) -> StoppedError:
        """The error that stopping ends in."""
        raise NotImplementedError

    def question(self) -> str:
        """What is asked now when somebody wants to stop."""
        return self.QUESTION

    def wanted(self) -> str:
        """What the job waits for from the person; empty when for nothing."""
        return ""

    def fields(self) -> Iterable[Widget]:
        """Widgets between the stages and the messages."""
        return ()

    @property
    def stopping(self) -> bool:
        """Whether the job is to stop: the person wants it, or the program is told to."""
        return self._stop.is_set() or is_stopping()

    @property
    def asks(self) -> bool:
        """Whether the person is being asked about that."""
        return self._asks

    def body(self) -> Iterable[Widget]:
        yield Static(cut(self.about(), 78), classes="text", markup=False)
        yield Static("", id="stages", classes="text", markup=False)
        yield from self.fields()
        yield Log(id="log")

    def on_mount(self) -> None:
        self.set_interval(1.0, self.draw)
        self.draw()
        self.run_worker(lambda: self._bridge(self.work), thread=True, exclusive=True, group="job", exit_on_error=False)

    def on_unmount(self) -> None:
        """The wizard ends, because somebody ended the program: the job stops at its next event."""
        self._stop.set()

    def sink(self, event: Event) -> None:
        """Called from the job's threads. Posting is safe from them; raising ends the job."""
        if self.stopping and event.stage is not Stage.DONE:
            raise self.stopped()
        self.post_message(self.Told(event))

    def on_running_screen_told(self, message: Told) -> None:
        message.stop()
        self.board.take(message.event)
        self.draw()

    def action_back(self) -> None:
        """Ask first; a second Esc goes on."""
        if self._stop.is_set():
            return
        self._asks = not self._asks
        self.keys(f"Enter: {self.STOP}   Esc: {self.GO_ON}" if self._asks else _RUNNING)
        self.draw()

    def action_stop(self) -> None:
        if self._asks:
            self._asks = False
            self._stop.set()
            self.keys("Stopping: the step under way comes to a safe point first")
            self.draw()

    def draw(self) -> None:
        """Everything as it is now."""
        width = max(self.size.width - 2, 20)
        self.query_one("#stages", Static).update("\n".join(self.board.stages(width)))
        self.query_one(Log).show(self.board.log)
        if self._asks:
            self.say(self.question(), warning=True)
        elif self._stop.is_set():
            self.say("Stopping ...", warning=True)
        else:
            self.say(self.wanted() or self.board.silence(), warning=True)
