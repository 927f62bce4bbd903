"""Asking before the machine is restarted or switched off."""

from collections.abc import Iterable

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from rescue.tui.jobs import Jobs
from rescue.tui.messages import Back, Ending, ToEnding
from rescue.tui.screen import WizardScreen
from rescue.tui.widgets.picker import Picker, Row

_QUESTIONS = {
    Ending.REBOOT: ("Reboot this machine now?", "Yes, reboot"),
    Ending.POWEROFF: ("Power this machine off now?", "Yes, power off"),
}


class EndingScreen(WizardScreen):
    """Yes or no."""

    HEADLINE = "Are you sure?"

    class Asked(Message):
        """The system was told."""

    def __init__(self, jobs: Jobs, to: ToEnding) -> None:
        super().__init__(jobs)
        self._ending = to.ending

    def body(self) -> Iterable[Widget]:
        question, yes = _QUESTIONS[self._ending]
        yield Static(question, classes="text", markup=False)
        yield Picker([Row("yes", (yes,)), Row("no", ("No, go back",))], classes="fitting")

    def chosen(self, key: str) -> None:
        if key == "no":
            self.post_message(Back())
            return
        self.start(self._end, "Telling the system")

    def on_ending_screen_asked(self, message: Asked) -> None:
        self.finished()
        self.say("The system is going down.")

    def _end(self) -> Message:
        self.jobs.end(self._ending)
        return self.Asked()
