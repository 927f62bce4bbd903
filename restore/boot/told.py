"""What a boot repair did and what the user must know: lines, told as events as they come. It judges nothing."""

from core.events import Event, Sink, Stage


class Told:
    """The lines of one boot repair.

    Attributes:
        actions: what was done. warnings: what the user must know.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.actions: list[str] = []
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Something the user must know."""
        self.warnings.append(text)
        self._sink(Event(stage=Stage.BOOT, message=text, warning=True))

    def say(self, text: str) -> None:
        """Something that is going on."""
        self._sink(Event(stage=Stage.BOOT, message=text))

    def did(self, text: str) -> None:
        """Something that was done, for the report."""
        self.actions.append(text)
        self.say(text)
