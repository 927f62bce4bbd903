"""Python for the medium: liferaft's dependencies and liferaft itself, as wheels for the release's Python.

Binary wheels come from where pip is configured to look. What exists as source only (pylibblkid) is compiled, without
network, in a small build system of the same release, whose Python also compiles the bytecode. What
Debian builds better (parted, numpy) comes with the base.
"""

import contextlib
import email
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions, requires
from pathlib import Path

import msgspec

from builder.architecture import Architecture, key_part, traits_of
from builder.archive.debs import debs_word, stage_debs
from builder.archive.origin import Origin
from builder.cache import Cache, key_of
from builder.foreign import bootstrap_words, refuse_foreign
from builder.recipe.recipe import Release
from builder.rootfs import bootstrap, refuse_without_root
from builder.telling import tell
from core.errors import RefusedError
from core.events import Sink
from core.process import Runner

#: The Python of each release.
PYTHON = {Release.TRIXIE: "3.13"}
_FROM_DEBIAN = frozenset({"numpy", "pyparted"})
_FROM_SOURCE = frozenset({"pylibblkid"})
_TOOLCHAIN = (
    "gcc,libc6-dev,libblkid-dev,pkg-config,python3-dev,python3-pip,python3-setuptools,python3-wheel,python3-pkgconfig"
)
#: Seconds that compiling may take: a minute, and much more where another processor is emulated.
_LONGEST = 3600
_PACKAGES = ("core", "images", "hooks", "restore", "builder", "rescue")
_PROJECT_FILES = ("pyproject.toml", "README.md", "LICENSE")
_PIP_NOTES = ("direct_url.json", "INSTALLER", "RECORD", "REQUESTED")
#: What of the environment pip needs: its own settings and where certificates are.
_PIP_ENVIRONMENT = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "XDG_C")


class Toolchain(msgspec.Struct, frozen=True):
    """A small system of the medium's release, with a compiler and Python's headers, in the folder ``tree``."""

    tree: Path
    key: str
    python: "MediumPython"


class MediumPython(msgspec.Struct, frozen=True):
    """The Python that wheels are chosen for: of a release, on an architecture."""

    release: Release
    architecture: Architecture

    @property
    def target(self) -> list[str]:
        """pip's words for it instead of the Python that runs."""
        argv = ["--python-version", PYTHON[self.release], "--only-binary", ":all:"]
        for platform in traits_of(self.architecture).platforms:
            argv += ["--platform", platform]
        return argv


