"""The lab's ears: a line that comes in pieces is not taken for a whole one."""

import socket
import time
from pathlib import Path

import pytest

from tests.boot.console import Console, LineTimeoutError
from tests.boot.restoring import read_result


def test_a_result_is_read_when_its_line_has_ended(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    console = Console("ttyS0", tmp_path / "log")
    console.attach(ours)
    try:
        # A serial line gives what it has: here up to a brace that closes something inside.
        theirs.sendall(b'LIFERAFT-RESULT {"steps":[{"volume":"disk0-part1"}')
        while not console.text:
            time.sleep(0.01)
        with pytest.raises(LineTimeoutError, match="was not heard"):
            read_result(console, 0.2)
        theirs.sendall(b',{"volume":"disk0-part2"}],"exit_code":0}\r\n')
        result = read_result(console, 20)
    finally:
        theirs.close()
        console.close()
    assert result == {"steps": [{"volume": "disk0-part1"}, {"volume": "disk0-part2"}], "exit_code": 0}
