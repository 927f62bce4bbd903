"""What a stick would become, and what is lost for it: confirmed by typing its name."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input, Static

from rescue.jobs.write_usb import describe
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToStickPlan, ToStickWriting
from rescue.tui.screen import WizardScreen
from rescue.tui.text import cut, short_node
from rescue.tui.widgets.pager import Pager


class StickPlanScreen(WizardScreen):
    """The only screen from which a stick is written, and only after its words were typed."""

    HEADLINE = "Check what is written"
    KEYS = "Up/Down, PgUp/PgDn: read   type the words, Enter: write   Esc: back"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
    ]

    def __init__(self, jobs: Jobs, to: ToStickPlan) -> None:
        super().__init__(jobs)
        self._plan = to.plan
        self._stick = short_node(to.plan.stick.node)
        self._words = f"erase {self._stick}"

    def body(self) -> Iterable[Widget]:
        yield Pager(describe(self._plan))
        lost = "Everything on it but its data partition will be lost." if self._plan.layout.kept else ""
        lost = lost or f"Everything on {self._stick} will be lost."
        question = "\n".join(cut(line, 78) for line in (lost, f"To go on, type: {self._words}"))
        yield Static(question, classes="text error", markup=False)
        field = Input()
        field.cursor_blink = False
        yield field

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if message.value.strip() != self._words:
            self.say(f"Nothing was done. Type exactly: {self._words}", warning=True)
            return
        self.post_message(Go(ToStickWriting(self._plan), replace=True))

    def action_move(self, lines: int) -> None:
        self.query_one(Pager).move(lines)

    def action_page(self, pages: int) -> None:
        pager = self.query_one(Pager)
        pager.move(pages * pager.page)