def build_toolchain(origin: Origin, cache: Cache, runner: Runner, sink: Sink) -> Toolchain:
    """The build system, from the cache or made by mmdebstrap (about half a minute).

    Raises:
        RefusedError: not root, or programs of the medium's architecture do not run here.
    """
    installed = origin.packages(_TOOLCHAIN.split(","), cache, runner, sink)
    key = key_of(("toolchain 2", str(origin.epoch), *installed, *key_part(origin.architecture)))

    def make(folder: Path) -> None:
        refuse_without_root()
        refuse_foreign(origin.architecture, cache, runner)
        tell(sink, "Making a build system for Python modules (mmdebstrap)")
        debs = folder / "debs"
        stage_debs(_TOOLCHAIN.split(","), origin, debs, cache, runner, sink)
        argv = ["mmdebstrap", "--mode=unshare", "--variant=apt", f"--include={_TOOLCHAIN}"]
        argv += [*bootstrap_words(origin.architecture), debs_word(debs)]
        argv += ['--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/doc/*"]
        bootstrap([*argv, origin.release, str(folder / "tree")], origin.sources, runner, _of_build_system(sink))
        debs.rmdir()

    folder, _ = cache.entry("toolchain", key, make)
    return Toolchain(folder / "tree", key, MediumPython(Release(origin.release), origin.architecture))


def _of_build_system(sink: Sink) -> Sink:
    """A sink for mmdebstrap's steps: the base is being installed meanwhile, and tells the same."""
    return lambda event: sink(msgspec.structs.replace(event, message=f"  build system: {event.message.strip()}"))


def dependencies() -> tuple[str, ...]:
    """What liferaft requires at run time, as requirement strings, sorted."""
    listed = requires("liferaft") or []
    return tuple(sorted(requirement for requirement in listed if "extra ==" not in requirement))


def install_dependencies(folder: Path, toolchain: Toolchain, cache: Cache, runner: Runner, sink: Sink) -> None:
    """Install all dependencies that the base does not have into ``folder``, bytecode included."""
    with cache.scratch("wheels") as scratch:
        tell(sink, "Fetching Python packages")
        names = {requirement: _name_of(requirement) for requirement in dependencies()}
        compiled = _FROM_SOURCE | traits_of(toolchain.python.architecture).compiled
        binary = [requirement for requirement, name in names.items() if name not in _FROM_DEBIAN | compiled]
        source = [requirement for requirement, name in names.items() if name in compiled]
        _pip(["download", "-d", str(scratch), *toolchain.python.target, *binary], runner)
        for requirement in source:
            sdist = scratch / "source"
            _pip(["download", "-d", str(sdist), "--no-deps", "--no-binary", ":all:", requirement], runner)
            for needed in _compile_wheels(sdist, scratch, toolchain, cache, runner):
                _pip(["download", "-d", str(scratch), *toolchain.python.target, needed], runner)
            shutil.rmtree(sdist)
        tell(sink, "Installing Python packages")
        install_wheels(scratch.glob("*.whl"), folder, toolchain.python, runner)
    for unused in [*folder.rglob("tests"), *folder.rglob("test"), folder / "bin"]:
        shutil.rmtree(unused, ignore_errors=True)
    compile_bytecode(folder, toolchain, cache, runner)


def build_own_wheel(folder: Path, cache: Cache, runner: Runner) -> Path:
    """liferaft's own wheel, built from the tree this module lies in.

    Raises:
        RefusedError: liferaft was not started from its source tree.
    """
    with cache.scratch("source") as scratch:
        root = source_tree()
        for name in _PROJECT_FILES:
            if (root / name).exists():
                shutil.copyfile(root / name, scratch / name)
        for name in _PACKAGES:
            shutil.copytree(root / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
        _pip(["wheel", "-w", str(folder), "--no-deps", str(scratch)], runner)
    return next(folder.glob("liferaft-*.whl"))


def source_tree() -> Path:
    """The folder with pyproject.toml that liferaft runs from.

    Raises:
        RefusedError: there is none.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        raise RefusedError(
            "A medium carries liferaft's own wheel, and this liferaft does not run from its source tree.",
            hint="Clone the repository and run `make iso` there.",
        )
    return root


def source_key() -> str:
    """A digest of liferaft's source: when it is equal, the wheel would be."""
    root = source_tree()
    parts: list[str | bytes] = []
    for name in (*_PROJECT_FILES, *_PACKAGES):
        top = root / name
        paths = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        for path in paths:
            if "__pycache__" not in path.parts and path.exists():
                parts += [str(path.relative_to(root)), path.read_bytes()]
    return key_of(parts)


def install_wheels(wheels: Iterable[Path], folder: Path, python: MediumPython, runner: Runner) -> None:
    """Unpack wheels for the medium's Python into ``folder``; nothing is fetched, nothing is run."""
    names = sorted(str(wheel) for wheel in wheels)
    _pip(
        ["install", "--no-index", "--no-compile", "--target", str(folder), *python.target, "--no-deps", *names],
        runner,
    )
    # What pip notes of its own work: where the wheels lay, which differs from build to build.
    for name in _PIP_NOTES:
        for note in folder.glob(f"*.dist-info/{name}"):
            note.unlink()


def list_packages(folder: Path) -> str:
    """Name and version of every package installed in ``folder``, a line each with a tab between, sorted."""
    found = {f"{part.name}\t{part.version}\n" for part in distributions(path=[str(folder)])}
    return "".join(sorted(found, key=str.lower))


def compile_bytecode(folder: Path, toolchain: Toolchain, cache: Cache, runner: Runner) -> None:
    """Compile what lies in ``folder`` with the medium's Python: a start from a CD must not compile.

    The bytecode is never checked against its source (both lie in the same read-only image).
    """
    with _inside(toolchain, "bytecode", cache, runner) as inside:
        shutil.copytree(folder, inside, symlinks=True)
        argv = ["chroot", str(toolchain.tree), "python3", "-m", "compileall", "-q", "--invalidation-mode"]
        argv += ["unchecked-hash", "-s", "/tmp/bytecode", "-p", "/usr/lib/liferaft", "/tmp/bytecode"]
        runner.run(argv, timeout=_LONGEST)
        shutil.rmtree(folder)
        shutil.copytree(inside, folder, symlinks=True)


def _compile_wheels(sources: Path, wheels: Path, toolchain: Toolchain, cache: Cache, runner: Runner) -> tuple[str, ...]:
    """Build every source distribution in ``sources`` inside the build system, without network; returns what the built
    packages require themselves."""
    required: list[str] = []
    with _inside(toolchain, "source", cache, runner) as inside:
        shutil.copytree(sources, inside)
        names = [f"/tmp/source/{path.name}" for path in sorted(inside.iterdir())]
        argv = ["unshare", "--net", "chroot", str(toolchain.tree), "python3", "-m", "pip", "wheel", "--no-index"]
        # Debugging information would name the folder that pip unpacks to, which is another each time.
        runner.run(
            [*argv, "--no-build-isolation", "--no-deps", "-w", "/tmp/source/out", *names],
            timeout=_LONGEST,
            env={"CFLAGS": "-g0"},
        )
        for wheel in (inside / "out").glob("*.whl"):
            shutil.copyfile(wheel, wheels / wheel.name)
            required += required_by(wheel)
    return tuple(required)


def required_by(wheel: Path) -> tuple[str, ...]:
    """What a wheel requires whatever it is used for (core metadata, Requires-Dist), as requirement strings."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    listed = (str(requirement) for requirement in metadata.get_all("Requires-Dist", []))
    return tuple(requirement for requirement in listed if "extra ==" not in requirement)


@contextlib.contextmanager
def _inside(toolchain: Toolchain, name: str, cache: Cache, runner: Runner) -> Iterator[Path]:
    """A folder in the build system that is not there yet, for one build at a time.

    Its name is always the same, because compilers write it into what they make.
    """
    refuse_foreign(toolchain.python.architecture, cache, runner)
    with cache.alone(f"toolchain-{toolchain.key}-use"):
        folder = toolchain.tree / "tmp" / name
        if folder.exists():  # A killed build left it.
            shutil.rmtree(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _pip(argv: list[str], runner: Runner) -> None:
    environment = {name: value for name, value in os.environ.items() if name.startswith(_PIP_ENVIRONMENT)}
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *argv]
    runner.run(argv, timeout=900, env=environment)


def _name_of(requirement: str) -> str:
    """The project's name in a requirement string such as ``blake3>=1.0``."""
    end = next((place for place, letter in enumerate(requirement) if not (letter.isalnum() or letter in "-_.")), None)
    return requirement[:end].lower()
