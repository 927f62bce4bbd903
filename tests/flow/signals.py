"""Programs that tests send signals to."""

import signal


def signals_as_at_the_start() -> None:
    """In a program that is about to start: whoever runs the tests (nohup, systemd) may have some of them ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
