"""Signals in this process: each test finds them as a program does at its start, and leaves them as they were."""

import signal
from collections.abc import Iterator

import pytest

from core.stopping import SIGNALS


@pytest.fixture(autouse=True)
def signals_as_at_the_start() -> Iterator[None]:
    """Whoever runs the tests (nohup, a shell in the background) may have some of them ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
