"""What a rescue medium cannot drive on this machine, and what mends it."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static

from builder.preflight.findings import MachinePreflight, Severity
from builder.preflight.render import describe_machine, describe_medium, verdict
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Back, Go, Home, ToPreflightResult, ToSaveMachine
from rescue.tui.screen import WizardScreen
from rescue.tui.text import cut
from rescue.tui.widgets.pager import Pager
from rescue.tui.widgets.picker import Picker, Row

_TITLES = {
    Severity.BLOCKS: "The medium will not do here",
    Severity.WARNING: "The medium should do here, with warnings",
}
_COLOURS = {Severity.BLOCKS: "error", Severity.WARNING: "warning"}
_ANOTHER = Row("another", ("Check another medium",))
_SAVE = Row("save", ("Save this machine's document to a stick: for building a medium for it",))
_HOME = Row("home", ("Back to the start screen",))
_NOT_SEEN = (
    "Not looked at: whether every byte of the medium is right (liferaft inspect does that), and devices that are "
    "switched off or unplugged."
)


class PreflightResultScreen(WizardScreen):
    """The verdict, and the findings with their remedies."""

    HEADLINE = "The medium will do here"
    KEYS = "Up/Down: choose   Enter: go on   PgUp/PgDn: read   Esc: back"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, jobs: Jobs, to: ToPreflightResult) -> None:
        super().__init__(jobs)
        self._to = to

    @property
    def _found(self) -> MachinePreflight:
        """The machine this runs on is the only one in the report."""
        return self._to.judged.report.machines[0]

    def body(self) -> Iterable[Widget]:
        sentence = Static(cut(verdict(self._found), 78), classes="text", markup=False)
        if self._found.worst in _COLOURS:
            sentence.add_class(_COLOURS[self._found.worst])
        yield sentence
        yield Pager("\n".join(_lines(self._to)))
        rows = (_SAVE, _ANOTHER, _HOME) if self._found.worst in _COLOURS else (_HOME, _ANOTHER, _SAVE)
        yield Picker(rows, classes="fitting")

    def on_mount(self) -> None:
        if self._found.worst in _TITLES:
            self.head(_TITLES[self._found.worst])

    def chosen(self, key: str) -> None:
        match key:
            case "save":
                self.post_message(Go(ToSaveMachine(self._to.judged.machine)))
            case "another":
                self.post_message(Back())
            case _:
                self.post_message(Home())

    def action_page(self, pages: int) -> None:
        pager = self.query_one(Pager)
        pager.move(pages * pager.page)


def _lines(to: ToPreflightResult) -> Iterator[str]:
    report = to.judged.report
    yield from describe_machine(report.machines[0], notes=True)
    yield ""
    if to.name != report.medium:
        yield to.name
    yield describe_medium(report)
    yield _NOT_SEEN
