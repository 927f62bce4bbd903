"""How the restore ended, and what to do with the machine now."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static

from core.errors import LiferaftError, StoppedError
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Ending, Go, Home, ToEnding, ToResult
from rescue.tui.problem import explain
from rescue.tui.screen import WizardScreen
from rescue.tui.text import cut
from rescue.tui.widgets.pager import Pager
from rescue.tui.widgets.picker import Picker, Row
from restore.report import Report, render_report

_ENDINGS = (Row("reboot", ("Reboot",)), Row("poweroff", ("Power off",)), Row("home", ("Back to the start screen",)))
_BUNDLE = "A support bundle, from the start screen, keeps the logs."


class ResultScreen(WizardScreen):
    """The report, or the error; then reboot, power off or the start."""

    HEADLINE = "Restore finished"
    KEYS = "Up/Down: choose   Enter: go on   PgUp/PgDn: read   Esc: start screen"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, jobs: Jobs, to: ToResult) -> None:
        super().__init__(jobs)
        self._outcome = to.outcome
        self._disk = to.disk
        self._targets = to.targets
        self._begun = to.begun
        self._loses = ""

    def body(self) -> Iterable[Widget]:
        verdict = Static(cut(_verdict(self._outcome, self._disk), 78), classes="text", markup=False)
        verdict.set_class(isinstance(self._outcome, LiferaftError), "error")
        yield verdict
        yield Pager(self._text())
        failed = isinstance(self._outcome, LiferaftError)
        yield Picker((_ENDINGS[2], *_ENDINGS[:2]) if failed else _ENDINGS, classes="fitting")

    def on_mount(self) -> None:
        self.head(headline(self._outcome))
        if isinstance(self._outcome, Report):
            self.memory.restored(self._targets)
            if self._outcome.warnings:
                self._loses = f"The warnings are in the memory of this rescue system alone. {_BUNDLE}"
        elif self._begun:
            self.memory.broke_off(self._targets, f"The restore to {self._disk} did not come to its end. {_BUNDLE}")
        else:
            self._loses = f"Why the restore did not begin is in the memory of this rescue system alone. {_BUNDLE}"

    def chosen(self, key: str) -> None:
        self.post_message(Home() if key == "home" else Go(ToEnding(Ending(key), self._loses)))

    def action_back(self) -> None:
        self.post_message(Home())

    def action_page(self, pages: int) -> None:
        pager = self.query_one(Pager)
        pager.move(pages * pager.page)

    def _text(self) -> str:
        if isinstance(self._outcome, Report):
            advice = "Take the rescue medium out, or choose the restored disk in the firmware, when it reboots."
            return f"{render_report(self._outcome)}\n{advice}"
        if not self._begun:
            state = f"Nothing was written to {self._disk}."
        else:
            state = f"{self._disk} is not complete. Running the same restore again goes on where it stopped."
        return f"{explain(self._outcome)}\n\n{state}"


def _verdict(outcome: Report | LiferaftError, disk: str) -> str:
    if isinstance(outcome, StoppedError):
        return "The restore did not come to its end: it was stopped."
    if isinstance(outcome, LiferaftError):
        return "The restore did not come to its end."
    return f"{outcome.name} is on {disk}. {'Read the warnings below.' if outcome.warnings else ''}"


def headline(outcome: Report | LiferaftError) -> str:
    """The restore in two or three words; the boot lab and the title use it."""
    if isinstance(outcome, Report):
        return "Restore finished with warnings" if outcome.warnings else "Restore finished"
    return "Restore stopped" if isinstance(outcome, StoppedError) else "Restore failed"
