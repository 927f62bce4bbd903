"""A serial line of an emulated machine: what came out of it, waiting for words in it, typing into it.

A thread reads the line for as long as the machine runs, so nothing is lost and the guest never blocks; every byte
is also written to a log file. :meth:`Console.screen` shows the line as a terminal would (80×24 through pyte).
"""

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyte

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Za-z0-9]|\x1b[=>78cM]|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")


class LineTimeoutError(AssertionError):
    """What was waited for did not come in time, or the line ended before."""


class Console:
    """One end of a serial line.

    Args:
        name: for messages, e.g. ``ttyS0``.
        log: file that gets every byte.
    """

    ROWS = 24
    COLUMNS = 80

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        self._socket: socket.socket | None = None
        self._heard = bytearray()
        self._position = 0
        self._ended = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._screen = pyte.Screen(self.COLUMNS, self.ROWS)
        self._terminal = pyte.ByteStream(self._screen)
        self._drawn = 0

    def attach(self, line: socket.socket) -> None:
        """Start listening on a connected socket."""
        self._socket = line
        self._thread = threading.Thread(target=self._listen, name=self.name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; the text stays readable."""
        if self._socket is not None:
            # shutdown wakes the listening thread; close alone would leave it waiting.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        if self._thread is not None:
            self._thread.join(5)

    def _listen(self) -> None:
        assert self._socket is not None
        with self._log.open("wb", buffering=0) as log:
            while True:
                try:
                    piece = self._socket.recv(65536)
                except OSError:
                    piece = b""
                with self._changed:
                    self._heard += piece
                    self._ended = not piece
                    self._changed.notify_all()
                if not piece:
                    return
                log.write(piece)

    def send(self, keys: str | bytes) -> None:
        """Type ``keys`` on the line."""
        assert self._socket is not None
        self._socket.sendall(keys.encode() if isinstance(keys, str) else keys)

    @property
    def text(self) -> str:
        """Everything heard so far, terminal escapes removed."""
        with self._changed:
            raw = bytes(self._heard)
        return _plain(raw)

    def tail(self, lines: int = 60) -> str:
        """The last lines heard, for a failure report."""
        return "\n".join(self.text.replace("\r", "\n").replace("\n\n", "\n").splitlines()[-lines:])

    def expect(self, pattern: str, timeout: float, *, against: str = "") -> re.Match[str]:
        """Wait until ``pattern`` (a regular expression, multi-line) is heard after the last match.

        Args:
            timeout: seconds.
            against: a pattern that means it will never come, e.g. a kernel panic.

        Raises:
            LineTimeoutError: not heard in time, the line ended, or ``against`` came first.
        """
        end = time.monotonic() + timeout
        wanted = re.compile(pattern, re.MULTILINE)
        feared = re.compile(against, re.MULTILINE) if against else None
        while True:
            with self._changed:
                heard, ended = bytes(self._heard[self._position :]), self._ended
            text = _plain(heard)
            if match := wanted.search(text):
                # The position is in raw bytes; find the raw end of the match by its plain length.
                self._position += _raw_length(heard, match.end())
                return match
            if feared and (bad := feared.search(text)):
                raise LineTimeoutError(f"{self.name}: heard {bad.group(0)!r} while waiting for {pattern!r}")
            if ended:
                raise LineTimeoutError(f"{self.name}: the machine stopped before {pattern!r} was heard")
            left = end - time.monotonic()
            if left <= 0:
                raise LineTimeoutError(f"{self.name}: {pattern!r} was not heard within {timeout:.0f} s")
            with self._changed:
                if len(self._heard) - self._position == len(heard) and not self._ended:
                    self._changed.wait(min(left, 1.0))

    def screen(self) -> list[str]:
        """The line as a 80×24 terminal shows it now, one string per row, right side stripped."""
        with self._changed:
            raw = bytes(self._heard[self._drawn :])
        self._drawn += len(raw)
        self._terminal.feed(raw)
        return [row.rstrip() for row in self._screen.display]

    def wipe(self) -> None:
        """Forget the picture: what is seen after this was drawn after this."""
        self.screen()
        self._screen.reset()

    def wait_screen(self, shows: Callable[[list[str]], bool], what: str, timeout: float) -> list[str]:
        """Wait until the terminal picture satisfies ``shows``; returns it.

        Raises:
            LineTimeoutError: with the picture that was there instead.
        """
        end = time.monotonic() + timeout
        while True:
            rows = self.screen()
            if shows(rows):
                return rows
            with self._changed:
                ended = self._ended
            if ended or time.monotonic() > end:
                raise LineTimeoutError(f"{self.name}: the screen did not show {what}:\n" + "\n".join(rows))
            time.sleep(0.5)


def _plain(raw: bytes) -> str:
    return _ESCAPE.sub("", raw.decode(errors="replace"))


def _raw_length(raw: bytes, plain_length: int) -> int:
    """How many raw bytes make the first ``plain_length`` plain characters (binary search: both grow together)."""
    low, high = 0, len(raw)
    while low < high:
        middle = (low + high) // 2
        if len(_plain(raw[:middle])) < plain_length:
            low = middle + 1
        else:
            high = middle
    return low
