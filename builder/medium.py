"""The build: from a recipe to a bootable medium, as a list of verbs."""

import datetime
import os
import re
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec

from builder.architecture import traits_of
from builder.archive.loaders import Loaders, fetch_loaders
from builder.archive.origin import DatedRunner, Origin, find_origin
from builder.beside import beside
from builder.boot import (
    INITRD,
    KERNEL,
    bios_boot_code,
    grub_menu,
    loopback_menu,
    make_bios_image,
    make_efi_image,
    mark_name,
)
from builder.cache import Cache, open_cache
from builder.digest import sha256_of
from builder.document import MEDIUM_DOCUMENT, MediumDocument, describe_boot_images, describe_files
from builder.drivers.build import NO_FIRMWARE, NO_MACHINES, MachineDrivers, build_drivers
from builder.drivers.common_firmware import common_firmware
from builder.drivers.firmware_files import windows_driver_files
from builder.drivers.module_tree import Ground
from builder.iso import BootImages, replace_iso
from builder.layer import Layer
from builder.netboot import refuse_bad_folder, write_netboot
from builder.payload import build_own, build_runtime
from builder.recipe.check import secrets_of
from builder.recipe.recipe import Recipe
from builder.rootfs import Base, build_base
from builder.site.files import read_site_files
from builder.site.site import build_site, complete_site
from builder.sums import SUMS, ranges_of_files, sums_image
from core.documents import encode_readable
from core.errors import UsageError
from core.events import Sink
from core.process import Runner
from core.units import MIB, align_up
from core.version import tool_name

#: RAM the live system itself needs beside what it copies: measured, see docs/medium.md.
_RAM_SYSTEM = 640 * MIB
#: Names in the folder of the job that are not the job's.
_OURS = ("job.json", "packages.txt", "medium.json")


class Component(msgspec.Struct, frozen=True):
    """A file on the medium, its size in bytes, and whether it came from the cache."""

    name: str
    size: int
    reused: bool


class BuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was built.

    Attributes:
        path: the medium; the netboot set when only that was built.
        size: bytes.
        sha256: its digest; empty for a netboot set.
        netboot: the netboot set; empty when none was built.
        components: what it is made of, largest first.
        packages: how many Debian packages are in it.
        ram: bytes of RAM the machine needs.
        ram_copied: the same when the medium is copied to RAM.
        seconds: how long the build took.
        warnings: what the person must know, although the medium was built.
    """

    path: str
    size: int
    sha256: str
    netboot: str = ""
    components: tuple[Component, ...]
    packages: int
    ram: int
    ram_copied: int
    seconds: float
    warnings: tuple[str, ...] = ()


def build_iso(
    recipe: Recipe,
    out: Path | None,
    cache_root: Path,
    live: Path,
    runner: Runner,
    sink: Sink,
    *,
    job_files: Mapping[str, Path] = MappingProxyType({}),
    machines: MachineDrivers = NO_MACHINES,
    offline: bool = False,
    netboot: Path | None = None,
) -> BuildReport:
    """Build the medium of ``recipe`` as the hybrid ISO ``out``; the old file stays until the new one is whole.

    Args:
        out: None when only the netboot set is wanted.
        netboot: the folder that becomes the netboot set of the same medium.
        cache_root: the build cache.
        live: the live system's own files (rescue/live).
        job_files: what lies beside the job on the medium, by name.
        machines: what the machines that the medium is for need.
        offline: do not ask the archive whether it has something newer.

    Raises:
        UsageError: ``out`` cannot be written there.
        RefusedError: something that must be built needs root, or a tool is missing.
        ProcessError: a tool failed.
    """
    started = time.monotonic()
    if out is not None:
        _refuse_bad_target(out)
    if netboot is not None:
        refuse_bad_folder(netboot)
    refuse_bad_names(job_files)
    site = read_site_files(recipe)
    windows = windows_driver_files(Path(path) for path in recipe.windows.drivers)
    with open_cache(cache_root) as cache:
        origin = find_origin(recipe, cache, runner, sink, offline=offline)
        runner = DatedRunner(runner, origin.epoch)
        site = complete_site(recipe, site, origin.sources, cache, runner, sink)
        with beside(partial(build_runtime, recipe, origin, cache, runner, sink)) as made:
            base = build_base(recipe, origin, cache, runner, sink)
            runtime = made()
        layers = (
            Layer("base", base.squashfs, reused=base.reused),
            runtime.layer,
            build_own(recipe, base, runtime.toolchain, live, cache, runner, sink),
            *_drivers(recipe, machines, base, origin, cache, runner, sink),
            *build_site(site, base.squashfs, recipe.compression, cache, runner, sink),
        )
        loaders = fetch_loaders(recipe.release, origin.sources, cache, runner, sink, state=origin.digests)
        with cache.scratch("iso") as scratch:
            boot = _make_boot_images(recipe, base, loaders, scratch, runner)
            files = _lay_out(recipe, base, layers, scratch)
            files |= {f"boot/{name}": path for name, path in loaders.memtest.items()}
            files |= {f"liferaft/{name}": path for name, path in job_files.items()} | windows
            files[SUMS] = scratch / "sums.img"
            files[SUMS].write_bytes(sums_image(ranges_of_files(files)))
            document = msgspec.structs.replace(
                _describe(recipe, origin, base, layers, files), boot_images=describe_boot_images(boot.bios, boot.efi)
            )
            files[MEDIUM_DOCUMENT] = scratch / "medium.json"
            files[MEDIUM_DOCUMENT].write_text(encode_readable(document))
            if netboot is not None:
                write_netboot(files, document, loaders, netboot, runner, sink)
            if out is not None:
                private = bool(job_files) or bool(secrets_of(recipe))
                replace_iso(files, boot, out, document.built, runner, sink, private=private)
            return _report(out, netboot, document, base, layers, time.monotonic() - started)


def _refuse_bad_target(out: Path) -> None:
    if out.is_dir():
        raise UsageError(f"{out} is a folder.", hint=f"Name the file: -o {out / 'liferaft-amd64.iso'}")
    if not out.parent.is_dir():
        raise UsageError(f"The folder {out.parent} does not exist.", hint=f"mkdir -p {out.parent}")
    if out.exists() and not out.is_file():
        raise UsageError(f"{out} is not a plain file.", hint="Build a file first, then copy it to the stick.")


def refuse_bad_names(job_files: Iterable[str]) -> None:
    """Refuse names beside the job that are taken, or that no medium can hold.

    Raises:
        UsageError: naming it.
    """
    for name in job_files:
        if name in _OURS or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
            raise UsageError(
                f"{name} cannot lie beside the job on the medium.",
                hint=f"Name it with letters, digits, dots and hyphens, and not {', '.join(_OURS)}.",
            )


def _drivers(
    recipe: Recipe,
    machines: MachineDrivers,
    base: Base,
    origin: Origin,
    cache: Cache,
    runner: Runner,
    sink: Sink,
) -> tuple[Layer, ...]:
    ground = Ground(kernel=base.kernel_release, trees=(base.squashfs,), initrds=(base.initrd,))
    common = (
        common_firmware(origin, ground, base.medium_id, cache, runner, sink) if recipe.firmware.common else NO_FIRMWARE
    )
    return build_drivers(recipe, machines, ground, origin.sources, cache, runner, sink, common=common)


def _make_boot_images(recipe: Recipe, base: Base, loaders: Loaders, scratch: Path, runner: Runner) -> BootImages:
    efi = make_efi_image(scratch, runner, loaders.medium)
    if not traits_of(recipe.architecture).bios:
        return BootImages(None, None, efi)
    return BootImages(bios_boot_code(), make_bios_image(scratch, base.medium_id, runner), efi)


def _lay_out(recipe: Recipe, base: Base, layers: tuple[Layer, ...], scratch: Path) -> dict[str, Path]:
    """Which file goes where on the medium; small ones are written to ``scratch``."""
    written = {
        "boot/grub/grub.cfg": grub_menu(
            base.medium_id, recipe.kernel_parameters, _initrds(layers), recipe.menu, recipe.architecture
        ),
        "boot/grub/loopback.cfg": loopback_menu(),
        "live/filesystem.module": " ".join(f"{layer.name}.squashfs" for layer in layers) + "\n",
        f".disk/{mark_name(base.medium_id)}": f"{base.medium_id}\n",
        # Debian's signed GRUB looks for this name.
        ".disk/info": "liferaft rescue medium\n",
    }
    if recipe.job is not None:
        written["liferaft/job.json"] = encode_readable(recipe.job)
    files = {KERNEL: base.kernel, INITRD: base.initrd, "liferaft/packages.txt": base.packages}
    for layer in layers:
        files |= layer.files
    for name, content in written.items():
        files[name] = scratch / "files" / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_text(content)
    return files


def _initrds(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    return (INITRD, *(path for layer in layers for path in layer.files if path.endswith(".img")), SUMS)


def _describe(
    recipe: Recipe, origin: Origin, base: Base, layers: tuple[Layer, ...], files: Mapping[str, Path]
) -> MediumDocument:
    described = describe_files(files)
    return MediumDocument(
        liferaft=tool_name(),
        built=build_time(origin),
        release=recipe.release,
        architecture=recipe.architecture,
        medium_id=base.medium_id,
        kernel=base.kernel_release,
        kernel_parameters=recipe.kernel_parameters,
        layers=tuple(layer.name for layer in layers),
        initrds=_initrds(layers),
        ram=_RAM_SYSTEM,
        ram_copied=align_up(_RAM_SYSTEM + sum(file.size for file in described), 64 * MIB),
        sources=origin.state,
        files=described,
    )


def build_time(origin: Origin) -> datetime.datetime:
    """What SOURCE_DATE_EPOCH names, or when the packages were published: equal builds give equal media."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch.isdecimal() else origin.published


def _report(
    out: Path | None,
    netboot: Path | None,
    document: MediumDocument,
    base: Base,
    layers: tuple[Layer, ...],
    seconds: float,
) -> BuildReport:
    reused = {path for layer in layers if layer.reused for path in layer.files}
    if base.reused:
        reused |= {KERNEL, INITRD, "liferaft/packages.txt"}
    components = [Component(file.path, file.size, file.path in reused) for file in document.files]
    digest, size = "", sum(file.size for file in document.files)
    if out is not None:
        size = out.stat().st_size
        digest = sha256_of(out)
    return BuildReport(
        path=str(out or netboot),
        netboot=str(netboot or ""),
        size=size,
        sha256=digest,
        components=tuple(sorted(components, key=lambda component: -component.size)),
        packages=len(base.packages.read_text().splitlines()),
        ram=document.ram,
        ram_copied=document.ram_copied,
        seconds=round(seconds, 1),
    )
