"""What a build tells of itself while it goes on."""

from core.events import Event, Sink, Stage


def tell(sink: Sink, message: str) -> None:
    """Say what is being done now."""
    sink(Event(stage=Stage.BUILD, message=message))
