"""A new medium from an old one: what was added lies in one more layer, and nothing else is built again.

Needs neither root nor what building needs. The old medium is only read, every file of it is checked by its digest on
the way, and the new one appears whole or not at all. It can be done again: each time another layer comes on top.
"""

import errno
import hashlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from builder.architecture import traits_of
from builder.archive.loaders import Loaders, fetch_loaders
from builder.archive.origin import DatedRunner, find_origin
from builder.cache import Cache, open_cache
from builder.document import MEDIUM_DOCUMENT, MediumDocument, architecture_of_medium, describe_files
from builder.drivers.drivers import Content, driver_content, write_layer
from builder.drivers.files import driver_source
from builder.drivers.firmware_files import firmware_files, windows_driver_files
from builder.drivers.module_tree import Ground
from builder.finished.iso9660 import Platform
from builder.finished.opened import OpenedMedium, open_medium
from builder.iso import BootImages, replace_iso
from builder.layer import Layer
from builder.medium import refuse_bad_names
from builder.netboot import refuse_bad_folder, write_netboot
from builder.recipe.recipe import Compression, Recipe, Release
from builder.sums import SUMS, ranges_of_files, read_sums, sums_image
from core.documents import encode_readable
from core.errors import DamagedError, DeviceError, RefusedError, UsageError
from core.events import Event, Sink, Stage
from core.process import Runner
from core.units import MIB, align_up, format_size

_MENU, _ORDER = "boot/grub/grub.cfg", "live/filesystem.module"
_BOOT_CATALOG, _BIOS_IMAGE = "boot/boot.cat", "boot/grub/eltorito.img"
_NAME = "inject"
#: The boot code in LBA 0, up to where the MBR's own fields begin (UEFI 2.10, 5.2.1).
_BOOT_CODE, _SECTOR = 440, 512
_PLAIN_MODE, _ALL_READ = 0o644, 0o004
_INITRD_LINE = re.compile(r"^(\s*initrd\s.*)$", re.MULTILINE)


class Additions(msgspec.Struct, frozen=True, kw_only=True):
    """What is added.

    Attributes:
        drivers: modules, folders of them, Debian packages with them.
        firmware: files, and folders laid out as below the kernel's firmware folder.
        windows: folders of Windows drivers, carried for a restored Windows.
        files: path in the live system, without a leading slash, to the file or folder that goes there.
        beside: path on the medium to the file that goes there (a job, its passphrases).
        private: what is beside holds a secret, or what was there and stays.
        without: paths of files that the new medium does not have (what a replaced job had beside it).
    """

    drivers: tuple[Path, ...] = ()
    firmware: tuple[Path, ...] = ()
    windows: tuple[Path, ...] = ()
    files: dict[str, Path] = msgspec.field(default_factory=dict)
    beside: dict[str, Path] = msgspec.field(default_factory=dict)
    private: bool = False
    without: frozenset[str] = frozenset()


class InjectReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it.

    Attributes:
        path, size, sha256: of the new ISO; empty and 0 when none was written.
        netboot: the new netboot set; empty when none was written.
        layer: the name of the layer that was added; empty when only files beside the live system were.
        added: the new or changed files of the medium, by path.
        early: files that went into the initrd, in the live system's paths.
        seconds: how long it took.
        warnings: what the person must know, although the medium was written.
    """

    path: str
    size: int
    sha256: str
    netboot: str
    layer: str
    added: tuple[str, ...]
    early: tuple[str, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


def inject(
    source: Path,
    out: Path | None,
    netboot: Path | None,
    additions: Additions,
    cache_root: Path,
    runner: Runner,
    sink: Sink,
) -> InjectReport:
    """Write the medium ``source``, an ISO or a netboot set, with ``additions``.

    Args:
        out: the new ISO, where one is wanted; ``source`` must be one.
        netboot: the folder of the new netboot set, where one is wanted.
        cache_root: the build cache, where the work is done.

    Raises:
        UsageError: an addition is not what it should be, or the output cannot be written there.
        RefusedError: a driver does not fit the medium's kernel; the medium is too old to be added to.
        DamagedError: the medium, a module or a package is damaged.
        ProcessError: a tool failed.
    """
    started = time.monotonic()
    _refuse_bad_targets(source, out, netboot)
    refuse_bad_names(name for name in map(_beside_job, additions.beside) if name != "job.json")
    windows = windows_driver_files(additions.windows)
    firmware = firmware_files(additions.firmware)
    with ExitStack() as held:
        cache = held.enter_context(open_cache(cache_root))
        held.enter_context(_named_errors())
        scratch = held.enter_context(cache.scratch("inject"))
        medium = held.enter_context(open_medium(source))
        document = _document_of(medium)
        # The same additions to the same medium are the same new medium, bit for bit.
        runner = DatedRunner(runner, int(document.built.timestamp()))
        _refuse_little_room(cache_root, medium.size)
        _tell(sink, f"Reading {source} ({format_size(medium.size)})")
        files = _take_files(medium, document, scratch / "medium", sink)
        document = _left(document, additions.without)
        content = _content(additions, firmware, _ground(document, files), scratch, runner, sink)
        layer = _layer(content, document, scratch, runner, sink)
        added = {**windows, **additions.beside, **(layer.files if layer else {})}
        added |= _change(document, files, layer, scratch / "changed") if layer else {}
        if SUMS in files:
            added[SUMS] = _sums(files[SUMS], added, additions.without, scratch / "sums.img")
        new = _describe(document, added, layer)
        whole = {path: file for path, file in files.items() if path in {known.path for known in document.files}}
        whole |= {**added, MEDIUM_DOCUMENT: scratch / "medium.json"}
        whole[MEDIUM_DOCUMENT].write_text(encode_readable(new))
        if netboot is not None:
            loaders = _loaders(medium, files, document, cache, runner, sink)
            write_netboot(whole, new, loaders, netboot, runner, sink)
        if out is not None:
            boot = _boot_images(source, medium, document, files, scratch)
            private = additions.private or _is_private(source, content)
            replace_iso(whole, boot, out, new.built, runner, sink, private=private)
        return _report(out, netboot, layer, added, content, started)


@contextmanager
def _named_errors() -> Iterator[None]:
    """A file that cannot be read is named; what a full disk means, the cache says."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise DeviceError(f"{error.filename or 'A file'} cannot be used: {error.strerror}.") from error


def _beside_job(path: str) -> str:
    return path.removeprefix("liferaft/")


def _refuse_bad_targets(source: Path, out: Path | None, netboot: Path | None) -> None:
    if out is None and netboot is None:
        raise UsageError("Where should the new medium go?", hint="-o NEW.iso, or --netboot FOLDER.")
    for target in (path for path in (out, netboot) if path is not None):
        if target.exists() and source.exists() and target.samefile(source):
            raise UsageError(f"{target} is the medium that is added to; it stays as it is.", hint="Name another place.")
    if netboot is not None:
        refuse_bad_folder(netboot)
    if out is None:
        return
    if source.is_dir():
        raise UsageError(f"{source} is a folder, of which no ISO can be made.", hint="--netboot names the new folder.")
    if out.exists() and not out.is_file():
        raise UsageError(f"{out} is not a plain file.", hint="Name the new ISO's file with -o.")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"The folder {out.parent} does not exist.", hint=f"mkdir -p {out.parent}")


def _refuse_little_room(cache_root: Path, size: int) -> None:
    """The medium's files lie in the cache while the new one is made."""
    free = shutil.disk_usage(cache_root).free
    if free < size:
        raise DeviceError(
            f"No space is left for the work: {cache_root} has {format_size(free)} free, and the medium's files take "
            f"{format_size(size)} there.",
            hint="Name a folder on another disk with --cache.",
        )


def _document_of(medium: OpenedMedium) -> MediumDocument:
    if medium.cut:
        raise DamagedError(
            f"{medium.name} is cut short: {medium.cut} bytes are missing behind byte {medium.size}.",
            hint="Copy or download it again.",
        )
    if medium.document is None:
        raise RefusedError(
            f"{medium.name} has no {MEDIUM_DOCUMENT}: it was built before media could be added to.",
            hint="Build it again with this liferaft.",
        )
    return medium.document


