"""The emulator's control line (QMP): one JSON object per line, each command answered in order."""

import json
import socket
from pathlib import Path
from typing import Any


class Control:
    """Speaks QMP over a connected socket.

    Raises:
        OSError: the emulator is gone; the caller decides whether that is news.
    """

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(30)
        self._line = line
        self._reader = line.makefile("r", encoding="utf-8")
        self._next()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: object) -> Any:
        """Run one command and return what it returned; events on the way are dropped."""
        message = {"execute": name, "arguments": arguments}
        self._line.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._next()
            if "error" in answer:
                raise OSError(f"QMP {name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def screendump(self, path: Path) -> None:
        """Save the picture on the screen as PNG."""
        self.command("screendump", filename=str(path), format="png")

    def _next(self) -> dict[str, Any]:
        line = self._reader.readline()
        if not line:
            raise OSError("the emulator closed its control line")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Hang up."""
        self._reader.close()
        self._line.close()
