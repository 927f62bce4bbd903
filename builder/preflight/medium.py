"""What a finished medium can drive: its kernel's modules, its firmware files, its signed programs. Read without root.

Tables and modules are taken out of the squashfs layers where they lie in the ISO, by unsquashfs; a layer above hides
what one below it has, as it does when the medium runs.
"""

import contextlib
import fnmatch
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from builder.boot import KERNEL
from builder.document import MediumDocument
from builder.drivers.kernel_module import KernelModule, read_module
from builder.drivers.module_index import ModuleIndex
from builder.finished.opened import OpenedMedium
from builder.finished.signatures import Program, read_program
from core.errors import DamagedError, LiferaftError, ProcessError, RefusedError
from core.events import Event, Sink, Stage, ignore
from core.process import Runner

_MODULES = "usr/lib/modules"
_FIRMWARE = "usr/lib/firmware"
_TABLES = ("alias", "dep", "softdep", "builtin", "builtin.modinfo")
_KERNEL_RELEASE = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,80}")
_KERNEL_LIMIT = 256 * 1024 * 1024
#: File names of the programs, in the EFI image below EFI/BOOT and in a netboot folder at its top (UEFI 2.10 3.5.1.1
#: gives the first its name).
_BOOT_FILES = {
    "amd64": {"shim": "BOOTX64.EFI", "GRUB": "GRUBX64.EFI"},
    "arm64": {"shim": "BOOTAA64.EFI", "GRUB": "GRUBAA64.EFI"},
}
_BOOT_FOLDER = "EFI/BOOT/"
_PROGRAM_LIMIT = 64 * 1024 * 1024
_COMPRESSED = (".xz", ".zst")
#: MiB that unsquashfs may have waiting for its threads: by default 256 twice, which a machine that runs from a rescue
#: medium may not have.
_QUEUES = ("-data-queue", "8", "-frag-queue", "8")


class StartChain(msgspec.Struct, frozen=True):
    """What firmware starts, in order: shim, GRUB, kernel. ``problem`` says why there is none."""

    programs: tuple[Program, ...] = ()
    problem: str = ""


class MediumAbilities:
    """A medium's drivers; made by :func:`read_abilities`.

    Attributes:
        document: the medium's own.
        index: which module drives what.
        firmware: files below the firmware folder.
        chain: what firmware starts.
        fetched: it is a netboot set, whose layers a machine has in RAM.
    """

    def __init__(
        self,
        document: MediumDocument,
        index: ModuleIndex,
        layers: tuple["_Layer", ...],
        chain: StartChain,
        scratch: Path,
        runner: Runner,
        *,
        fetched: bool,
    ) -> None:
        self.document = document
        self.index = index
        self.chain = chain
        self.fetched = fetched
        self.firmware = frozenset(
            path.removeprefix(f"{_FIRMWARE}/")
            for layer in layers
            for path in layer.paths
            if path.startswith(f"{_FIRMWARE}/")
        )
        self._layers = layers
        self._scratch = scratch
        self._runner = runner
        self._read: dict[str, KernelModule] = {}

    def modules(self, names: Iterable[str]) -> tuple[KernelModule, ...]:
        """The modules themselves, read from the medium; those that are part of the kernel are left out.

        Raises:
            DamagedError: a module is in the tables and not on the medium, or is damaged.
        """
        wanted = sorted(name for name in set(names) if name in self.index.paths)
        folder = f"{_MODULES}/{self.document.kernel}"
        places = {name: f"{folder}/{self.index.paths[name]}" for name in wanted if name not in self._read}
        for layer in self._layers:
            _unpack(layer, [place for place in places.values() if place in layer.paths], self._scratch, self._runner)
        for name, place in places.items():
            path = _inside(self._scratch, place)
            if path is None:
                raise DamagedError(f"The medium's tables name the module {place}, and no layer has it.")
            self._read[name] = read_module(path)
        return tuple(self._read[name] for name in wanted)

    def lacks_firmware(self, pattern: str) -> bool:
        """Whether no file of the medium is what a module asks for (its name may hold wildcards)."""
        names = [pattern, *(pattern + suffix for suffix in _COMPRESSED)]
        folders = ("", f"updates/{self.document.kernel}/", "updates/", f"{self.document.kernel}/")
        wanted = [folder + name for folder in folders for name in names]
        if not re.search(r"[*?\[]", pattern):
            return not any(name in self.firmware for name in wanted)
        return not any(fnmatch.fnmatchcase(path, name) for path in self.firmware for name in wanted)


class _Layer(msgspec.Struct, frozen=True):
    """A squashfs inside a file, from ``offset`` on, and the paths in it."""

    name: str
    file: Path
    offset: int
    paths: frozenset[str]


