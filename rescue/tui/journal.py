"""Log records to the journal, by the datagrams of syslog (RFC 3164 without the time, as /dev/log takes them).

Not logging.handlers: it loads a dozen modules, and the first screen waits for every one.
"""

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

#: Where journald listens.
JOURNAL = Path("/dev/log")
#: Bytes of one message; journald cuts longer ones.
_LIMIT = 32 * 1024
_USER = 1 << 3
_WARNING, _INFO, _DEBUG, _ERROR = 4, 6, 7, 3


class JournalHandler(logging.Handler):
    """Sends each record; what cannot be sent is lost, because there is nowhere to say it.

    Args:
        place: the socket; its absence is not an error.
    """

    def __init__(self, place: Path = JOURNAL) -> None:
        super().__init__()
        self._place = str(place)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # A journal that does not read must not hold up a restore.
        self._socket.settimeout(1.0)

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one datagram."""
        text = f"<{_USER | _priority(record.levelno)}>liferaft[{os.getpid()}]: {record.name}: {self.format(record)}"
        with suppress(OSError):
            self._socket.sendto(text.encode(errors="replace")[:_LIMIT], self._place)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        super().close()


def _priority(level: int) -> int:
    if level >= logging.ERROR:
        return _ERROR
    if level >= logging.WARNING:
        return _WARNING
    return _INFO if level >= logging.INFO else _DEBUG
