"""What liferaft does on this machine just now, so that nobody switches it off in the middle.

Every command that works on data is known by its arguments in /proc. A wizard, whose arguments say nothing, keeps a
record of its job under /run, locked for as long as it runs: what is left of one that was killed has no lock. It is no
list of all that a machine does: a ``dd`` in somebody's shell is not seen.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

#: Where wizards keep their records, and processes are told.
RECORDS = Path("/run/liferaft/running")
PROC = Path("/proc")
#: Bytes of a record, or of a process's arguments, that are looked at.
_LIMIT = 4096
#: Command -> what it does, for people. Those that only read and print are not among them.
_WORKS = {
    "build": "building a rescue medium",
    "capture": "taking a recovery point",
    "copy": "copying recovery points",
    "export": "writing an image",
    "extract": "copying files out of a recovery point",
    "forget": "removing recovery points",
    "inject": "adding to a rescue medium",
    "job": "carrying out a restore job",
    "key": "changing the keys of a repository",
    "prune": "clearing a repository",
    "rebuild-index": "rebuilding the index of a repository",
    "restore": "restoring a disk",
    "support-bundle": "saving a support bundle",
    "write-usb": "writing a rescue stick",
}
#: What ``liferaft key`` does to a repository.
_KEY_CHANGES = ("add", "change", "remove")
#: With these a command only prints.
_IDLE = frozenset(("-h", "--help", "--dry-run"))
_PYTHON = re.compile(r"python[0-9.]*")


@contextlib.contextmanager
def announced(what: str, records: Path = RECORDS) -> Iterator[None]:
    """Say to every wizard of this machine what this process does, for as long as it does it.

    Args:
        what: as "restoring web01 to sda".
    """
    with contextlib.ExitStack() as stack:
        # Where it cannot be said (no root, no /run) there is no machine that somebody could switch off from a wizard.
        with contextlib.suppress(OSError):
            records.mkdir(parents=True, exist_ok=True)
            path = records / f"{os.getpid()}-{id(stack)}"
            # Under its name only when it has its lock: nobody takes it for what a killed one left.
            hidden = path.with_name(f".{path.name}")
            descriptor = os.open(hidden, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, what.encode()[:_LIMIT])
            hidden.rename(path)
            stack.callback(path.unlink, missing_ok=True)
        yield


def running_jobs(records: Path = RECORDS, proc: Path = PROC) -> tuple[str, ...]:
    """A few words for each job that runs on this machine: ``restoring web01 to sda (process 812)``."""
    return (*_recorded(records), *_commands(proc))


def _recorded(records: Path) -> Iterator[str]:
    try:
        found = sorted(path for path in records.iterdir() if not path.name.startswith("."))
    except OSError:
        return
    for path in found:
        with contextlib.suppress(OSError), path.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                what = stream.read(_LIMIT).decode(errors="replace")
                yield f"{what} (process {path.name.partition('-')[0]})"
            else:
                path.unlink(missing_ok=True)


def _commands(proc: Path) -> Iterator[str]:
    try:
        processes = sorted(
            (entry for entry in proc.iterdir() if entry.name.isdigit()), key=lambda entry: int(entry.name)
        )
    except OSError:
        return
    for entry in processes:
        # Processes come and go.
        with contextlib.suppress(OSError), (entry / "cmdline").open("rb") as stream:
            words = stream.read(_LIMIT).decode(errors="replace").split("\0")
            command = _command_of(words)
            if command:
                yield f"{_WORKS[command]} (process {entry.name})"


def _command_of(words: list[str]) -> str:
    """The command of liferaft that a process's arguments name, when it is one that works; empty otherwise.

    Who starts one (sudo, a shell) names it too, further behind, and is no job itself.
    """
    said = _said_to_liferaft(words)
    if _IDLE.intersection(said):
        return ""
    command, below, *_ = (*(word for word in said if not word.startswith("-")), "", "")
    if command == "key" and below not in _KEY_CHANGES:
        return ""
    return command if command in _WORKS else ""


def _said_to_liferaft(words: list[str]) -> list[str]:
    """What a process's arguments say to liferaft: as the program, or as the script of an interpreter, which comes first
    with options of its own: ``/usr/bin/python3 -sP /usr/bin/liferaft restore``."""
    at = 0
    if _PYTHON.fullmatch(Path(words[0]).name):
        at = next((at for at, word in enumerate(words[1:], 1) if not word.startswith("-")), 0)
    return words[at + 1 :] if Path(words[at]).name == "liferaft" else []
