"""Which modules of a kernel drive a device: modalias to modules, as kmod resolves it, from the medium's own lists.

Reads the text files that depmod writes (``modules.alias``, ``modules.dep``, ``modules.softdep``) and the kernel's
``modules.builtin`` and ``modules.builtin.modinfo``; depmod(8) and modules.dep(5) describe them. Modules themselves are
not opened here, and modprobe.d's blacklists do not count: none on the medium hides a driver that a machine needs.
"""

import fnmatch
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

import msgspec

_WILD = re.compile(r"[*?\[]")
_SUFFIX = re.compile(r"\.ko(?:\.(?:xz|zst|gz))?$")
#: What drivers claim that some of Debian's kernels have in their image: by their device tables in Linux
#: (drivers/nvme/host/pci.c, virtio/virtio_pci_common.c, ata/ahci.c, usb/host/*-pci.c), in the words of modules.alias.
_BUILT_IN = {
    "nvme": "pci:v*d*sv*sd*bc01sc08i02*",
    "virtio_pci": "pci:v00001AF4d*sv*sd*bc*sc*i*",
    "ahci": "pci:v*d*sv*sd*bc01sc06i01*",
    "xhci_pci": "pci:v*d*sv*sd*bc0Csc03i30*",
    "ehci_pci": "pci:v*d*sv*sd*bc0Csc03i20*",
}


class Claims(msgspec.Struct, frozen=True):
    """Who claims a modalias: modules on the medium, and whether the kernel's image itself does."""

    modules: frozenset[str]
    built_in: frozenset[str]

    @property
    def driven(self) -> bool:
        """Whether anything does."""
        return bool(self.modules or self.built_in)


class ModuleIndex:
    """The modules of one kernel.

    Attributes:
        paths: of each module, below the folder of the kernel's modules.
        built_in: names of what the kernel's image holds.
    """

    def __init__(
        self, *, alias: str, dep: str, softdep: str = "", builtin: str = "", builtin_modinfo: str = ""
    ) -> None:
        """From the texts of the five files.

        ``modules.builtin.modinfo`` has the aliases of few drivers (the kernel writes those of device tables for modules
        only), so the names in ``modules.builtin`` count, too, and of those that a rescue hangs on what they claim.
        """
        self.built_in = frozenset(module_name(line) for line in builtin.splitlines())
        self.paths = dict(_paths(dep))
        self._needs = dict(_needs(dep))
        self._soft = dict(_softdeps(softdep))
        self._modules = _by_prefix(_aliases(alias))
        known = ((pattern, name) for name, pattern in _BUILT_IN.items() if name in self.built_in)
        self._built_in = _by_prefix(itertools.chain(_builtin_aliases(builtin_modinfo), known))

    def claims(self, modalias: str) -> Claims:
        """Who claims a device."""
        wanted = normalize(modalias)
        return Claims(frozenset(_search(self._modules, wanted)), frozenset(_search(self._built_in, wanted)))

    def closure(self, modules: frozenset[str]) -> frozenset[str]:
        """The modules and all that they load: what they need, and what they would like to have."""
        return with_needs(modules, self._needs, self._soft)


def with_needs(names: Iterable[str], *needs: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """``names`` and all that they need by any of the lists, and what that needs."""
    wanted: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left += [needed for one in needs for needed in one.get(name, ())]
    return frozenset(wanted)


def normalize(alias: str) -> str:
    """As kmod compares aliases: ``-`` is ``_``, but not inside brackets."""
    parts = re.split(r"(\[[^\]]*\])", alias)
    return "".join(part if part.startswith("[") and part.endswith("]") else part.replace("-", "_") for part in parts)


def module_name(path: str) -> str:
    """The module's name for a file of modules.dep."""
    return _SUFFIX.sub("", PurePosixPath(path).name).replace("-", "_")


def _aliases(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "alias":
            yield words[1], words[2].replace("-", "_")


def _builtin_aliases(text: str) -> Iterator[tuple[str, str]]:
    """``name.alias=pattern`` strings, each ended by NUL."""
    for entry in text.split("\0"):
        left, separator, pattern = entry.partition(".alias=")
        if separator and pattern:
            yield pattern, left.replace("-", "_")


def _paths(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        path, separator, _ = line.partition(":")
        if separator:
            yield module_name(path), path


def _needs(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in text.splitlines():
        path, separator, rest = line.partition(":")
        if separator:
            yield module_name(path), tuple(module_name(other) for other in rest.split())


def _softdeps(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """``softdep NAME pre: A B post: C``."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 2 and words[0] == "softdep":
            yield (
                words[1].replace("-", "_"),
                tuple(word.replace("-", "_") for word in words[2:] if not word.endswith(":")),
            )


def _by_prefix(pairs: Iterator[tuple[str, str]]) -> Mapping[str, list[tuple[str, str]]]:
    """Patterns by the text before their first wildcard: ten thousands of patterns, and few begin alike."""
    found: dict[str, list[tuple[str, str]]] = {}
    for pattern, module in pairs:
        wanted = normalize(pattern)
        wild = _WILD.search(wanted)
        found.setdefault(wanted[: wild.start()] if wild else wanted, []).append((wanted, module))
    return found


def _search(patterns: Mapping[str, list[tuple[str, str]]], alias: str) -> Iterator[str]:
    for end in range(len(alias) + 1):
        for pattern, module in patterns.get(alias[:end], ()):
            if pattern == alias or _compiled(pattern).fullmatch(alias):
                yield module


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    """fnmatch(3) lets ``^`` negate a set, too."""
    return re.compile(fnmatch.translate(pattern.replace("[^", "[!")))
