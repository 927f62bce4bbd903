"""Checking a rescue medium: which one. It is judged here for the machine the wizard runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from core.errors import LiferaftError, StoppedError
from core.events import Event
from rescue.tui.jobs import Jobs
from rescue.tui.media_rows import ASK_PATH, TYPE_PATH, media_rows
from rescue.tui.messages import Go, ToPreflight, ToPreflightResult, ToProblem
from rescue.tui.screen import WizardScreen
from rescue.tui.widgets.picker import Picker, Row

if TYPE_CHECKING:  # the screen stands before the jobs are loaded
    from rescue.jobs.attached_media import AttachedMedium
    from rescue.jobs.preflight import JudgedHere

_WHAT = """\
Would a rescue medium do on this machine? Its drivers, firmware files and
signed programs are compared with the devices, RAM and firmware of this one.
Nothing is written, and nothing is started.
"""
_KEYS = "Up/Down: choose   Enter: check it   Esc: back"
_TYPE_KEYS = "Enter: check it   Esc: back to the list"
_CHECK_KEYS = "Esc: stop the check"
_ASK = f"Type the path of the ISO file or netboot folder {ASK_PATH}."
_AGAIN = "again"


class PreflightScreen(WizardScreen):
    """The media. What is found goes to a screen of its own; an error leads back here, where another may be chosen."""

    HEADLINE = "Check a rescue medium"
    KEYS = _KEYS

    class Looked(Message):
        """The attached media are known."""

        def __init__(self, media: tuple[AttachedMedium, ...]) -> None:
            super().__init__()
            self.media = media

    class Told(Message):
        """What is done just now."""

        def __init__(self, event: Event) -> None:
            super().__init__()
            self.event = event

    class Judged(Message):
        """A check has come to its end. ``stop_check`` says which."""

        def __init__(self, judged: JudgedHere, stop_check: threading.Event) -> None:
            super().__init__()
            self.judged = judged
            self.stop_check = stop_check

    def __init__(self, jobs: Jobs, to: ToPreflight) -> None:
        super().__init__(jobs)
        self._media: dict[str, str] = {}
        self._chosen = ""
        #: Set when the check that runs shall end; None when there is none.
        self._stop: threading.Event | None = None

    def body(self) -> Iterable[Widget]:
        yield Static(_WHAT, classes="text", markup=False)
        # Without rows before the media are known: the second Enter of a burst would choose one that nobody saw.
        yield Picker()
        field = Input(id="typed")
        field.cursor_blink = False
        field.display = False
        yield field

    def on_screen_resume(self) -> None:
        """Whenever this screen is shown: media come and go."""
        if self._stop is None and not self._field.display:
            self._look()

    def on_unmount(self) -> None:
        if self._stop is not None:
            self._stop.set()

    def on_preflight_screen_looked(self, message: Looked) -> None:
        self.finished()
        self._media = {medium.node: medium.name for medium in message.media}
        self.query_one(Picker).show(_rows(self._media))
        if self._field.display:
            self.say(_ASK)
        elif not message.media:
            self.say("No rescue medium is attached. Attach one and look again, or type a path.")

    def on_preflight_screen_told(self, message: Told) -> None:
        if self._stop is not None:
            self.doing(message.event.message)

    def on_preflight_screen_judged(self, message: Judged) -> None:
        if message.stop_check is self._stop:
            self._ended()
            name = self._media.get(self._chosen, self._chosen)
            self.post_message(Go(ToPreflightResult(name, message.judged)))

    def failed(self, error: LiferaftError) -> None:
        if self._stop is None:
            super().failed(error)
        else:
            # Another medium may do.
            self._ended()
            self.post_message(Go(ToProblem(error)))

    def chosen(self, key: str) -> None:
        if self._stop is not None:
            return
        if key == _AGAIN:
            self._look()
        elif key == TYPE_PATH:
            self._type()
        else:
            self._check(key)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        text = message.value.strip()
        if text and self._stop is None:
            self.memory.medium = text
            self._close()
            self._check(text)

    def action_back(self) -> None:
        if self._stop is not None:
            self._stop.set()
            self.workers.cancel_group(self, "job")
            self._ended()
            self.say("The check was stopped.")
        elif self._field.display:
            self._close()
        else:
            super().action_back()

    @property
    def _field(self) -> Input:
        return self.query_one("#typed", Input)

    def _look(self) -> None:
        # What lies on the medium a new stick is to have is not let go.
        keep = self.memory.stick.repository
        self.start(lambda: self.Looked(self.jobs.media(keep)), "Looking for rescue media")

    def _type(self) -> None:
        field = self._field
        field.value = self.memory.medium
        field.display = True
        field.focus()
        self.keys(_TYPE_KEYS)
        self.say(_ASK)

    def _close(self) -> None:
        """Back to the list."""
        self._field.display = False
        self.query_one(Picker).focus()
        self.keys(_KEYS)
        self.say("")

    def _check(self, medium: str) -> None:
        stop = threading.Event()
        self._stop, self._chosen = stop, medium

        def told(event: Event) -> None:
            if stop.is_set():
                raise StoppedError("The check was stopped.")
            self.post_message(self.Told(event))

        self.keys(_CHECK_KEYS)
        path = Path(medium).expanduser()
        self.start(lambda: self.Judged(self.jobs.preflight(path, told), stop), "Looking at this machine")

    def _ended(self) -> None:
        self._stop = None
        self.finished()
        self.keys(_KEYS)


def _rows(media: dict[str, str]) -> list[Row]:
    rows = media_rows(media, "An ISO file, or the folder of a netboot set")
    return [*rows, Row(_AGAIN, ("Look again (after attaching a medium)",))]
