"""Drivers as a layer: kernel modules under ``updates``, firmware, the tables that make kmod find them, and the part of
the initrd without which the medium itself would not be found.

The tables are made over what the medium has and what is added: those of the topmost layer are the ones that count.
"""

import shutil
import stat
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from builder.drivers.early import is_early
from builder.drivers.files import Chosen, Source, choose_modules
from builder.drivers.firmware_files import asked_files
from builder.drivers.kernel_module import read_module
from builder.drivers.module_index import with_needs
from builder.drivers.module_tree import FIRMWARE, MODULES, Ground, ModuleTree, unpack_initrd_modules, unpack_modules
from builder.initrd import InitrdFile, write_initrd
from builder.layer import Layer
from builder.payload import settle_modes
from builder.recipe.recipe import Compression
from builder.rootfs import pack
from builder.telling import tell
from core.events import Event, Sink, Stage
from core.process import Runner

#: A folder of our own below ``updates``: depmod prefers it, and a person sees where a module comes from.
_FOLDER = "updates/liferaft"


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer is made of.

    Attributes:
        files: path in the live system, without a leading slash, to the file that goes there.
        early: what its part of the initrd has.
        links: path in the live system, without a leading slash, to what the link there says.
        modes: permission bits of the files that have others than 0644.
    """

    files: dict[str, Path] = msgspec.field(default_factory=dict)
    early: tuple[InitrdFile, ...] = ()
    links: dict[str, str] = msgspec.field(default_factory=dict)
    modes: dict[str, int] = msgspec.field(default_factory=dict)


def driver_content(
    sources: Iterable[Source], firmware: Mapping[str, Path], ground: Ground, scratch: Path, runner: Runner, sink: Sink
) -> Content:
    """Check drivers against the medium's kernel, and lay them out with their firmware and tables.

    Args:
        firmware: path below the firmware folder to the file; what the sources bring is added.
        scratch: an empty folder; the result's files lie in it, or where the sources have them.

    Raises:
        RefusedError: a driver does not fit the kernel or lacks a module; with every reason.
        DamagedError: a driver, or the medium, is damaged.
        ProcessError: depmod failed.
    """
    sources = tuple(sources)
    blobs = {name: path for source in sources for name, path in source.firmware.items()} | dict(firmware)
    settings = {f"etc/modprobe.d/{name}": path for source in sources for name, path in source.settings.items()}
    files = {f"{FIRMWARE}/{name}": path for name, path in blobs.items()} | settings
    if not files and not sources:
        return Content()
    below = unpack_initrd_modules(ground, scratch / "initrd")
    early: dict[str, Path] = {}
    if sources:
        tree = unpack_modules(ground, scratch / "modules", runner)
        chosen = choose_modules(sources, tree)
        _tell_about(chosen, blobs.keys(), sink)
        modules, early = _place_modules(chosen, tree, below, sink)
        with ThreadPoolExecutor(1) as beside:
            # depmod unpacks every module: the larger half of the time.
            tables = beside.submit(tree.make_tables, runner)
            early |= {**below.make_tables(runner), **settings} if early else {}
            files |= modules | tables.result()
    early |= _early_firmware(blobs, below)
    return Content(
        files=files,
        early=tuple(InitrdFile(name, stat.S_IFREG | 0o644, path.read_bytes()) for name, path in early.items()),
    )


def _place_modules(
    chosen: tuple[Chosen, ...], tree: ModuleTree, below: ModuleTree, sink: Sink
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Lay the modules into both trees; what is new in the live system's and in the initrd's, by path."""
    needs = {**tree.dependencies(), **{found.module.name: found.module.depends for found in chosen}}
    files: dict[str, Path] = {}
    for found in chosen:
        path = f"{MODULES}/{tree.kernel}/{_FOLDER}/{found.path.name}"
        files[path] = found.path
        _place(found.path, tree.root / path)
    there, where = below.names(), tree.names()
    names = {found.module.name for found in chosen}
    first = {found.module.name for found in chosen if is_early(found.module) or found.module.name in there}
    wanted = sorted(name for name in with_needs(first, needs) if name in where and (name in names or name not in there))
    early = {str(where[name].relative_to(tree.root)): where[name] for name in wanted}
    for path, source in early.items():
        _place(source, below.root / path)
    if wanted:
        tell(sink, f"Drivers that the medium itself may hang on go into the initrd too: {', '.join(wanted)}")
    return files, early


def _early_firmware(blobs: Mapping[str, Path], below: ModuleTree) -> dict[str, Path]:
    """What the modules of the initrd ask for: a driver that looks for its firmware there is not asked again later."""
    if not blobs:
        return {}
    asked = {name for path in below.names().values() for name in read_module(path).firmware}
    return {f"{FIRMWARE}/{name}": path for name, path in asked_files(asked, blobs).items()}


def write_layer(name: str, content: Content, folder: Path, compression: Compression, runner: Runner) -> Layer:
    """The layer's files in ``folder``: ``NAME.squashfs``, and ``NAME.img`` where the initrd needs something.

    Raises:
        ProcessError: mksquashfs failed.
    """
    tree = folder / "tree"
    for path, source in content.files.items():
        _place(source, tree / path)
    for path, target in content.links.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target)
    settle_modes(tree)
    for path, mode in content.modes.items():
        (tree / path).chmod(mode)
    # root's own folder is root's alone, as the base has it.
    if (tree / "root").is_dir():
        for own in (tree / "root", *(tree / "root").rglob("*")):
            if own.is_dir() and not own.is_symlink():
                own.chmod(0o700)
    squashfs = folder / f"{name}.squashfs"
    pack(tree, squashfs, compression, runner, all_root=True)
    shutil.rmtree(tree)
    if not content.early:
        return Layer(name, squashfs)
    part = folder / f"{name}.img"
    part.write_bytes(write_initrd(content.early))
    return Layer(name, squashfs, part)


def _tell_about(chosen: tuple[Chosen, ...], firmware: Collection[str], sink: Sink) -> None:
    for found in chosen:
        replaces = ", in place of the medium's own" if found.replaces else ""
        tell(sink, f"Driver {found.module.name} from {found.path}{replaces}")
    unsigned = sorted(found.module.name for found in chosen if not found.module.signed)
    if unsigned:
        _warn(sink, f"Not signed, so that a kernel under Secure Boot will not load them: {', '.join(unsigned)}.")
    asked = {name for found in chosen for name in found.module.firmware}
    if missing := sorted(name for name in asked if name not in firmware and "*" not in name):
        _warn(sink, f"The added drivers may ask for firmware that was not added with them: {', '.join(missing)}.")


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def _warn(sink: Sink, message: str) -> None:
    sink(Event(stage=Stage.BUILD, message=message, warning=True))
