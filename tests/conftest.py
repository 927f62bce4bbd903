"""What holds for every ring: properties are judged by what they find, not by the time it took; Ctrl-C is one; and a
test leaves signals and the current folder as it found them, for the next one in its process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from core.stopping import SIGNALS

settings.register_profile("liferaft", deadline=None)
settings.load_profile("liferaft")

# Whoever starts the tests in the background of a shell has them ignore Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
_FOLDER = Path.cwd()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """A handler that has heard a signal stays (core.stopping): everything after it would take itself for stopped."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    os.chdir(_FOLDER)
