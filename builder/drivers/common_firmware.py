"""Firmware that every medium has: what its drivers of wired network cards, disk and USB controllers ask for.

Without it a server's network card or Fibre Channel adapter is dead on the day it is needed. Of Debian's packages only
the files that the medium's own drivers ask for are taken: the packages are mostly for what a rescue system does not
drive. Left out for their size: ``firmware-netronome`` (25 MiB), ``firmware-cavium``, ``firmware-myricom`` and
``firmware-netxen`` (8 MiB); a recipe names them, or the machines that need them.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from builder.archive.debian import open_archive
from builder.archive.origin import Origin
from builder.cache import Cache, key_of
from builder.drivers.early import is_early
from builder.drivers.firmware_files import asked_files, firmware_files
from builder.drivers.kernel_module import read_module
from builder.drivers.module_tree import FIRMWARE, Ground, unpack_modules
from core.errors import UsageError
from core.events import Event, Sink, Stage
from core.process import Runner

PACKAGES = (
    "firmware-bnx2",
    "firmware-bnx2x",
    "firmware-intel-misc",
    "firmware-linux-free",
    "firmware-misc-nonfree",
    "firmware-qlogic",
    "firmware-realtek",
)


def common_firmware(
    origin: Origin, ground: Ground, base: str, cache: Cache, runner: Runner, sink: Sink
) -> dict[str, Path]:
    """The files, by path below the firmware folder, from the cache or from the archive.

    What a mirror without Debian's non-free-firmware lacks is left out, with a warning.

    Args:
        base: what names the ``ground``'s content.

    Raises:
        UnreachableError: the packages are not in the cache, and the archive does not answer.
        DamagedError: a module of the medium cannot be read.
    """
    packages, listed = _offered(origin, cache, runner, sink)
    versions = [line for line in listed if line.partition(" ")[0] in packages]

    def make(folder: Path) -> None:
        sink(Event(stage=Stage.BUILD, message="Fetching firmware of network cards and disk controllers"))
        with cache.scratch("firmware") as scratch:
            tree = unpack_modules(ground, scratch / "modules", runner)
            archive = open_archive(origin.sources, cache, runner, sink, state=origin.digests)
            archive.unpack(packages, scratch / "packages")
            offered = firmware_files((scratch / "packages",)) if packages else {}
            for name, path in wanted_firmware(tree.names().values(), offered).items():
                target = folder / FIRMWARE / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    key = key_of(("common firmware 1", *versions, base))
    folder, _ = cache.entry("firmware.common", key, make)
    return firmware_files((folder,)) if (folder / FIRMWARE).is_dir() else {}


def _offered(origin: Origin, cache: Cache, runner: Runner, sink: Sink) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of the packages that the archive has, and what apt would install for them."""
    try:
        return PACKAGES, origin.packages(PACKAGES, cache, runner, sink)
    except UsageError:
        archive = open_archive(origin.sources, cache, runner, sink, state=origin.digests)
        found = archive.known(PACKAGES)
        if found == PACKAGES:
            raise
    lacks = ", ".join(package for package in PACKAGES if package not in found)
    message = (
        f"The mirror lacks {lacks}: network cards and disk controllers that need firmware out of these do not work "
        "with this medium. Take a mirror with Debian's non-free-firmware, or set firmware.common = false."
    )
    sink(Event(stage=Stage.BUILD, message=message, warning=True))
    return found, origin.packages(found, cache, runner, sink) if found else ()


def wanted_firmware(modules: Iterable[Path], offered: Mapping[str, Path]) -> dict[str, Path]:
    """Of ``offered`` what drivers of disk, network and USB controllers ask for.

    Raises:
        DamagedError: a module cannot be read.
    """
    found = [read_module(path) for path in modules]
    return asked_files((name for module in found if is_early(module) for name in module.firmware), offered)
