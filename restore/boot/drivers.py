"""Drivers: which kernel modules the restored system needs to find its root disk on this machine.

The chain of devices from the disk up to the bus is read from sysfs; the modaliases of that chain are
resolved against the restored system's own kernel, whose answer counts, not the rescue system's.
"""

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.process import Runner

_MODULE = re.compile(r"/([^/]+)\.ko(?:\.(?:xz|zst|gz))?$")


class Drivers(msgspec.Struct, frozen=True, kw_only=True):
    """Modules a kernel needs for a disk, by their names with ``_``; ``unknown`` are controller aliases without one."""

    needed: frozenset[str]
    unknown: tuple[str, ...]


def disk_aliases(node: str, *, sys: Path = Path("/sys")) -> tuple[str, ...]:
    """The modaliases from a disk up to the root of the device tree, nearest first."""
    device = (sys / "class/block" / Path(node).name).resolve()
    return tuple(dict.fromkeys(_aliases_above(device, sys)))


def _aliases_above(device: Path, sys: Path) -> Iterator[str]:
    for folder in (device, *device.parents):
        if folder == sys.resolve():
            return
        path = folder / "modalias"
        if path.is_file():
            yield path.read_text(errors="replace").strip()


def needed_drivers(root: Path, kernel: str, aliases: tuple[str, ...], runner: Runner) -> Drivers:
    """Resolve the aliases of a disk's chain against a kernel of the restored system."""
    needed: set[str] = set()
    unknown: list[str] = []
    for alias in aliases:
        found = _resolve(root, kernel, alias, runner)
        needed |= found
        if not found and _is_storage_controller(alias) and not _is_built_in(root, kernel, alias):
            unknown.append(alias)
    return Drivers(needed=frozenset(needed), unknown=tuple(unknown))


def _resolve(root: Path, kernel: str, alias: str, runner: Runner) -> set[str]:
    """modprobe answers 1 for an alias no module claims: built in, or not there."""
    found = runner.run(
        ["modprobe", "--dirname", str(root), "--set-version", kernel, "--resolve-alias", alias],
        success=frozenset({0, 1}),
        timeout=60,
    )
    return {line.strip().replace("-", "_") for line in found.stdout.splitlines() if line.strip()}


def _is_storage_controller(alias: str) -> bool:
    """PCI base class 01, mass storage."""
    return bool(re.match(r"pci:.*bc01", alias))


def _is_built_in(root: Path, kernel: str, alias: str) -> bool:
    """Whether the kernel's image itself claims the alias, which modprobe does not see.

    The file holds ``name.alias=pattern`` strings, each ended by NUL.
    """
    try:
        data = (root / "lib/modules" / kernel / "modules.builtin.modinfo").read_bytes()
    except OSError:
        return False
    patterns = (entry.partition(".alias=")[2] for entry in data.decode(errors="replace").split("\0"))
    return any(pattern and fnmatch.fnmatchcase(alias, pattern) for pattern in patterns)


def builtin_drivers(root: Path, kernel: str) -> frozenset[str]:
    """Modules that are part of that kernel's image."""
    path = root / "lib/modules" / kernel / "modules.builtin"
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return frozenset()
    return modules_in(text)


def modules_in(listing: str) -> frozenset[str]:
    """The module names in a list of paths (lsinitramfs, modules.builtin)."""
    found = (_MODULE.search(line) for line in listing.splitlines())
    return frozenset(match.group(1).replace("-", "_") for match in found if match)
