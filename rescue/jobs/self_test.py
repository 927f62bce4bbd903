"""The self-test of a medium on the machine that runs from it: is every byte right, is there RAM enough, what of the
machine answers. Looks only; writes nothing.

It is the drawer's test: a person starts the stick once a year, chooses the self-test, and reads one word at the end.
"""

import contextlib
import datetime
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from builder.document import MediumDocument
from builder.finished.inspection import inspect_medium
from builder.finished.opened import open_medium
from core.documents import encode
from core.errors import ExitCode, LiferaftError
from core.events import Sink
from core.units import format_size
from images.model.machine import Machine

#: Where live-boot keeps what it started from.
MEDIUM = Path("/run/live/medium")
#: What the check at boot found (builder/data/check-medium).
VERDICT = Path("/run/liferaft/medium-check")


class Grade(StrEnum):
    """How a line of the test came out. Only ``bad`` fails it."""

    GOOD = "ok"
    NOTE = "note"
    BAD = "BAD"


class Line(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    grade: Grade
    what: str
    said: str


class SelfTestResult(msgspec.Struct, frozen=True, kw_only=True):
    """The whole test: ``exit_code`` 0 when nothing is bad, else 5."""

    exit_code: int
    lines: tuple[Line, ...]


def run_self_test(
    sink: Sink, probe: Callable[[], Machine], *, medium: Path = MEDIUM, system: Path = Path("/"), now: datetime.datetime
) -> SelfTestResult:
    """Test the medium that this system runs from, and say what the machine has.

    Args:
        probe: looks at the machine.
        medium: a mounted medium.
        system: the root of the running system, for its own files.
    """
    lines = [*_medium(medium, system, now, sink), *_memory(medium, system), *_consoles(system), *_network(system)]
    try:
        found = probe()
    except LiferaftError as error:
        lines.append(Line(Grade.BAD, "machine", error.message))
    else:
        disks = ", ".join(f"{disk.node} {format_size(disk.size)}" for disk in found.disks)
        lines.append(
            Line(Grade.GOOD if disks else Grade.NOTE, "disks", disks or "none was found: is a driver missing?")
        )
    bad = any(line.grade is Grade.BAD for line in lines)
    return SelfTestResult(exit_code=int(ExitCode.DAMAGED if bad else ExitCode.DONE), lines=tuple(lines))


def result_line(result: SelfTestResult) -> str:
    """The line that a program at the other end of the serial line looks for."""
    return f"LIFERAFT-RESULT {encode(result).decode().strip()}"


def _medium(medium: Path, system: Path, now: datetime.datetime, sink: Sink) -> Iterator[Line]:
    found_at_boot = system / VERDICT.relative_to("/")
    verdict = _read(found_at_boot).splitlines()
    if verdict[:1] == ["whole"]:
        yield Line(Grade.GOOD, "check at boot", "the live system is what was written")
    elif verdict[:1] == ["skipped"]:
        yield Line(Grade.NOTE, "check at boot", "switched off (liferaft.check=no)")
    elif verdict:
        yield Line(Grade.BAD, "check at boot", f"{len(verdict)} ranges differ: {verdict[0]}")
    elif found_at_boot.exists():
        yield Line(Grade.BAD, "check at boot", "it did not come to its end, and a person chose to go on")
    else:
        yield Line(Grade.NOTE, "check at boot", "it did not run: started without the medium's own boot menu")
    try:
        with open_medium(medium) as opened:
            found = inspect_medium(opened, now, sink)
    except LiferaftError as error:
        yield Line(Grade.BAD, "medium", error.message)
        return
    for finding in found.findings:
        yield Line(Grade.BAD, "medium", f"{finding.path}: {finding.problem}" if finding.path else finding.problem)
    if not found.findings:
        yield Line(Grade.GOOD, "medium", f"every file is what was written ({format_size(found.checked)})")
    if found.age_days is not None:
        old = "old: build it again, for newer drivers and boot loaders" if found.old else "not old"
        yield Line(Grade.NOTE if found.old else Grade.GOOD, "age", f"{found.age_days} days, {old}")


def _memory(medium: Path, system: Path) -> Iterator[Line]:
    sizes = {}
    for line in _read(system / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            sizes[name] = int(words[0]) * 1024
    total, free = sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
    said = f"{format_size(total)}, {format_size(free)} of it free"
    document: MediumDocument | None = None
    with contextlib.suppress(LiferaftError), open_medium(medium) as opened:
        document = opened.document
    if document is not None:
        said += f"; the medium asks for {format_size(document.ram)}, copied to RAM {format_size(document.ram_copied)}"
    # The test runs, so it is enough to run; what is left decides how well.
    yield Line(Grade.GOOD if free > total // 5 else Grade.NOTE, "RAM", said)


def _consoles(system: Path) -> Iterator[Line]:
    active = _read(system / "sys/class/tty/console/active").split()
    grade = Grade.GOOD if active else Grade.BAD
    yield Line(grade, "consoles", ", ".join(active) or "none")
    # What the wizard draws with: a person sees at once whether the font has them.
    yield Line(Grade.NOTE, "glyphs", "█▀▄▌▐ ┌─┬┐│├┼┤└┴┘ ━┃╭╮╰╯ ✓ ● ○ ▲▼ (is each one a shape of its own?)")


def _network(system: Path) -> Iterator[Line]:
    folder = system / "sys/class/net"
    names = sorted(path.name for path in folder.iterdir() if path.name != "lo") if folder.is_dir() else []
    for name in names:
        state = _read(folder / name / "operstate").strip()
        driver = folder / name / "device" / "driver"
        by = f", driver {driver.resolve().name}" if driver.exists() else ""
        yield Line(Grade.GOOD if state == "up" else Grade.NOTE, f"network {name}", f"{state or 'unknown'}{by}")
    if not names:
        yield Line(Grade.NOTE, "network", "no card was found: is a driver missing?")


def _read(path: Path) -> str:
    """A small text of the kernel's or of ours; empty when there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
