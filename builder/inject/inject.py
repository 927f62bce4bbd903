"""A new medium from an old one: what was added lies in one more layer, and nothing else is built again.

Needs neither root nor what building needs. The old medium is only read, every file of it is checked by its digest on
the way, and the new one appears whole or not at all. It can be done again: each time another layer comes on top.
"""

import errno
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from builder.archive.origin import DatedRunner
from builder.cache import open_cache
from builder.digest import sha256_of
from builder.document import MEDIUM_DOCUMENT, MediumDocument
from builder.drivers.drivers import Content, write_layer
from builder.drivers.firmware_files import firmware_files, windows_driver_files
from builder.drivers.module_tree import Ground
from builder.finished.opened import open_medium
from builder.inject.additions import Additions, content_of, is_private
from builder.inject.change import changed_menu, describe, left_after, sums_after
from builder.inject.old import boot_images, document_of, loaders_of, take_files
from builder.iso import replace_iso
from builder.layer import Layer
from builder.medium import refuse_bad_names
from builder.netboot import refuse_bad_folder, write_netboot
from builder.recipe.recipe import Compression
from builder.sums import SUMS
from builder.telling import tell
from core.documents import encode_readable
from core.errors import DeviceError, UsageError
from core.events import Sink
from core.process import Runner
from core.units import format_size

_NAME = "inject"


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
        document = document_of(medium)
        # The same additions to the same medium are the same new medium, bit for bit.
        runner = DatedRunner(runner, int(document.built.timestamp()))
        _refuse_little_room(cache_root, medium.size)
        tell(sink, f"Reading {source} ({format_size(medium.size)})")
        files = take_files(medium, document, scratch / "medium", sink)
        document = left_after(document, additions.without)
        content = content_of(additions, firmware, _ground(document, files), scratch, runner, sink)
        layer = _layer(content, document, scratch, runner, sink)
        added = {**windows, **additions.beside, **(layer.files if layer else {})}
        added |= changed_menu(document, files, layer, scratch / "changed") if layer else {}
        if SUMS in files:
            added[SUMS] = sums_after(files[SUMS], added, additions.without, scratch / "sums.img")
        new = describe(document, added, layer)
        whole = {path: file for path, file in files.items() if path in {known.path for known in document.files}}
        whole |= {**added, MEDIUM_DOCUMENT: scratch / "medium.json"}
        whole[MEDIUM_DOCUMENT].write_text(encode_readable(new))
        if netboot is not None:
            loaders = loaders_of(medium, files, document, cache, runner, sink)
            write_netboot(whole, new, loaders, netboot, runner, sink)
        if out is not None:
            boot = boot_images(source, medium, document, files, scratch)
            private = additions.private or is_private(source, content)
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


def _ground(document: MediumDocument, files: Mapping[str, Path]) -> Ground:
    return Ground(
        kernel=document.kernel,
        trees=tuple(files[f"live/{name}.squashfs"] for name in document.layers),
        initrds=tuple(files[path] for path in document.initrds),
    )


def _layer(content: Content, document: MediumDocument, scratch: Path, runner: Runner, sink: Sink) -> Layer | None:
    if not content.files and not content.links:
        return None
    number = next(n for n in range(1, len(document.layers) + 2) if f"{_NAME}-{n}" not in document.layers)
    tell(sink, f"Packing {len(content.files) + len(content.links)} files")
    folder = scratch / "layer"
    folder.mkdir()
    return write_layer(f"{_NAME}-{number}", content, folder, Compression.SMALL, runner)


def _report(
    out: Path | None,
    netboot: Path | None,
    layer: Layer | None,
    changed: Iterable[str],
    content: Content,
    started: float,
) -> InjectReport:
    return InjectReport(
        path=str(out or ""),
        size=out.stat().st_size if out else 0,
        sha256=sha256_of(out) if out else "",
        netboot=str(netboot or ""),
        layer=layer.name if layer else "",
        added=tuple(sorted(changed)),
        early=tuple(file.name for file in content.early),
        seconds=round(time.monotonic() - started, 1),
    )
