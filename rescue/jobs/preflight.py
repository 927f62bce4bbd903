"""Preflight of a medium for machines: opens the medium, reads the machines' documents, has them judged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from builder.finished.opened import open_medium
from builder.preflight.findings import PreflightReport
from builder.preflight.preflight import check_medium
from core.documents import decode_stored
from core.errors import DamagedError, UsageError
from core.events import Event, Sink, Stage
from core.files import read_small
from core.process import Runner
from core.units import MIB
from images.model.machine import Machine
from images.probe import probe_machine
from images.probe_hardware import describe_hardware

#: No machine's document is larger; those of servers with hundreds of disks have some hundred KiB.
_DOCUMENT_LIMIT = 32 * MIB
_VERSION = 1
THIS_MACHINE = "this machine"


class JudgedHere(msgspec.Struct, frozen=True, kw_only=True):
    """A medium judged for the machine this runs on.

    Attributes:
        machine: as it was seen for that, devices and what the firmware trusts included.
        report: of that machine alone.
    """

    machine: Machine
    report: PreflightReport


def preflight(medium: Path, documents: Sequence[Path], runner: Runner) -> PreflightReport:
    """Judge ``medium`` for the machines of ``documents``; without any, for the machine this runs on.

    Args:
        documents: machine documents, and folders of them (``*.json``, not below).

    Raises:
        UsageError: a document or folder that is not there, or two of one name.
        DamagedError: the medium or a document cannot be read.
        RefusedError: the medium is too old to be judged.
    """
    machines = read_machines(documents) if documents else {THIS_MACHINE: describe_hardware(probe_machine(runner))}
    with open_medium(medium) as opened:
        return check_medium(opened, machines, runner)


def preflight_here(medium: Path, runner: Runner, sink: Sink) -> JudgedHere:
    """Judge ``medium`` for the machine this runs on, and keep what was seen of that.

    Args:
        sink: is told what is done; whoever raises there ends it.

    Raises:
        UsageError: there is no such medium.
        DeviceError: it cannot be opened. DamagedError: it cannot be read.
        RefusedError: it is too old to be judged. MissingToolError: unsquashfs is not installed.
    """
    sink(Event(stage=Stage.PREFLIGHT, message="Looking at this machine"))
    machine = describe_hardware(probe_machine(runner))
    with open_medium(medium) as opened:
        return JudgedHere(machine=machine, report=check_medium(opened, {THIS_MACHINE: machine}, runner, sink))


def read_machines(documents: Sequence[Path]) -> dict[str, Machine]:
    """Machine documents by what a person calls them: the file's name without ``.json``.

    Raises:
        UsageError: one is not there, a folder has none, or two have the same name.
        DamagedError: a file is no machine document, or of a newer version.
    """
    found: dict[str, Machine] = {}
    places: dict[str, Path] = {}
    for path in _files(documents):
        name = path.stem
        if name in found:
            raise UsageError(f"{places[name]} and {path} would both be called {name}.", hint="Rename one of them.")
        found[name], places[name] = _read(path), path
    return found


def _files(documents: Sequence[Path]) -> Iterator[Path]:
    for path in documents:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(path.glob("*.json"))
        if not inside:
            raise UsageError(
                f"The folder {path} has no machine documents (*.json).",
                hint="On each machine: liferaft probe --json > NAME.json",
            )
        yield from inside


def _read(path: Path) -> Machine:
    hint = "On the machine: liferaft probe --json > machine.json"
    content = read_small(path, str(path), _DOCUMENT_LIMIT, hint=hint)
    machine = decode_stored(content, Machine, name=str(path))
    if machine.version != _VERSION:
        raise DamagedError(
            f"{path}, version: expected {_VERSION}, found {machine.version}.",
            hint="A newer liferaft wrote it: use that.",
        )
    return machine