@contextlib.contextmanager
def read_abilities(medium: OpenedMedium, runner: Runner, sink: Sink = ignore) -> Iterator[MediumAbilities]:
    """Read what a medium can drive; modules are read while the context lasts.

    Args:
        sink: is told what is read; whoever raises there ends it.

    Raises:
        RefusedError: the medium is older than its own document.
        DamagedError: it, or a layer, cannot be read.
        MissingToolError: unsquashfs is not installed.
    """
    document = medium.document
    if document is None:
        raise RefusedError(
            f"{medium.name} was made by a liferaft that did not yet describe its media.",
            hint="Build it anew: liferaft build -o FILE.",
        )
    if not _KERNEL_RELEASE.fullmatch(document.kernel):
        raise DamagedError(f"{medium.name}: expected the kernel's release, found {document.kernel[:80]!r}.")
    with tempfile.TemporaryDirectory(prefix="liferaft-preflight-") as folder:
        scratch = Path(folder)
        layers = tuple(_open_layer(medium, name, runner, sink) for name in document.layers)
        sink(Event(stage=Stage.PREFLIGHT, message="Reading which devices the drivers are for"))
        index = _read_index(layers, document, scratch, runner)
        sink(Event(stage=Stage.PREFLIGHT, message="Reading who signed what UEFI starts"))
        chain = _read_chain(medium, document)
        fetched = medium.volume is None
        yield MediumAbilities(document, index, layers, chain, scratch, runner, fetched=fetched)


def _open_layer(medium: OpenedMedium, name: str, runner: Runner, sink: Sink) -> _Layer:
    path = f"live/{name}.squashfs"
    sink(Event(stage=Stage.PREFLIGHT, message=f"Looking for drivers in {path}"))
    whole = Path(medium.name)
    file = whole / path if whole.is_dir() else whole
    if medium.ends_inside(path):
        raise DamagedError(f"{medium.name} is cut short: the end of {path} is missing.", hint="Copy it again.")
    offset = medium.place(path)
    argv = ["unsquashfs", "-no-progress", *_QUEUES, "-d", "", "-o", str(offset), "-lc", str(file)]
    try:
        listing = runner.run(argv, timeout=120).stdout
    except ProcessError as error:
        raise _unreadable(medium.name, path, error) from error
    paths = (line.lstrip("/") for line in listing.splitlines())
    return _Layer(path, file, offset, frozenset(path for path in paths if path.startswith((_MODULES, _FIRMWARE))))


def _read_index(layers: tuple[_Layer, ...], document: MediumDocument, scratch: Path, runner: Runner) -> ModuleIndex:
    folder = f"{_MODULES}/{document.kernel}"
    places = [f"{folder}/modules.{table}" for table in _TABLES]
    for layer in layers:
        _unpack(layer, [place for place in places if place in layer.paths], scratch, runner)
    alias, dep, softdep, builtin, builtin_modinfo = (_text(_inside(scratch, place)) for place in places)
    if not dep:
        raise DamagedError(f"No layer of the medium has modules for its kernel {document.kernel}.")
    return ModuleIndex(alias=alias, dep=dep, softdep=softdep, builtin=builtin, builtin_modinfo=builtin_modinfo)


def _unpack(layer: _Layer, places: list[str], scratch: Path, runner: Runner) -> None:
    if not places:
        return
    argv = ["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-force", *_QUEUES, "-o", str(layer.offset)]
    try:
        runner.run([*argv, "-d", str(scratch), str(layer.file), *places], timeout=300)
    except ProcessError as error:
        raise _unreadable(str(layer.file), layer.name, error) from error


def _unreadable(medium: str, layer: str, error: ProcessError) -> LiferaftError:
    said = error.output.strip().splitlines()
    return DamagedError(
        f"{medium}: the layer {layer} cannot be read: {said[-1][-200:] if said else error.message}.",
        hint="liferaft inspect checks every digest of the medium.",
    )


def _inside(scratch: Path, place: str) -> Path | None:
    """A file that was unpacked; None for none, and for a link that leads out of the scratch folder."""
    path = (scratch / place).resolve()
    return path if path.is_file() and path.is_relative_to(scratch.resolve()) else None


def _text(path: Path | None) -> str:
    return path.read_text(errors="replace") if path is not None else ""


def _read_chain(medium: OpenedMedium, document: MediumDocument) -> StartChain:
    """The programs that Secure Boot judges, when this medium starts from UEFI."""
    try:
        files = _programs(medium)
        places = _BOOT_FILES.get(document.architecture, {})
        missing = [name for name in places.values() if name not in files]
        if missing or not places:
            return StartChain(problem=f"The medium has no {' and no '.join(missing) or 'programs for UEFI'}.")
        programs = [read_program(files[file], name=name) for name, file in places.items()]
        kernel = medium.read(KERNEL, _KERNEL_LIMIT)
        return StartChain((*programs, read_program(kernel, name="kernel")))
    except (RefusedError, DamagedError) as error:
        return StartChain(problem=error.message)


def _programs(medium: OpenedMedium) -> dict[str, bytes]:
    """The programs for UEFI by file name, in capitals: FAT does not tell them apart."""
    if medium.volume is not None:
        found = {path.upper(): content for path, content in medium.efi_files().items()}
        return {path.removeprefix(_BOOT_FOLDER): content for path, content in found.items()}
    names = [path for path in medium.paths if path.upper().endswith(".EFI") and "/" not in path]
    return {name.upper(): medium.read(name, _PROGRAM_LIMIT) for name in names}
