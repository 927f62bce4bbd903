"""The plan: made, shown, and confirmed by typing what it will do."""

import tempfile
from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from core.units import format_size
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToPlan, ToRestoring, ToScratch
from rescue.tui.screen import WizardScreen
from rescue.tui.screens.target import short_name
from rescue.tui.text import cut, plain_line, wrap
from rescue.tui.widgets.pager import Pager
from restore.plan.plan import Plan
from restore.plan.render import render
from restore.shrink.room import scratch_of

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
        Binding("f3", "scratch", show=False),
    ]

    class Planned(Message):
        """The plan was made. ``cramped``: why its scratch files do not fit where they would go; empty when they do."""

        def __init__(self, plan: Plan, cramped: str) -> None:
            super().__init__()
            self.plan = plan
            self.cramped = cramped

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

        def plan() -> Message:
            made = self.jobs.plan(to.repository, to.point.id, to.placed, to.wanted)
            nodes = tuple(one.target.node for one in to.placed)
            return self.Planned(made, self.jobs.scratch_reason(made, to.scratch, nodes))

        self.start(plan, "Making the plan: checking that every chunk is there")

    def on_plan_screen_planned(self, message: Planned) -> None:
        self.finished()
        if message.cramped:
            self.post_message(Go(ToScratch(self._to, message.plan, message.cramped), replace=True))
            return
        self._plan = message.plan
        self.query_one(Pager).show(render(message.plan))
        width = self.size.width - 2
        scratch = self._scratch(message.plan)
        lines = [line for note in message.plan.notes for line in wrap(f"Note: {note}", width)]
        lines = [cut(scratch, width), *lines] if scratch else lines
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
        targets = tuple(one.target for one in self._to.placed)
        self.post_message(Go(ToRestoring(self._plan, self._disks, targets, self._to.scratch), replace=True))

    def action_scratch(self) -> None:
        if self._plan is not None and scratch_of(self._plan):
            self.post_message(Go(ToScratch(self._to, self._plan), replace=True))

    def _scratch(self, plan: Plan) -> str:
        """Where scratch files go, in a line; empty when there are none."""
        needed = scratch_of(plan)
        place = self._to.scratch
        where = (place.device or place.folder) if place is not None else tempfile.gettempdir()
        return f"Scratch (F3: elsewhere): about {format_size(needed)} on {where}" if needed else ""

    def action_move(self, lines: int) -> None:
        self.query_one(Pager).move(lines)

    def action_page(self, pages: int) -> None:
        pager = self.query_one(Pager)
        pager.move(pages * pager.page)
