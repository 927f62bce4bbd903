"""A rescue stick while it is written."""

from collections.abc import Iterator

from textual.message import Message

from core.errors import LiferaftError, StoppedError
from core.events import Event, Stage
from rescue.jobs.write_usb import StickPlan, StickReport
from rescue.tui.board import STICK_NAMES, Board
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToStickResult, ToStickWriting
from rescue.tui.running_screen import RunningScreen
from rescue.tui.text import short_node


class StickWritingScreen(RunningScreen):
    """Writes it. What is stopped half-way starts nothing, until the medium is there and recovery points are copied;
    writing it again is all that is needed."""

    HEADLINE = "Writing the stick"
    STOP = "stop writing"
    GO_ON = "go on writing"

    class Ended(Message):
        """The stick is ready."""

        def __init__(self, report: StickReport) -> None:
            super().__init__()
            self.report = report

    def __init__(self, jobs: Jobs, to: ToStickWriting) -> None:
        super().__init__(jobs, Board(_stages(to.plan), names=STICK_NAMES))
        self._plan = to.plan

    def about(self) -> str:
        return f"Do not pull out {short_node(self._plan.stick.node)}. It is written from {self._plan.iso.path}"

    def work(self) -> Message:
        return self.Ended(self.jobs.write_stick(self._plan, self.sink))

    def sink(self, event: Event) -> None:
        """From the first event of the copy on the stick starts: that is known, whoever has stopped it meanwhile."""
        if event.stage is not Stage.COPY:
            super().sink(event)
            return
        self.post_message(self.Told(event))
        if self.stopping:
            raise StoppedError(
                "Copying was stopped as you asked.", hint="The stick can be used without, or made again."
            )

    def question(self) -> str:
        if not self.board.begun:
            return "Stop? Nothing is written yet: the stick stays as it is."
        if self.board.has_come_to(Stage.COPY):
            return "Stop? The stick starts already, but its repository would not be complete."
        return "Stop? The stick starts nothing then, until it is written again."

    def stopped(self) -> StoppedError:
        return StoppedError("Writing was stopped as you asked.", hint="Write the stick again, or use it otherwise.")

    def on_stick_writing_screen_ended(self, message: Ended) -> None:
        message.stop()
        self.post_message(Go(ToStickResult(message.report, self._plan.stick), replace=True))

    def failed(self, error: LiferaftError) -> None:
        starts = self.board.has_come_to(Stage.COPY)
        self.post_message(Go(ToStickResult(error, self._plan.stick, self.board.begun, starts), replace=True))


def _stages(plan: StickPlan) -> Iterator[Stage]:
    yield from (Stage.CHECK, Stage.PREFLIGHT, Stage.STICK, Stage.VERIFY)
    if plan.layout.data is not None and not plan.layout.kept:
        yield Stage.LAYOUT
    if plan.repository is not None:
        yield Stage.COPY