def _take_files(medium: OpenedMedium, document: MediumDocument, folder: Path, sink: Sink) -> dict[str, Path]:
    """Every file of the medium, copied out; those that the document knows, and a netboot set's loaders, with their
    digest checked. What else a set has around them is written anew: changed or missing, it is no damage."""
    around = medium.around.files if medium.around is not None else ()
    known = {file.path: file for file in (*document.files, *(file for file in around if _is_loader(file.path)))}
    anew = {file.path: file.sha256 for file in around if file.path not in known}
    layers = {f"live/{name}.squashfs" for name in document.layers}
    if missing := sorted({*known, *layers, *document.initrds} - set(medium.paths)):
        raise DamagedError(f"{medium.name} lacks {missing[0]}, which it should have.")
    taken = {}
    changed = []
    for path in medium.paths:
        if path == _BOOT_CATALOG:
            continue
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        found = medium.extract(path, target)
        if path in known and found != known[path].sha256:
            raise DamagedError(
                f"{medium.name}: {path}, at offset {medium.place(path)}, has the digest {found}, "
                f"expected {known[path].sha256}.",
                hint="The medium is damaged: take another copy of it, or build it again.",
            )
        if path in anew and found != anew[path]:
            changed.append(path)
        taken[path] = target
    if changed:
        message = f"Not as it was written in {medium.name}, and new in the new set: {', '.join(changed)}."
        sink(Event(stage=Stage.BUILD, message=message, warning=True))
    return taken


def _is_loader(path: str) -> bool:
    """Whether UEFI asks the network for this file of a netboot set: it is taken over as it is."""
    return path.endswith(".efi") and "/" not in path


def _ground(document: MediumDocument, files: Mapping[str, Path]) -> Ground:
    return Ground(
        kernel=document.kernel,
        trees=tuple(files[f"live/{name}.squashfs"] for name in document.layers),
        initrds=tuple(files[path] for path in document.initrds),
    )


def _content(
    additions: Additions, firmware: Mapping[str, Path], ground: Ground, scratch: Path, runner: Runner, sink: Sink
) -> Content:
    packages = scratch / "packages"
    packages.mkdir()
    sources = [driver_source(path, packages, runner) for path in additions.drivers]
    content = driver_content(sources, firmware, ground, scratch, runner, sink)
    files, links = _live_files(additions.files)
    modes = {name: mode for name, path in files.items() if (mode := _mode(path)) != _PLAIN_MODE}
    return msgspec.structs.replace(content, files=content.files | files, links=links, modes=modes)


def _mode(path: Path) -> int:
    """What a file of this machine may be used for, there too: ssh takes no private key that others can read."""
    bits = path.stat().st_mode
    return (0o755 if bits & 0o100 else _PLAIN_MODE) & (0o777 if bits & _ALL_READ else 0o700)


def _is_private(source: Path, content: Content) -> bool:
    """Whether not everybody may read the old medium, or something that was added."""
    return not source.stat().st_mode & _ALL_READ or any(not mode & _ALL_READ for mode in content.modes.values())


