"""The layers above the base: Python's packages (which need nothing of the base), and liferaft with the files that
start it.

Each is a small squashfs that live-boot stacks on the base. A change of liferaft's source, of the host name or of
a unit makes only the topmost one again.
"""

import shutil
from pathlib import Path

import msgspec

from builder.architecture import Architecture
from builder.archive.origin import Origin
from builder.cache import Cache, key_of
from builder.font import console_font
from builder.layer import Layer
from builder.recipe.recipe import Recipe
from builder.rootfs import Base, pack
from builder.telling import tell
from builder.wheels import (
    Toolchain,
    build_own_wheel,
    build_toolchain,
    compile_bytecode,
    dependencies,
    install_dependencies,
    install_wheels,
    list_packages,
    source_key,
)
from core.errors import DamagedError
from core.events import Sink
from core.process import Runner

_HOME = "usr/lib/liferaft"
_LAUNCHER = f"""#!/usr/bin/python3 -sP
import sys

sys.path.insert(0, "/{_HOME}")
from rescue.cli.main import main

main()
"""


class Runtime(msgspec.Struct, frozen=True):
    """The layer of Python's packages, and the build system in which it was made."""

    layer: Layer
    toolchain: Toolchain


def build_runtime(recipe: Recipe, origin: Origin, cache: Cache, runner: Runner, sink: Sink) -> Runtime:
    """What liferaft requires beside Debian, from the cache or built."""
    toolchain = build_toolchain(origin, cache, runner, sink)
    key = key_of(("runtime 4", toolchain.key, recipe.compression, *dependencies()))

    def make(folder: Path) -> None:
        with cache.scratch("runtime") as tree:
            install_dependencies(tree / _HOME, toolchain, cache, runner, sink)
            settle_modes(tree)
            (folder / "python.txt").write_text(list_packages(tree / _HOME))
            pack(tree, folder / "runtime.squashfs", recipe.compression, runner)

    folder, reused = cache.entry("runtime", key, make)
    layer = Layer("runtime", folder / "runtime.squashfs", reused=reused, python=folder / "python.txt")
    return Runtime(layer, toolchain)


def build_own(
    recipe: Recipe, base: Base, toolchain: Toolchain, live: Path, cache: Cache, runner: Runner, sink: Sink
) -> Layer:
    """liferaft itself, from the cache or built.

    Args:
        live: the folder with the live system's own files: ``root/`` as they lie there, ``links.txt``.
    """
    font = console_font(base.font.read_bytes())
    key = key_of(("liferaft 3", toolchain.key, recipe.compression, recipe.hostname, font, _LAUNCHER, source_key()))

    def make(folder: Path) -> None:
        tell(sink, "Packing liferaft itself")
        with cache.scratch("liferaft") as tree, cache.scratch("wheel") as wheels:
            install_wheels([build_own_wheel(wheels, cache, runner)], tree / _HOME, toolchain.python, runner)
            shutil.rmtree(tree / _HOME / "bin", ignore_errors=True)
            compile_bytecode(tree / _HOME, toolchain, cache, runner)
            write_file(tree / "usr/bin/liferaft", _LAUNCHER.encode(), executable=True)
            write_file(tree / "usr/share/consolefonts/liferaft.psf", font)
            write_settings(tree, recipe.hostname)
            install_live(live, tree, recipe.architecture)
            settle_modes(tree)
            pack(tree, folder / "liferaft.squashfs", recipe.compression, runner)

    folder, reused = cache.entry("liferaft", key, make)
    return Layer("liferaft", folder / "liferaft.squashfs", reused=reused)


def write_settings(tree: Path, hostname: str) -> None:
    """The few files of /etc that follow from the recipe, or that would otherwise mean "first boot"."""
    write_file(tree / "etc/hostname", f"{hostname}\n".encode())
    hosts = f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost\n"
    write_file(tree / "etc/hosts", hosts.encode())
    # Empty, not "uninitialized": every boot gets an id of its own without the first-boot questions and presets.
    write_file(tree / "etc/machine-id", b"")


def install_live(live: Path, tree: Path, architecture: Architecture = Architecture.AMD64) -> None:
    """Copy the live system's own files and make the links (enabled and masked units, silenced rules): those of
    ``links.txt``, and of ``links-ARCHITECTURE.txt`` where there is one.

    Raises:
        DamagedError: a line of them is not ``path -> target``.
    """
    root = live / "root"
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            name = path.relative_to(root)
            write_file(tree / name, path.read_bytes(), executable="libexec" in name.parts)
    _make_links(live / "links.txt", tree)
    own = live / f"links-{architecture}.txt"
    if own.is_file():
        _make_links(own, tree)


def _make_links(links: Path, tree: Path) -> None:
    for number, line in enumerate(links.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name_text, arrow, target = (part.strip() for part in line.partition("->"))
        if not (name_text and arrow and target):
            raise DamagedError(f"{links}, line {number}: expected 'path -> target', found {line!r}.")
        link = tree / name_text.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)


def write_file(path: Path, content: bytes, *, executable: bool = False) -> None:
    """A file with the mode that a system's file has, whatever the builder's umask is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if executable else 0o644)


def settle_modes(tree: Path) -> None:
    """Folders and files as a system has them: a layer's /usr must not hide the base's behind the builder's umask."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
