"""What the machines a medium is for add to its build: from their documents, and from the machine this runs on."""

import re
from collections.abc import Iterator
from pathlib import Path

from builder.drivers.build import MachineDrivers
from builder.recipe.recipe import Recipe
from core.events import Event, Sink, Stage
from core.process import Runner
from images.probe import probe_machine
from rescue.jobs.preflight import read_machines

_MODULE = re.compile(r"^\s*BUILT_MODULE_NAME(?:\[\d+\])?=[\"']?([A-Za-z0-9_-]+)", re.MULTILINE)
_CONFIGURATION_LIMIT = 1 << 20


def machine_drivers(
    recipe: Recipe, this_machine: bool, runner: Runner, sink: Sink, root: Path = Path("/")
) -> MachineDrivers:
    """What to add for the recipe's machines and, when ``this_machine``, for the one this runs on.

    Args:
        root: where this machine's /sys and /usr/src are.

    Raises:
        UsageError: a machine document is not there. DamagedError: it is none.
    """
    documents = [Path(path) for path in recipe.firmware.machines]
    machines = list(read_machines(documents).values()) if documents else []
    dkms: list[Path] = []
    if this_machine:
        machines.append(probe_machine(runner))
        foreign = foreign_modules(root)
        sources = _dkms_sources(root)
        dkms = sorted({sources[name] for name in foreign if name in sources})
        for folder in dkms:
            sink(Event(stage=Stage.BUILD, message=f"This machine uses a driver compiled by DKMS: {folder}"))
        if lost := sorted(foreign - sources.keys()):
            message = (
                f"This machine uses drivers that are not its kernel's own, without their source: {', '.join(lost)}. "
                "If the medium needs one, name it in kernel.modules or kernel.dkms."
            )
            sink(Event(stage=Stage.BUILD, message=message, warning=True))
    return MachineDrivers(machines=tuple(machines), dkms=tuple(dkms))


def foreign_modules(root: Path) -> frozenset[str]:
    """Loaded modules that did not come with the running kernel: those it calls out of tree.

    Source: the kernel's Documentation/admin-guide/tainted-kernels.rst (``O``), /sys/module/NAME/taint.
    """
    found = set()
    for path in (root / "sys/module").glob("*/taint"):
        if "O" in path.read_text(errors="replace"):
            found.add(path.parent.name)
    return frozenset(found)


def _dkms_sources(root: Path) -> dict[str, Path]:
    """Module to the folder of its source that DKMS has on this machine."""
    return {name: folder for folder in sorted((root / "usr/src").glob("*-*")) for name in _built_from(folder)}


def _built_from(folder: Path) -> Iterator[str]:
    configuration = folder / "dkms.conf"
    if configuration.is_file() and configuration.stat().st_size <= _CONFIGURATION_LIMIT:
        for name in _MODULE.findall(configuration.read_text(errors="replace")):
            yield name.replace("-", "_")
