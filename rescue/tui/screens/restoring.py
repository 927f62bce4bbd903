"""The restore while it runs."""

import queue
from collections.abc import Iterable, Iterator

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from core.errors import LiferaftError, StoppedError
from core.events import Stage
from rescue.tui.board import Board
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToRestoring, ToResult
from rescue.tui.running_screen import RunningScreen
from rescue.tui.text import cut
from rescue.tui.widgets.secret import Secret
from restore.plan.plan import Plan
from restore.plan.steps import GrowFilesystem, RepairBoot, ShrinkVolume, VerifyVolume
from restore.report import Report


class RestoringScreen(RunningScreen):
    """Runs the plan. The passphrase of an encrypted disk is asked for before anything is written."""

    HEADLINE = "Restoring"
    QUESTION = "Stop the restore? Running it again later goes on where it stopped."
    STOP = "stop the restore"
    GO_ON = "go on restoring"

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
        super().__init__(jobs, Board(_stages(to.plan)))
        self._to = to
        self._locked = ""
        self._answers = queue.SimpleQueue[str]()

    def about(self) -> str:
        return f"{self._to.plan.name} to {self._to.disk}. Do not switch this machine off."

    def fields(self) -> Iterable[Widget]:
        field = Secret(id="passphrase")
        field.display = False
        yield field

    def work(self) -> Message:
        return self.Ended(self.jobs.run(self._to.plan, self.sink, self._ask, self._to.scratch))

    def stopped(self) -> StoppedError:
        return StoppedError(
            "The restore was stopped as you asked.",
            hint="Choose the same recovery point and the same disk again to go on.",
        )

    def wanted(self) -> str:
        return cut(f"Type the passphrase of the encrypted disk {self._locked}", 78) if self._locked else ""

    def _ask(self, container: str) -> str:
        """Called from the restore's thread: waits for a person, or until they stop. A second call says it was wrong."""
        self.post_message(self.Locked(container))
        while True:
            try:
                return self._answers.get(timeout=0.2)
            except queue.Empty:
                if self.stopping:
                    raise self.stopped() from None

    def on_restoring_screen_locked(self, message: Locked) -> None:
        message.stop()
        self._locked = message.container
        field = self.query_one(Secret)
        field.clear()
        field.display = True
        field.focus()
        self.draw()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if self.asks:
            self.action_stop()
        elif message.value:
            field = self.query_one(Secret)
            self._locked = ""
            self._answers.put(message.value)
            field.clear()
            field.display = False
            self.draw()

    def on_restoring_screen_ended(self, message: Ended) -> None:
        message.stop()
        self.post_message(Go(ToResult(message.report, self._to.disk, self._to.targets), replace=True))

    def failed(self, error: LiferaftError) -> None:
        to = ToResult(error, self._to.disk, self._to.targets, self.board.begun)
        self.post_message(Go(to, replace=True))


def _stages(plan: Plan) -> Iterator[Stage]:
    yield from (Stage.PREFLIGHT, Stage.LAYOUT, Stage.STREAM)
    for kind, stage in ((VerifyVolume, Stage.VERIFY), (GrowFilesystem, Stage.GROW), (RepairBoot, Stage.BOOT)):
        smaller = stage is Stage.VERIFY and any(isinstance(step, ShrinkVolume) and step.verify for step in plan.steps)
        if smaller or any(isinstance(step, kind) for step in plan.steps):
            yield stage
