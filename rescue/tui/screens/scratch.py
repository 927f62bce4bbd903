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

_AGAIN, _NO, _YES = "again", "no", "yes"


class ScratchScreen(WizardScreen):
    """The places. One that has to be mounted to write is asked for with a list of its own."""

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
        self._asked: ScratchPlace | None = None

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
        self._places = {place.device or place.folder: place for place in message.places}
        self._list()

    def chosen(self, key: str) -> None:
        if self._asked is not None:
            if key == _YES:
                self._use(self._asked)
            else:
                self._list()
            return
        if key == _AGAIN:
            self._look()
            return
        place = self._places[key]
        if place.device:
            self._ask(place)
        else:
            self._use(place)

    def refused(self, row: Row) -> None:
        self.say(f"It will not do: {self._places[row.key].reason}.", warning=True)

    def action_back(self) -> None:
        if self._asked is not None:
            self._list()
        elif self._to.why:
            # The plan would lead here again.
            super().action_back()
        else:
            self.post_message(Go(self._to.back, replace=True))

    def _list(self) -> None:
        """The places, at the one that was asked about."""
        asked, self._asked = self._asked, None
        self.query_one(Picker).show(_rows(self._places.values()), at=asked.device if asked is not None else "")
        self.say(f"Choose another place: {self._to.why}." if self._to.why else "", warning=True)

    def _ask(self, place: ScratchPlace) -> None:
        self._asked = place
        rows = [Row(_NO, ("No, show the places again",)), Row(_YES, (f"Yes, mount {place.device} to write",))]
        self.query_one(Picker).show(rows, header=place.name, at=_NO)
        self.say(
            f"{place.device} will be mounted to write. If it may be a disk of the machine that is lost: No.",
            warning=True,
        )

    def _use(self, place: ScratchPlace) -> None:
        back = self._to.back
        self.memory.about(back.repository, back.point.id).scratch = place
        to = ToPlan(back.repository, back.point, back.placed, back.wanted, place)
        self.post_message(Go(to, replace=True))

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
