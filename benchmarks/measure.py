"""Measuring a command: wall seconds and the peak memory of its largest process."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Measured(NamedTuple):
    """Wall seconds, and bytes of resident memory at the peak."""

    seconds: float
    peak_memory: int


def measure(command: str | Sequence[str]) -> Measured:
    """Run a shell pipeline (the peers' own) or an argv; a failure ends the benchmark with its output."""
    words = ["bash", "-o", "pipefail", "-c", command] if isinstance(command, str) else list(command)
    shown = command if isinstance(command, str) else " ".join(["liferaft", *words[3:]])
    print(f"  {shown[:110]}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 4):
        raise SystemExit(f"{shown}\nfailed with {process.returncode}:\n{output.decode(errors='replace')[-2000:]}")
    return Measured(seconds, usage.ru_maxrss * 1024)


def warm(path: Path) -> None:
    """Read a file into the page cache, so that every command starts from the same state."""
    with path.open("rb") as stream:
        while stream.read(1 << 22):
            pass


def settle() -> None:
    """Write what is dirty, so that no command pays for the one before it."""
    os.sync()
    time.sleep(1)
