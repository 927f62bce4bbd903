"""The kernel modules of a medium, taken out of its layers, and the tables that kmod reads (depmod makes them).

No root: what is unpacked belongs to whoever builds, and only names and contents count here.

Source: depmod(8), depmod.d(5): ``updates`` comes before the kernel's own folder.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from builder.drivers.kernel_module import SUFFIXES, is_module, module_name, read_module
from builder.initrd import read_initrd
from core.errors import DamagedError, ProcessError
from core.process import Runner

#: Below usr: Debian's /lib is a link, and an archive must not replace it.
MODULES = "usr/lib/modules"
FIRMWARE = "usr/lib/firmware"
#: What depmod makes; the other files there (order, builtin) are the kernel package's.
_TABLES = ("alias", "alias.bin", "dep", "dep.bin", "devname", "softdep", "symbols", "symbols.bin")
_BUILTIN = re.compile(r"([^/]+)\.ko$", re.MULTILINE)


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer is put on.

    Attributes:
        kernel: the release of the medium's kernel, as ``uname -r`` gives it.
        trees: the squashfs files below it, lowest first.
        initrds: what the kernel unpacks before the layer's own part, in order.
    """

    kernel: str
    trees: tuple[Path, ...]
    initrds: tuple[Path, ...]


class ModuleTree:
    """A folder with the modules of one kernel, laid out as below ``/``."""

    def __init__(self, root: Path, kernel: str) -> None:
        self.root = root
        self.kernel = kernel
        self.folder = root / MODULES / kernel

    def names(self) -> dict[str, Path]:
        """Where each module lies; of two with one name the one that depmod prefers."""
        found: dict[str, Path] = {}
        for path in sorted(self.folder.rglob("*.ko*")):
            name = module_name(path)
            if is_module(path) and (name not in found or path.is_relative_to(self.folder / "updates")):
                found[name] = path
        return found

    def builtin(self) -> frozenset[str]:
        """Names of the modules that are part of the kernel's image."""
        try:
            text = (self.folder / "modules.builtin").read_text(errors="replace")
        except FileNotFoundError:
            return frozenset()
        return frozenset(name.replace("-", "_") for name in _BUILTIN.findall(text))

    def vermagic(self) -> str:
        """What the kernel wants to see in a module: what its own have.

        Raises:
            DamagedError: there is none to look at.
        """
        for path in self.names().values():
            if path.is_relative_to(self.folder / "kernel"):
                return read_module(path).vermagic
        raise DamagedError(f"The medium has no modules for its kernel {self.kernel}.")

    def dependencies(self) -> dict[str, tuple[str, ...]]:
        """What each module needs loaded, all of it, by names; from modules.dep."""
        found = {}
        for line in (self.folder / "modules.dep").read_text(errors="replace").splitlines():
            path, _, needs = line.partition(":")
            found[module_name(Path(path))] = tuple(module_name(Path(need)) for need in needs.split())
        return found

    def make_tables(self, runner: Runner) -> dict[str, Path]:
        """Have depmod make the tables anew; by their paths below ``/``.

        Raises:
            ProcessError: depmod failed.
        """
        library = self.root / "lib"
        if not library.is_symlink():
            library.symlink_to("usr/lib")
        # This machine's own depmod.d must not decide about the medium.
        settings = self.root / "depmod.d"
        settings.mkdir(exist_ok=True)
        runner.run(["depmod", "-b", str(self.root), "-C", str(settings), self.kernel], timeout=300)
        made = {f"modules.{name}": self.folder / f"modules.{name}" for name in _TABLES}
        return {f"{MODULES}/{self.kernel}/{name}": path for name, path in made.items() if path.is_file()}


def unpack_modules(ground: Ground, root: Path, runner: Runner) -> ModuleTree:
    """The modules of the live system of ``ground``, as its layers have them, unpacked below ``root``.

    Raises:
        DamagedError: a squashfs cannot be read, or none has modules for the kernel.
    """
    root.mkdir(parents=True)
    for squashfs in ground.trees:
        _unsquash(squashfs, root, [f"{MODULES}/{ground.kernel}"], runner)
    tree = ModuleTree(root, ground.kernel)
    if not tree.names():
        raise DamagedError(f"The medium has no modules for its kernel {ground.kernel}.")
    return tree


def unpack_initrd_modules(ground: Ground, root: Path) -> ModuleTree:
    """The modules of the initrds of ``ground``, unpacked below ``root``.

    Raises:
        DamagedError: an initrd is not one.
    """
    wanted = f"{MODULES}/{ground.kernel}/"
    tree = ModuleTree(root, ground.kernel)
    tree.folder.mkdir(parents=True)
    for path in ground.initrds:
        for file in read_initrd(path.read_bytes(), name=str(path)):
            # Archives made for systems whose /lib is a folder have it there.
            name = file.name if file.name.startswith("usr/") else f"usr/{file.name}"
            if file.is_file and name.startswith(wanted) and ".." not in name.split("/"):
                target = root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.content)
    return tree


def firmware_on(ground: Ground, runner: Runner) -> frozenset[str]:
    """Names of the firmware files that the live system of ``ground`` has, below its firmware folder."""
    found: set[str] = set()
    for squashfs in ground.trees:
        argv = ["unsquashfs", "-no-progress", "-d", "", "-l", str(squashfs), FIRMWARE]
        listing = runner.run(argv, success=frozenset({0, 1, 2}), timeout=120).stdout
        found |= {line.strip("/").removeprefix(f"{FIRMWARE}/") for line in listing.splitlines()}
    return frozenset(found)


def _unsquash(squashfs: Path, root: Path, names: Sequence[str], runner: Runner) -> None:
    argv = ["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-force", "-dest", str(root), str(squashfs), *names]
    try:
        runner.run(argv, timeout=300)
    except ProcessError as error:
        raise DamagedError(f"{squashfs} cannot be unpacked: {error.output.strip()[-200:]}") from error


def file_suffix(path: Path) -> str:
    """The module suffix of a file name."""
    return next(suffix for suffix in SUFFIXES if path.name.endswith(suffix))
