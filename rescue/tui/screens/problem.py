"""An error, before anything was written, and the way back."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from rescue.tui.jobs import Jobs
from rescue.tui.messages import Back, Home, ToProblem
from rescue.tui.problem import explain
from rescue.tui.screen import WizardScreen
from rescue.tui.widgets.pager import Pager
from rescue.tui.widgets.picker import Picker, Row


class ProblemScreen(WizardScreen):
    """What happened, all reasons, what to do."""

    HEADLINE = "That did not work"
    KEYS = "Up/Down: choose   Enter: go on   PgUp/PgDn: read   Esc: back"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, jobs: Jobs, to: ToProblem) -> None:
        super().__init__(jobs)
        self._to = to

    def body(self) -> Iterable[Widget]:
        yield Pager(explain(self._to.error), id="text")
        yield Picker([Row("back", ("Back",)), Row("home", ("Back to the start screen",))], classes="fitting")

    def chosen(self, key: str) -> None:
        self.post_message(Back() if key == "back" else Home())

    def action_page(self, pages: int) -> None:
        pager = self.query_one(Pager)
        pager.move(pages * pager.page)
