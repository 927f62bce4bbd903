"""Ending in order when told to stop: a CI job that is cancelled, or ``timeout``, sends SIGTERM.

Python's default would end the process at once and leave emulators, mounts, loop devices and nginx behind.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def orderly_end() -> Iterator[None]:
    """Inside, SIGTERM is Ctrl-C: every context manager on the way out does its work."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number}")
