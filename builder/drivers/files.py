"""Where drivers come from (folders, modules, Debian packages), and whether the medium's kernel would take them.

Nothing is written to a medium here. Every reason against is found, not only the first.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from builder.drivers.kernel_module import KernelModule, is_module, module_name, read_module
from builder.drivers.module_tree import ModuleTree
from core.errors import DamagedError, ProcessError, RefusedError, UsageError
from core.process import Runner

#: Where packages put firmware, and settings of kmod, below ``/``.
FIRMWARE_FOLDERS = ("usr/lib/firmware", "lib/firmware")
_SETTINGS_FOLDERS = ("usr/lib/modprobe.d", "lib/modprobe.d", "etc/modprobe.d")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What one place has to offer.

    Attributes:
        name: the place as the person wrote it, for messages.
        modules: files.
        firmware: path below the firmware folder to the file.
        settings: name in modprobe.d to the file.
    """

    name: str
    modules: tuple[Path, ...]
    firmware: dict[str, Path] = msgspec.field(default_factory=dict)
    settings: dict[str, Path] = msgspec.field(default_factory=dict)


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A module that goes on the medium: its file, what it says of itself, and whether it replaces the medium's own."""

    path: Path
    module: KernelModule
    replaces: bool


def driver_source(path: Path, scratch: Path, runner: Runner) -> Source:
    """What a module, a folder or a Debian package has to offer; packages are unpacked below ``scratch``.

    Raises:
        UsageError: nothing of the kind is there.
        DamagedError: the package is broken.
    """
    if not path.exists():
        raise UsageError(f"The driver {path} does not exist.", hint="Name a folder, a .ko file or a .deb package.")
    if path.is_dir():
        return _folder_source(path, path, scratch, runner)
    if is_module(path):
        return Source(name=str(path), modules=(path,))
    if path.name.endswith(".deb"):
        return _folder_source(unpack_package(path, scratch, runner), path, scratch, runner)
    raise UsageError(
        f"{path} is no driver: expected a folder, a module (.ko, .ko.xz, .ko.zst, .ko.gz) or a .deb.",
        hint="A Windows driver (.inf) is carried by its folder: windows.drivers of a recipe, or --windows-driver.",
    )


def unpack_package(path: Path, scratch: Path, runner: Runner) -> Path:
    """The files of a .deb, in a folder of their own below ``scratch``.

    Raises:
        DamagedError: dpkg-deb cannot read it; its words say why.
    """
    folder = scratch / f"{len(list(scratch.iterdir()))}-{path.name}"
    try:
        runner.run(["dpkg-deb", "--extract", str(path), str(folder)], timeout=300)
    except ProcessError as error:
        said = [line for line in error.output.splitlines() if "error" in line] or [error.output.strip()[-200:]]
        raise DamagedError(f"{path} is not a whole Debian package: {said[0].strip()}") from error
    return folder


def _folder_source(folder: Path, named: Path, scratch: Path, runner: Runner) -> Source:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    modules = [path for path in files if is_module(path)]
    firmware = _below(folder, FIRMWARE_FOLDERS)
    settings = _below(folder, _SETTINGS_FOLDERS)
    for package in (path for path in files if path.name.endswith(".deb") and not modules):
        inner = _folder_source(unpack_package(package, scratch, runner), package, scratch, runner)
        modules += inner.modules
        firmware |= inner.firmware
        settings |= inner.settings
    if not modules:
        what = "package" if named.is_file() else "folder"
        windows = any(path.suffix.lower() == ".inf" for path in files)
        dkms = any(path.name == "dkms.conf" for path in files)
        hint = "It holds firmware only: name it as firmware." if firmware else ""
        hint = "It is source for DKMS: name it in dkms of the recipe, which builds it." if dkms else hint
        hint = "It is a driver for Windows: use windows.drivers, or --windows-driver." if windows else hint
        raise UsageError(
            f"The {what} {named} has no kernel modules (.ko, .ko.xz, .ko.zst, .ko.gz) among its {len(files)} files.",
            hint=hint,
        )
    return Source(name=str(named), modules=tuple(modules), firmware=firmware, settings=settings)


def _below(folder: Path, places: Iterable[str]) -> dict[str, Path]:
    found = {}
    for place in places:
        for path in sorted((folder / place).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(folder / place))] = path
    return found


def choose_modules(sources: Iterable[Source], tree: ModuleTree) -> tuple[Chosen, ...]:
    """The modules of ``sources`` that fit the kernel of ``tree``, one per name, all checked.

    A place may hold one driver for several kernels: what fits is taken, and a driver of which nothing fits is refused.

    Raises:
        DamagedError: a file is not a kernel module.
        RefusedError: with every reason: another kernel, built in, a module that is missing.
    """
    magic, builtin, own = tree.vermagic(), tree.builtin(), tree.names()
    chosen: dict[str, Chosen] = {}
    reasons: list[str] = []
    for source in sources:
        read = {path: read_module(path) for path in source.modules}
        for name in sorted({module_name(path) for path in read}):
            rivals = {path: module for path, module in read.items() if module_name(path) == name}
            fitting = [path for path, module in rivals.items() if module.vermagic == magic]
            if name in builtin:
                reasons.append(
                    f"{min(rivals)}: {name} is part of the kernel {tree.kernel} itself: it cannot be replaced."
                )
            elif fitting:
                chosen[name] = Chosen(path=fitting[-1], module=rivals[fitting[-1]], replaces=name in own)
            else:
                reasons += [_misfit(path, module, magic) for path, module in rivals.items()]
    for name, found in chosen.items():
        reasons += [
            f"{found.path}: {name} needs the module {need}, which is neither on the medium nor among the drivers."
            for need in found.module.depends
            if need not in own and need not in chosen and need not in builtin
        ]
    if reasons:
        more = f" ({len(reasons) - 1} more like it)" if len(reasons) > 1 else ""
        raise RefusedError(
            reasons[0] + more,
            hint=f"A driver must be built for the kernel {tree.kernel}; dkms in a recipe builds it from its source.",
            reasons=tuple(reasons),
        )
    return tuple(chosen.values())


def _misfit(path: Path, module: KernelModule, magic: str) -> str:
    found = module.vermagic or "no vermagic at all"
    return f"{path} is for another kernel: vermagic expected {magic!r}, found {found!r}."
