"""The wizard on a real terminal: a key gives the terminal to a shell, and exit gives it back."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pyte
import pytest

_F2 = b"\x1bOQ"
_PATIENCE = 30.0


class Terminal:
    """A program on a terminal of 80x24."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self._screen)

    def see(self, *words: str) -> None:
        """Wait until the picture has all the words."""
        end = time.monotonic() + _PATIENCE
        while not all(word in "\n".join(self._screen.display) for word in words):
            left = end - time.monotonic()
            assert left > 0, f"not seen: {words}\n" + "\n".join(self._screen.display)
            if select.select([self._master], [], [], min(left, 0.5))[0]:
                with contextlib.suppress(OSError):
                    self._stream.feed(os.read(self._master, 65536))

    def wipe(self) -> None:
        """Forget the picture: what is seen after this was drawn after this."""
        self._screen.reset()

    def press(self, keys: bytes) -> None:
        """Type on the terminal."""
        os.write(self._master, keys)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    script = "from rescue.tui.app import run_wizard; run_wizard()"
    # As a session leader with this terminal, which job control needs; setsid(1) would do the same.
    wizard = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {script}"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "PS1": "$ "},
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master)
    finally:
        wizard.kill()
        wizard.wait()
        os.close(master)


def test_a_key_opens_a_shell_and_exit_comes_back_to_the_same_screen(terminal: Terminal) -> None:
    terminal.see("Rescue system", "of RAM", "Power off")
    terminal.press(b"\x1b[B")
    terminal.see("> Show this machine")
    terminal.press(_F2)
    terminal.see("A root shell. To come back to the wizard: exit")
    # Job control works only where the shell really has the terminal.
    terminal.press(b"echo job-control-$((6*7))-$(case $- in *m*) echo on;; esac)\n")
    terminal.see("job-control-42-on")
    terminal.wipe()
    terminal.press(b"exit\n")
    terminal.see("Rescue system", "> Show this machine", "Power off")
    terminal.press(b"\x1b[B")
    terminal.see("> Save a support bundle")
