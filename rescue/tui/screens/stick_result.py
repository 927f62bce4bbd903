"""How writing a rescue stick ended."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static

from core.errors import LiferaftError, StoppedError
from core.units import counted, format_duration, format_size
from rescue.jobs.write_usb import StickReport
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, Home, ToStick, ToStickResult
from rescue.tui.problem import explain
from rescue.tui.screen import WizardScreen
from rescue.tui.text import cut, short_node
from rescue.tui.widgets.pager import Pager
from rescue.tui.widgets.picker import Picker, Row

_HOME = Row("home", ("Back to the start screen",))
_AGAIN = Row("again", ("Make another one",))


class StickResultScreen(WizardScreen):
    """The report, or the error."""

    HEADLINE = "The stick is ready"
    KEYS = "Up/Down: choose   Enter: go on   PgUp/PgDn: read   Esc: start screen"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, jobs: Jobs, to: ToStickResult) -> None:
        super().__init__(jobs)
        self._to = to

    def body(self) -> Iterable[Widget]:
        outcome, node = self._to.outcome, short_node(self._to.stick.node)
        failed = isinstance(outcome, LiferaftError)
        said = f"{node} starts the rescue system. It can be taken out."
        if failed and self._to.starts:
            said = f"{node} starts the rescue system, but its repository is not complete."
        elif failed:
            said = f"{node} is no rescue stick." if self._to.begun else f"Nothing was written to {node}."
        verdict = Static(cut(said, 78), classes="text", markup=False)
        verdict.set_class(failed, "error")
        yield verdict
        yield Pager(explain(outcome) if isinstance(outcome, LiferaftError) else "\n".join(_lines(outcome)))
        yield Picker((_HOME, _AGAIN), classes="fitting")

    def on_mount(self) -> None:
        outcome, stick = self._to.outcome, self._to.stick
        if not isinstance(outcome, LiferaftError):
            self.memory.finished((stick,))
        elif self._to.begun:
            left = "its repository is not complete" if self._to.starts else "it starts nothing"
            self.memory.broke_off((stick,), f"The stick {short_node(stick.node)} is unfinished: {left}.")
        if isinstance(outcome, StoppedError):
            self.head("Writing the stick was stopped")
        elif isinstance(outcome, LiferaftError):
            self.head("Writing the stick failed")
        elif outcome.warnings:
            self.head("The stick is ready, with warnings")

    def chosen(self, key: str) -> None:
        self.post_message(Home() if key == _HOME.key else Go(ToStick(), replace=True))

    def action_back(self) -> None:
        self.post_message(Home())

    def action_page(self, pages: int) -> None:
        pager = self.query_one(Pager)
        pager.move(pages * pager.page)


def _lines(report: StickReport) -> Iterator[str]:
    rate = f" ({format_size(round(report.iso_size / report.write_seconds))}/s)" if report.write_seconds >= 1 else ""
    proven = f"{format_size(report.verified)} read back and compared"
    yield f"{format_size(report.written)} written{rate}, {proven}, in {format_duration(report.seconds)}."
    yield f"It is {report.medium}."
    if report.data is not None:
        how = "left as it was" if report.data.kept else report.data.filesystem
        yield f"Its partition for data has {format_size(report.data.size)}: {how}."
    if report.repository is not None:
        sealed = ", encrypted with the passphrase of its source" if report.repository.encrypted else ""
        yield f"Its repository has {counted(report.repository.points, 'recovery point')}{sealed}."
    yield from (f"warning: {warning}" for warning in report.warnings)
