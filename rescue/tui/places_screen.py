"""Saving one file for people: onto which stick, and that it is there. What the file is, its own screen says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from rescue.tui.jobs import Jobs
from rescue.tui.screen import WizardScreen
from rescue.tui.widgets.picker import Picker, Row

if TYPE_CHECKING:  # the screen stands before the job is loaded
    from rescue.jobs.support_places import SupportPlace

_AGAIN = "again"


class PlacesScreen(WizardScreen):
    """The places, and saving there.

    Attributes:
        WHAT: what is saved, and the question where. SAVING: said meanwhile.
    """

    WHAT: ClassVar[str] = ""
    SAVING: ClassVar[str] = ""

    class Looked(Message):
        """The places are known."""

        def __init__(self, places: tuple[SupportPlace, ...]) -> None:
            super().__init__()
            self.places = places

    class Saved(Message):
        """The file is there."""

        def __init__(self, name: str, place: SupportPlace) -> None:
            super().__init__()
            self.name = name
            self.place = place

    def __init__(self, jobs: Jobs) -> None:
        super().__init__(jobs)
        self._places: dict[str, SupportPlace] = {}

    def save(self, place: SupportPlace) -> str:
        """Save it there, in a thread; the name of the file."""
        raise NotImplementedError

    def body(self) -> Iterable[Widget]:
        yield Static(self.WHAT, classes="text", markup=False)
        yield Picker(_rows(()))

    def on_mount(self) -> None:
        self._look()

    def on_places_screen_looked(self, message: Looked) -> None:
        self.finished()
        self._places = {place.device or place.folder: place for place in message.places}
        self.query_one(Picker).show(_rows(message.places))
        if not message.places:
            self.say("No stick with FAT or exFAT is attached, and nothing is mounted to write.")

    def on_places_screen_saved(self, message: Saved) -> None:
        self.finished()
        end = "The stick can be taken out." if message.place.device else f"It is in {message.place.folder}."
        if message.place.stays:
            end = "Leave the stick in: the rescue system runs from it."
        self.say(f"Saved {message.name}. {end}")

    def chosen(self, key: str) -> None:
        if key == _AGAIN:
            self._look()
            return
        place = self._places[key]
        self.start(lambda: self.Saved(self.save(place), place), self.SAVING)

    def _look(self) -> None:
        self.start(lambda: self.Looked(self.jobs.support_places()), "Looking for sticks")


def _rows(places: Sequence[SupportPlace]) -> list[Row]:
    rows = [Row(place.device or place.folder, (place.name,)) for place in places]
    return [*rows, Row(_AGAIN, ("Look again (after attaching a stick)",))]
