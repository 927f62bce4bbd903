"""Measuring a command: wall seconds, processor seconds, and the peak memory of its largest process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LIFERAFT = (sys.executable, "-c", "from rescue.cli.main import main; main()")


class Measured(NamedTuple):
    """Wall seconds; processor seconds, of all its processes; bytes of resident memory at the peak of the largest."""

    seconds: float
    cpu: float
    peak_memory: int


def measure(command: str | Sequence[str], *, env: Mapping[str, str] | None = None) -> Measured:
    """Run a shell pipeline (the peers' own) or an argv; a failure ends the benchmark with its output."""
    words = ["bash", "-o", "pipefail", "-c", command] if isinstance(command, str) else list(command)
    shown = command if isinstance(command, str) else " ".join(words)
    shown = shown.replace(" ".join(LIFERAFT), "liferaft")
    print(f"  {shown[:150]}", flush=True)
    started = time.monotonic()
    environment = {**os.environ, **(env or {})}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 4):
        raise SystemExit(f"{shown}\nfailed with {process.returncode}:\n{output.decode(errors='replace')[-2000:]}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def best(times: int, once: Callable[[], Measured]) -> Measured:
    """The quickest of several runs, with the largest memory: what else the machine does only ever adds seconds."""
    runs = [once() for _ in range(times)]
    quickest = min(runs, key=lambda run: run.seconds)
    return quickest._replace(cpu=min(run.cpu for run in runs), peak_memory=max(run.peak_memory for run in runs))


def liferaft(*words: str | Path) -> Measured:
    """Run liferaft as a user does, in a process of its own."""
    return measure([*LIFERAFT, *map(str, words)])


def warm(path: Path) -> None:
    """Read a file into the page cache, so that every command starts from the same state."""
    with path.open("rb") as stream:
        while stream.read(1 << 22):
            pass


def settle() -> None:
    """Write what is dirty, so that no command pays for the one before it."""
    os.sync()
    time.sleep(2)
