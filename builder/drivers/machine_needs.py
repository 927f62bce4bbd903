"""What machines need that a medium lacks: the firmware their devices' drivers ask for, and the packages that have it.

From the modaliases of machine documents to modules of the medium's kernel, from these to the files they may ask the
kernel for. What no module drives is the preflight's to say.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from builder.drivers.firmware_package import package_of
from builder.drivers.kernel_module import read_module
from builder.drivers.module_index import ModuleIndex
from builder.drivers.module_tree import ModuleTree
from images.model.machine import Machine


class FirmwareNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes:
        names: firmware files as the modules name them; may hold wildcards.
        packages: Debian packages that have them.
        unknown: names that no Debian package has.
    """

    names: frozenset[str]
    packages: tuple[str, ...]
    unknown: tuple[str, ...]


def firmware_needs(
    machines: Iterable[Machine], added: Iterable[Path], tree: ModuleTree, present: frozenset[str]
) -> FirmwareNeeds:
    """The firmware that the devices of ``machines`` may ask for and the medium lacks.

    Args:
        added: modules that are added to the medium: what they ask for counts, whatever they drive.
        tree: the medium's modules.
        present: names of the firmware that is there.

    Raises:
        DamagedError: a module cannot be read.
    """
    index = _index(tree)
    aliases = {alias for machine in machines for alias in machine.modaliases}
    drivers = frozenset(module for alias in aliases for module in index.claims(alias).modules)
    where = tree.names()
    modules = [where[name] for name in sorted(index.closure(drivers)) if name in where]
    names = {name for path in (*modules, *added) for name in read_module(path).firmware} - present
    holders = {name: package_of(name) for name in sorted(names)}
    return FirmwareNeeds(
        names=frozenset(names),
        packages=tuple(sorted({package for package in holders.values() if package})),
        unknown=tuple(name for name, package in holders.items() if not package),
    )


def _index(tree: ModuleTree) -> ModuleIndex:
    def text(name: str) -> str:
        path = tree.folder / name
        return path.read_text(errors="replace") if path.is_file() else ""

    return ModuleIndex(
        alias=text("modules.alias"),
        dep=text("modules.dep"),
        softdep=text("modules.softdep"),
        builtin_modinfo=text("modules.builtin.modinfo"),
    )
