"""Additions: what somebody adds to a medium, and the content of a layer that it becomes."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from builder.drivers.drivers import Content, driver_content
from builder.drivers.files import driver_source
from builder.drivers.module_tree import Ground
from core.errors import UsageError
from core.events import Sink
from core.process import Runner

_PLAIN_MODE, _ALL_READ = 0o644, 0o004


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


def content_of(
    additions: Additions, firmware: Mapping[str, Path], ground: Ground, scratch: Path, runner: Runner, sink: Sink
) -> Content:
    packages = scratch / "packages"
    packages.mkdir()
    sources = [driver_source(path, packages, runner) for path in additions.drivers]
    content = driver_content(sources, firmware, ground, scratch, runner, sink)
    files, links = _live_files(additions.files)
    modes = {name: mode for name, path in files.items() if (mode := _mode(path)) != _PLAIN_MODE}
    return msgspec.structs.replace(content, files=content.files | files, links=links, modes=modes)


def is_private(source: Path, content: Content) -> bool:
    """Whether not everybody may read the old medium, or something that was added."""
    return not source.stat().st_mode & _ALL_READ or any(not mode & _ALL_READ for mode in content.modes.values())


def _mode(path: Path) -> int:
    """What a file of this machine may be used for, there too: ssh takes no private key that others can read."""
    bits = path.stat().st_mode
    return (0o755 if bits & 0o100 else _PLAIN_MODE) & (0o777 if bits & _ALL_READ else 0o700)


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
