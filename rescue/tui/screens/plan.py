"""The plan: made, shown, and confirmed by typing what it will do."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToPlan, ToRestoring
from rescue.tui.screen import WizardScreen
from rescue.tui.screens.target import short_name
from rescue.tui.text import cut, plain_line, wrap
from rescue.tui.widgets.pager import Pager
from restore.plan import Plan
from restore.render import render

_NOTES_SHOWN = 5
#: Disks whose names are typed; of more, their number.
_NAMED = 3


class PlanScreen(WizardScreen):
    """The only screen from which something is written, and only after its sentence was typed."""

    HEADLINE = "Check the plan"
    KEYS = "Up/Down, PgUp/PgDn: read   type the words, Enter: restore   Esc: back"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
    ]

    class Planned(Message):
        """The plan was made."""

        def __init__(self, plan: Plan) -> None:
            super().__init__()
            self.plan = plan

    def __init__(self, jobs: Jobs, to: ToPlan) -> None:
        super().__init__(jobs)
        self._to = to
        self._plan: Plan | None = None
        self._disks = ", ".join(plain_line(short_name(one.target)) for one in to.placed)
        # Enough to be sure which disks are meant, and little enough for one line.
        few = len(to.placed) <= _NAMED
        self._words = f"erase {self._disks.replace(', ', ' ')}" if few else f"erase {len(to.placed)} disks"

    def body(self) -> Iterable[Widget]:
        yield Pager()
        yield Static("", id="notes", classes="text warning", markup=False)
        yield Static("", id="question", classes="text error", markup=False)
        field = Input(disabled=True)
        field.cursor_blink = False
        yield field

    def on_mount(self) -> None:
        to = self._to
        self.start(
            lambda: self.Planned(self.jobs.plan(to.repository, to.point.id, to.placed, grow=to.grow, verify=to.verify)),
            "Making the plan: checking that every chunk is there",
        )

    def on_plan_screen_planned(self, message: Planned) -> None:
        self.finished()
        self._plan = message.plan
        self.query_one(Pager).show(render(message.plan))
        width = self.size.width - 2
        lines = [line for note in message.plan.notes for line in wrap(f"Note: {note}", width)]
        if len(lines) > _NOTES_SHOWN:
            lines = [*lines[: _NOTES_SHOWN - 1], "More notes are at the end of the plan."]
        self.query_one("#notes", Static).update("\n".join(lines))
        lost, asked = f"Everything on {self._disks} will be lost.", f"To go on, type: {self._words}"
        question = [cut(f"{lost} {asked}", width)] if len(self._to.placed) == 1 else [cut(lost, width), asked]
        self.query_one("#question", Static).update("\n".join(question))
        field = self.query_one(Input)
        field.disabled = False
        field.focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if self._plan is None:
            return
        if message.value.strip() != self._words:
            self.say(f"Nothing was done. Type exactly: {self._words}", warning=True)
            return
        self.post_message(Go(ToRestoring(self._plan, self._disks), replace=True))

    def action_move(self, lines: int) -> None:
        self.query_one(Pager).move(lines)

    def action_page(self, pages: int) -> None:
        pager = self.query_one(Pager)
        pager.move(pages * pager.page)
