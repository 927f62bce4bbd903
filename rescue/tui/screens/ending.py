"""Asking before the machine is restarted or switched off: what would be lost is said, and named."""

from collections.abc import Iterable

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from rescue.tui.jobs import Jobs
from rescue.tui.messages import Back, Ending, ToEnding
from rescue.tui.screen import WizardScreen
from rescue.tui.text import plain, wrap
from rescue.tui.widgets.picker import Picker, Row

_QUESTIONS = {
    Ending.REBOOT: ("Reboot this machine now?", "Yes, reboot"),
    Ending.POWEROFF: ("Power this machine off now?", "Yes, power off"),
}
_NO = Row("no", ("No, go back",))
_SAFE = "No job of liferaft runs on this machine, and none that was begun here is unfinished: nothing is lost."
#: Lines of what would be lost; more would push the question off the screen.
_SHOWN = 12


class EndingScreen(WizardScreen):
    """Yes or no. The cursor is on No, unless nothing can be lost."""

    HEADLINE = "Are you sure?"

    class Looked(Message):
        """What runs on this machine is known. ``jobs``: a few words for each."""

        def __init__(self, jobs: tuple[str, ...]) -> None:
            super().__init__()
            self.jobs = jobs

    class Asked(Message):
        """The system was told."""

    def __init__(self, jobs: Jobs, to: ToEnding) -> None:
        super().__init__(jobs)
        self._ending = to.ending
        self._loses = to.loses

    def body(self) -> Iterable[Widget]:
        yield Static("", id="question", classes="text", markup=False)
        yield Static("", id="loses", classes="text", markup=False)
        # Nothing to choose before it is known what would be lost: a second Enter of a burst is no answer.
        yield Picker(classes="fitting")

    def on_mount(self) -> None:
        self.start(lambda: self.Looked(self.jobs.running()), "Looking what runs on this machine")

    def on_ending_screen_looked(self, message: Looked) -> None:
        self.finished()
        question, yes = _QUESTIONS[self._ending]
        self.query_one("#question", Static).update(question)
        loses = [f"It would cut off: {job}." for job in message.jobs]
        loses += [sentence for sentence in dict.fromkeys((*self.memory.unfinished, self._loses)) if sentence]
        lines = [line for sentence in loses or [_SAFE] for line in wrap(plain(sentence), self.size.width - 2)]
        said = self.query_one("#loses", Static)
        said.set_class(bool(loses), "warning")
        said.update("\n".join(lines[:_SHOWN]))
        rows = [_NO, Row("yes", (yes,))]
        self.query_one(Picker).show(rows, at=_NO.key if loses else "yes")

    def chosen(self, key: str) -> None:
        if key == _NO.key:
            self.post_message(Back())
            return
        self.start(self._end, "Telling the system")

    def on_ending_screen_asked(self, message: Asked) -> None:
        self.finished()
        self.say("The system is going down.")

    def _end(self) -> Message:
        self.jobs.end(self._ending)
        return self.Asked()
