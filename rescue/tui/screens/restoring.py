"""The restore while it runs: stages, figures, messages, and a way to stop."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from core.errors import LiferaftError, StoppedError
from core.events import Event, Stage
from rescue.tui.board import Board
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToRestoring, ToResult
from rescue.tui.screen import WizardScreen
from rescue.tui.text import cut
from rescue.tui.widgets.log import Log
from rescue.tui.widgets.secret import Secret
from restore.plan.plan import Plan
from restore.plan.steps import GrowFilesystem, RepairBoot, VerifyVolume
from restore.report import Report

_RUNNING = "Esc: stop"


class RestoringScreen(WizardScreen):
    """Runs the plan in a worker. Stopping is cooperative: the next event raises in the worker.

    An encrypted disk of the recovery point has its passphrase asked for before anything is written.
    """

    HEADLINE = "Restoring"
    KEYS = _RUNNING
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "stop", show=False)]

    class Told(Message):
        """An event of the restore."""

        def __init__(self, event: Event) -> None:
            super().__init__()
            self.event = event

    class Ended(Message):
        """The restore came to its end."""

        def __init__(self, report: Report) -> None:
            super().__init__()
            self.report = report

    class Locked(Message):
        """The passphrase of a container is wanted."""

        def __init__(self, container: str) -> None:
            super().__init__()
            self.container = container

    def __init__(self, jobs: Jobs, to: ToRestoring) -> None:
        super().__init__(jobs)
        self._to = to
        self._locked = ""
        self._answers = queue.SimpleQueue[str]()
        self._board = Board(_stages(to.plan))
        self._stop = threading.Event()
        self._asks = False

    def body(self) -> Iterable[Widget]:
        text = f"{self._to.plan.name} to {self._to.disk}. Do not switch this machine off."
        yield Static(cut(text, 78), classes="text", markup=False)
        yield Static("", id="stages", classes="text", markup=False)
        field = Secret(id="passphrase")
        field.display = False
        yield field
        yield Log(id="log")

    def on_mount(self) -> None:
        self.set_interval(1.0, self._refresh)
        self._refresh()
        self.run_worker(
            lambda: self._bridge(
                lambda: self.Ended(self.jobs.run(self._to.plan, self._sink, self._ask, self._to.scratch))
            ),
            thread=True,
            exclusive=True,
            group="job",
            exit_on_error=False,
        )

    def _sink(self, event: Event) -> None:
        """Called from the restore's threads. Posting is safe from them; raising ends the restore."""
        if self._stop.is_set() and event.stage is not Stage.DONE:
            raise _stopped()
        self.post_message(self.Told(event))

    def _ask(self, container: str) -> str:
        """Called from the restore's thread: waits for a person, or until they stop. A second call says it was wrong."""
        self.post_message(self.Locked(container))
        while True:
            try:
                return self._answers.get(timeout=0.2)
            except queue.Empty:
                if self._stop.is_set():
                    raise _stopped() from None

    def on_restoring_screen_locked(self, message: Locked) -> None:
        message.stop()
        self._locked = message.container
        field = self.query_one(Secret)
        field.clear()
        field.display = True
        field.focus()
        self._refresh()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if self._asks:
            self.action_stop()
        elif message.value:
            field = self.query_one(Secret)
            self._locked = ""
            self._answers.put(message.value)
            field.clear()
            field.display = False
            self._refresh()

    def on_restoring_screen_told(self, message: Told) -> None:
        message.stop()
        self._board.take(message.event)
        self._refresh()

    def on_restoring_screen_ended(self, message: Ended) -> None:
        message.stop()
        self.post_message(Go(ToResult(message.report, self._to.disk), replace=True))

    def failed(self, error: LiferaftError) -> None:
        self.post_message(Go(ToResult(error, self._to.disk, self._board.begun), replace=True))

    def action_back(self) -> None:
        """Ask first; a second Esc goes on restoring."""
        if self._stop.is_set():
            return
        self._asks = not self._asks
        self.keys("Enter: stop the restore   Esc: go on restoring" if self._asks else _RUNNING)
        self._refresh()

    def action_stop(self) -> None:
        if self._asks:
            self._asks = False
            self._stop.set()
            self.keys("Stopping: the step under way comes to a safe point first")
            self._refresh()

    def _refresh(self) -> None:
        width = max(self.size.width - 2, 20)
        self.query_one("#stages", Static).update("\n".join(self._board.stages(width)))
        self.query_one(Log).show(self._board.log)
        if self._asks:
            self.say("Stop the restore? Running it again later goes on where it stopped.", warning=True)
        elif self._stop.is_set():
            self.say("Stopping ...", warning=True)
        elif self._locked:
            self.say(cut(f"Type the passphrase of the encrypted disk {self._locked}", 78), warning=True)
        else:
            self.say(self._board.silence(), warning=True)


def _stopped() -> StoppedError:
    return StoppedError(
        "The restore was stopped as you asked.",
        hint="Choose the same recovery point and the same disk again to go on.",
    )


def _stages(plan: Plan) -> Iterator[Stage]:
    yield from (Stage.PREFLIGHT, Stage.LAYOUT, Stage.STREAM)
    for kind, stage in ((VerifyVolume, Stage.VERIFY), (GrowFilesystem, Stage.GROW), (RepairBoot, Stage.BOOT)):
        if any(isinstance(step, kind) for step in plan.steps):
            yield stage
