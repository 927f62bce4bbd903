"""Choosing where scratch files go, when filesystems are made smaller on a copy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from core.units import format_size
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToPlan, ToScratch
from rescue.tui.screen import WizardScreen
from rescue.tui.widgets.picker import Picker, Row
from restore.shrink.room import scratch_of

if TYPE_CHECKING:
    from rescue.jobs.scratch_places import ScratchPlace

_AGAIN = "again"


class ScratchScreen(WizardScreen):
    """The places. One that has to be mounted to write is asked for twice."""

    HEADLINE = "Choose a place for scratch files"

    class Looked(Message):
        """The places are known."""

        def __init__(self, places: tuple[ScratchPlace, ...]) -> None:
            super().__init__()
            self.places = places

    def __init__(self, jobs: Jobs, to: ToScratch) -> None:
        super().__init__(jobs)
        self._to = to
        self._places: dict[str, ScratchPlace] = {}
        self._sure = ""

    def body(self) -> Iterable[Widget]:
        needed = scratch_of(self._to.plan)
        text = (
            f"Filesystems are made smaller on a copy, before the first write to the target.\n"
            f"That takes about {format_size(needed)} of room until the restore has ended, on a disk\n"
            f"that is no target: on a stick or disk with ext4, XFS or btrfs, or on what you\n"
            f"have mounted to write (F2 opens a shell). Nothing of it is left."
        )
        yield Static(text, classes="text", markup=False)
        yield Picker(_rows(()))

    def on_mount(self) -> None:
        self._look()

    def on_scratch_screen_looked(self, message: Looked) -> None:
        self.finished()
        self._sure = ""
        self._places = {place.device or place.folder: place for place in message.places}
        self.query_one(Picker).show(_rows(message.places))
        if self._to.why:
            self.say(f"There is too little room: {self._to.why}.", warning=True)

    def chosen(self, key: str) -> None:
        if key == _AGAIN:
            self._look()
            return
        place = self._places[key]
        if place.device and self._sure != key:
            self._sure = key
            self.say(
                f"{place.device} will be mounted to write. If it may be a disk of the machine that is lost, choose "
                "another one. Enter again: use it.",
                warning=True,
            )
            return
        back = self._to.back
        to = ToPlan(back.repository, back.point, back.placed, back.wanted, place)
        self.post_message(Go(to, replace=True))

    def refused(self, row: Row) -> None:
        self.say(f"It will not do: {self._places[row.key].reason}.", warning=True)

    def action_back(self) -> None:
        if self._to.why:
            # The plan would lead here again.
            super().action_back()
        else:
            self.post_message(Go(self._to.back, replace=True))

    def _look(self) -> None:
        nodes = tuple(one.target.node for one in self._to.back.placed)
        self.start(lambda: self.Looked(self.jobs.scratch_places(self._to.plan, nodes)), "Looking for places")


def _rows(places: Iterable[ScratchPlace]) -> list[Row]:
    rows = [
        Row(
            place.device or place.folder,
            (place.name, f"  not possible: {place.reason}") if place.reason else (place.name,),
            enabled=not place.reason,
        )
        for place in places
    ]
    return [*rows, Row(_AGAIN, ("Look again (after attaching or mounting a disk)",))]