def _live_files(named: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """Files and links by their paths in the live system: what was named, and all that is in named folders."""
    files: dict[str, Path] = {}
    links: dict[str, str] = {}
    for target, source in named.items():
        if source.is_file():
            files[target] = source
            continue
        if not source.is_dir():
            raise UsageError(f"The file {source} does not exist.", hint="--file SRC:DEST, SRC on this machine.")
        for path in sorted(source.rglob("*")):
            name = f"{target}/{path.relative_to(source).as_posix()}"
            if path.is_symlink():
                links[name] = str(path.readlink())
            elif path.is_file():
                files[name] = path
            elif not path.is_dir():
                raise UsageError(f"{path} is neither a file nor a folder nor a link: it cannot go on a medium.")
    return files, links


def _layer(content: Content, document: MediumDocument, scratch: Path, runner: Runner, sink: Sink) -> Layer | None:
    if not content.files and not content.links:
        return None
    number = next(n for n in range(1, len(document.layers) + 2) if f"{_NAME}-{n}" not in document.layers)
    _tell(sink, f"Packing {len(content.files) + len(content.links)} files")
    folder = scratch / "layer"
    folder.mkdir()
    return write_layer(f"{_NAME}-{number}", content, folder, Compression.SMALL, runner)


def _change(document: MediumDocument, files: Mapping[str, Path], layer: Layer, folder: Path) -> dict[str, Path]:
    """The order of the layers, and the menu where the initrd has one more part, with the layer in them."""
    folder.mkdir()
    order = folder / "filesystem.module"
    order.write_text(" ".join(f"{name}.squashfs" for name in (*document.layers, layer.name)) + "\n")
    changed = {_ORDER: order}
    if layer.initrd is not None:
        if _MENU not in files:
            raise DamagedError(f"The medium lacks {_MENU}, where its initrds are loaded.")
        part = f"live/{layer.name}.img"
        menu, count = _INITRD_LINE.subn(lambda line: _with_part(line[0], part), files[_MENU].read_text())
        if not count:
            raise DamagedError(f"{_MENU} of the medium has no line that loads an initrd.")
        changed[_MENU] = folder / "grub.cfg"
        changed[_MENU].write_text(menu)
    return changed


def _with_part(line: str, part: str) -> str:
    """The menu's line that loads the initrds, with one more: the digests stay last, and behind them what GRUB adds."""
    words = line.rstrip().split(" ")
    place = next((place for place, word in enumerate(words) if word == f"/{SUMS}" or word.startswith("$")), len(words))
    return " ".join((*words[:place], f"/{part}", *words[place:]))


def _left(document: MediumDocument, without: frozenset[str]) -> MediumDocument:
    """The medium without the files that the new one does not have."""
    return msgspec.structs.replace(document, files=tuple(file for file in document.files if file.path not in without))


def _sums(old: Path, changed: Mapping[str, Path], without: frozenset[str], target: Path) -> Path:
    """The digests that are compared at boot: those of files that stay, and of those that are new or changed."""
    gone = changed.keys() | without
    kept = [part for part in read_sums(old.read_bytes(), name=SUMS) if part.path not in gone]
    new = ranges_of_files(changed)
    target.write_bytes(sums_image(sorted((*kept, *new), key=lambda part: (part.path, part.offset))))
    return target


def _describe(document: MediumDocument, changed: Mapping[str, Path], layer: Layer | None) -> MediumDocument:
    described = {file.path: file for file in document.files}
    described |= {file.path: file for file in describe_files(changed)}
    initrds, layers = document.initrds, document.layers
    if layer is not None:
        layers = (*layers, layer.name)
        kept = tuple(path for path in initrds if path != SUMS)
        initrds = (*kept, *(path for path in layer.files if path.endswith(".img")), *initrds[len(kept) :])
    return msgspec.structs.replace(
        document,
        layers=layers,
        initrds=initrds,
        ram_copied=align_up(document.ram + sum(file.size for file in described.values()), 64 * MIB),
        files=tuple(described[path] for path in sorted(described)),
    )


def _boot_images(
    iso: Path, medium: OpenedMedium, document: MediumDocument, files: Mapping[str, Path], scratch: Path
) -> BootImages:
    """What makes the old ISO start, taken out of it: the same programs start the new one."""
    assert medium.volume is not None
    code = scratch / "boot-code.img"
    with iso.open("rb") as stream:
        code.write_bytes(stream.read(_BOOT_CODE).ljust(_SECTOR, b"\0"))
    image = next((image for image in medium.volume.boot_images if image.platform == Platform.UEFI), None)
    bios = traits_of(architecture_of_medium(document, medium.name)).bios
    if image is None or (bios and _BIOS_IMAGE not in files):
        raise DamagedError(f"{medium.name} lacks a boot image for {'BIOS or UEFI' if bios else 'UEFI'}.")
    efi = scratch / "efi.img"
    source = medium.efi_image()
    with efi.open("wb") as stream:
        for offset in range(0, source.size, MIB):
            stream.write(source.read_at(offset, min(MIB, source.size - offset)))
    return BootImages(code, files[_BIOS_IMAGE], efi) if bios else BootImages(None, None, efi)


def _loaders(
    medium: OpenedMedium, files: Mapping[str, Path], document: MediumDocument, cache: Cache, runner: Runner, sink: Sink
) -> Loaders:
    """What UEFI asks the network for first: a netboot set has it, for an ISO it comes from the archive."""
    if medium.volume is None:
        return Loaders({name: path for name, path in files.items() if _is_loader(name)}, {})
    try:
        release = Release(document.release)
    except ValueError:
        raise RefusedError(
            f"{medium.name} is made of {document.release}, of which liferaft has no boot loaders."
        ) from None
    architecture = architecture_of_medium(document, medium.name)
    origin = find_origin(Recipe(release=release, architecture=architecture), cache, runner, sink)
    return fetch_loaders(release, origin.sources, cache, runner, sink, state=origin.digests)


def _report(
    out: Path | None,
    netboot: Path | None,
    layer: Layer | None,
    changed: Iterable[str],
    content: Content,
    started: float,
) -> InjectReport:
    digest = ""
    if out is not None:
        with out.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return InjectReport(
        path=str(out or ""),
        size=out.stat().st_size if out else 0,
        sha256=digest,
        netboot=str(netboot or ""),
        layer=layer.name if layer else "",
        added=tuple(sorted(changed)),
        early=tuple(file.name for file in content.early),
        seconds=round(time.monotonic() - started, 1),
    )


def _tell(sink: Sink, message: str) -> None:
    sink(Event(stage=Stage.BUILD, message=message))
