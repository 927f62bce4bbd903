"""The drivers layer of a build: the recipe's modules, what DKMS compiles, firmware, and what named machines need."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from builder.architecture import traits_of
from builder.archive.debian import Archive, open_archive
from builder.cache import Cache, key_of
from builder.drivers.dkms import build_dkms
from builder.drivers.drivers import driver_content, write_layer
from builder.drivers.files import FIRMWARE_FOLDERS, Source, driver_source
from builder.drivers.firmware_files import asked_files, firmware_files
from builder.drivers.machine_needs import firmware_needs
from builder.drivers.module_tree import Ground, firmware_on, unpack_modules
from builder.layer import Layer
from builder.recipe.recipe import Recipe
from core.errors import UsageError
from core.events import Event, Sink, Stage
from core.process import Runner
from images.model.machine import Machine

LAYER = "drivers"


class MachineDrivers(msgspec.Struct, frozen=True, kw_only=True):
    """What machines add to a build: their documents, and sources (with a dkms.conf) of drivers they run on."""

    machines: tuple[Machine, ...] = ()
    dkms: tuple[Path, ...] = ()


NO_MACHINES = MachineDrivers()
NO_FIRMWARE: Mapping[str, Path] = MappingProxyType({})


def build_drivers(
    recipe: Recipe,
    machines: MachineDrivers,
    ground: Ground,
    sources: tuple[str, ...],
    cache: Cache,
    runner: Runner,
    sink: Sink,
    *,
    common: Mapping[str, Path] = NO_FIRMWARE,
) -> tuple[Layer, ...]:
    """The layer, from the cache or built; none where there are neither drivers nor firmware.

    Args:
        machines: what the machines the medium is for need.
        ground: the medium's kernel, and the layers below this one.
        sources: lines of a sources.list for the medium's release.
        common: firmware that every medium has, by path below the firmware folder.

    Raises:
        UsageError: something named is not there, or not what it should be; a machine has another processor.
        RefusedError: a driver does not fit the medium's kernel; DKMS needs root.
        UnreachableError: packages cannot be fetched.
        LiferaftError: a driver does not compile.
    """
    _refuse_other_processors(recipe, machines.machines)
    compiled: tuple[Path, ...] = ()
    if recipe.kernel.dkms or machines.dkms:
        compiled = build_dkms(
            recipe.kernel.dkms, machines.dkms, ground.kernel, recipe.release, sources, cache, runner, sink
        )
    named = firmware_files(Path(path) for path in recipe.firmware.files)
    with cache.scratch("drivers") as scratch:
        packages = scratch / "packages"
        packages.mkdir()
        found = [driver_source(Path(path), packages, runner) for path in recipe.kernel.modules]
        if compiled:
            found.append(Source(name="DKMS", modules=compiled))
        firmware = {**common, **_packaged(recipe.firmware_packages, sources, cache, runner, sink), **named}
        if machines.machines:
            modules = [path for source in found for path in source.modules]
            firmware = {**_asked(machines.machines, modules, ground, sources, cache, scratch, runner, sink), **firmware}
        if not found and not firmware:
            return ()
        return (_layer(recipe, found, firmware, ground, cache, runner, sink),)


def _refuse_other_processors(recipe: Recipe, machines: Iterable[Machine]) -> None:
    """What such a machine needs is no driver's business: it would not start from the medium."""
    for machine in machines:
        if machine.architecture != traits_of(recipe.architecture).machine:
            raise UsageError(
                f"The medium is for {recipe.architecture}, and the machine {machine.product or 'that was named'} is "
                f"{machine.architecture}: it would not start from it.",
                hint="Leave it out (firmware.machines, --this-machine), or build for its architecture.",
            )


def _layer(
    recipe: Recipe,
    found: list[Source],
    firmware: dict[str, Path],
    ground: Ground,
    cache: Cache,
    runner: Runner,
    sink: Sink,
) -> Layer:
    parts: list[str | bytes] = ["drivers 2", recipe.compression, ground.kernel, *map(str, ground.trees)]
    for source in found:
        for path in (*source.modules, *source.firmware.values(), *source.settings.values()):
            parts += [path.name, path.read_bytes()]
    for name, path in sorted(firmware.items()):
        parts += [name, path.read_bytes()]

    def make(folder: Path) -> None:
        sink(Event(stage=Stage.BUILD, message="Packing drivers and firmware"))
        with cache.scratch("layer") as scratch:
            content = driver_content(found, firmware, ground, scratch, runner, sink)
            write_layer(LAYER, content, folder, recipe.compression, runner)

    folder, reused = cache.entry("drivers", key_of(parts), make)
    part = folder / f"{LAYER}.img"
    return Layer(LAYER, folder / f"{LAYER}.squashfs", part if part.exists() else None, reused)


def _packaged(
    packages: tuple[str, ...], sources: tuple[str, ...], cache: Cache, runner: Runner, sink: Sink
) -> dict[str, Path]:
    """The firmware of whole Debian packages, unpacked once; by path below the firmware folder."""
    found: dict[str, Path] = {}
    archive: Archive | None = None
    for package in packages:

        def make(folder: Path, package: str = package) -> None:
            nonlocal archive
            archive = archive or open_archive(sources, cache, runner, sink)
            sink(Event(stage=Stage.BUILD, message=f"Fetching {package}"))
            archive.unpack((package,), folder)

        folder, _ = cache.entry(f"firmware.{package}", key_of(("firmware 1", package, *sources)), make)
        if not any((folder / place).is_dir() for place in FIRMWARE_FOLDERS):
            raise UsageError(
                f"firmware.packages: the package {package} has no firmware.",
                hint="Packages that only name others (firmware-linux) bring none: name those.",
            )
        found |= firmware_files((folder,))
    return found


def _asked(
    machines: Iterable[Machine],
    modules: list[Path],
    ground: Ground,
    sources: tuple[str, ...],
    cache: Cache,
    scratch: Path,
    runner: Runner,
    sink: Sink,
) -> dict[str, Path]:
    """The firmware that machines need, and no other file of the packages that have it."""
    tree = unpack_modules(ground, scratch / "asked", runner)
    needs = firmware_needs(machines, modules, tree, firmware_on(ground, runner))
    files = asked_files(needs.names, _packaged(needs.packages, sources, cache, runner, sink))
    what = ", ".join(sorted(files)) or "none"
    sink(Event(stage=Stage.BUILD, message=f"Firmware that the machines may need: {what}"))
    if needs.unknown:
        message = f"Drivers of the machines may ask for firmware that Debian does not have: {', '.join(needs.unknown)}."
        sink(Event(stage=Stage.BUILD, message=message))
    return files
