"""Drivers from their source: DKMS compiles them in a small system of the medium's release, with the headers of exactly
the medium's kernel.

Sources are Debian packages (``…-dkms``), or folders with a ``dkms.conf``. The medium gets modules, never a compiler.
Made by root like every Debian tree; what was compiled once comes from the cache.

Source: dkms(8).
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from builder.architecture import architecture_of
from builder.archive.mirror import without_user
from builder.cache import Cache, key_of
from builder.drivers.kernel_module import is_module
from builder.foreign import bootstrap_words, refuse_foreign
from builder.rootfs import install, refuse_without_root
from core.errors import LiferaftError, ProcessError, UsageError
from core.events import Event, Sink, Stage
from core.process import Runner

_SETTING = re.compile(r"^\s*(PACKAGE_NAME|PACKAGE_VERSION)=[\"']?([A-Za-z0-9._+~:-]+)[\"']?\s*$", re.MULTILINE)
_LOG_LINES = 15
#: Shown when a driver does not compile: what the compiler said, not only that make failed.
_SHOW_LOGS = (
    f'tail -v -n {_LOG_LINES} "$1"/var/lib/dkms/*/*/build/make.log "$1"/var/lib/dkms/*/*/*/*/log/make.log 2>/dev/null'
)


def build_dkms(
    packages: tuple[str, ...],
    folders: tuple[Path, ...],
    kernel: str,
    release: str,
    sources: tuple[str, ...],
    cache: Cache,
    runner: Runner,
    sink: Sink,
) -> tuple[Path, ...]:
    """Compiled modules for ``kernel``, from the cache or built (one to two minutes).

    Args:
        packages: Debian packages of the release, contrib, non-free and non-free-firmware too.
        folders: sources with a dkms.conf.
        release: the Debian release of the medium.
        sources: lines of a sources.list for it.

    Raises:
        UsageError: a folder is no DKMS source.
        RefusedError: not root.
        LiferaftError: a driver does not compile, or the archive no longer has this kernel's headers.
    """
    named = {folder: _named(folder) for folder in folders}
    key = key_of(("dkms 1", kernel, *sources, *sorted(packages), *_contents(folders)))

    def make(target: Path) -> None:
        refuse_without_root()
        refuse_foreign(architecture_of(sources), cache, runner)
        what = ", ".join((*packages, *(f"{name}/{version}" for name, version in named.values())))
        sink(Event(stage=Stage.BUILD, message=f"Compiling drivers for {kernel}: {what}"))
        with cache.scratch("dkms") as scratch:
            for folder, (name, version) in named.items():
                shutil.copytree(folder, scratch / "usr/src" / f"{name}-{version}")
            _compile(packages, tuple(named.values()), kernel, release, sources, scratch, runner)
            for path in sorted((scratch / "tree/usr/lib/modules" / kernel / "updates").rglob("*")):
                if path.is_file() and is_module(path):
                    shutil.copyfile(path, target / path.name)
        if not any(target.iterdir()):
            raise LiferaftError(
                f"DKMS made no modules for the kernel {kernel} from {what}.",
                hint="Is it a package that brings its driver as source (…-dkms)?",
            )

    folder, _ = cache.entry("dkms", key, make)
    return tuple(sorted(folder.iterdir()))


def _named(folder: Path) -> tuple[str, str]:
    """Name and version by which DKMS knows a source.

    Raises:
        UsageError: there is no dkms.conf, or it does not say them.
    """
    try:
        text = (folder / "dkms.conf").read_text()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{folder} is no source for DKMS: it has no dkms.conf that can be read.") from None
    found = dict(_SETTING.findall(text))
    if len(found) < 2:
        raise UsageError(f"{folder / 'dkms.conf'} does not say PACKAGE_NAME and PACKAGE_VERSION in plain words.")
    return found["PACKAGE_NAME"], found["PACKAGE_VERSION"]


def _contents(folders: Iterable[Path]) -> Iterable[str | bytes]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(folder))
                yield path.read_bytes()


def _compile(
    packages: tuple[str, ...],
    named: tuple[tuple[str, str], ...],
    kernel: str,
    release: str,
    sources: tuple[str, ...],
    scratch: Path,
    runner: Runner,
) -> None:
    included = ",".join(("dkms", f"linux-headers-{kernel}", *packages))
    argv = ["mmdebstrap", "--mode=unshare", "--variant=apt", f"--include={included}"]
    argv += bootstrap_words(architecture_of(sources))
    argv += ['--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/doc/*"]
    steps = [f'chroot "$1" dkms install {name}/{version} -k {kernel}' for name, version in named]
    if named:
        argv.append(f"--customize-hook=sync-in {scratch / 'usr'} /usr")
        argv += [f'--customize-hook=chroot "$1" dkms add {name}/{version}' for name, version in named]
    steps.append(f'chroot "$1" dkms autoinstall -k {kernel}')
    argv += [f"--customize-hook={step} || {{ {_SHOW_LOGS}; exit 1; }}" for step in steps]
    lines = [f"{line} contrib non-free non-free-firmware" for line in sources]
    try:
        install([*argv, release, str(scratch / "tree")], lines, runner, lambda line: None)
    except ProcessError as error:
        raise LiferaftError(_why(error.output, kernel), hint="--debug shows all that was printed.") from error


def _why(output: str, kernel: str) -> str:
    if f"Unable to locate package linux-headers-{kernel}" in output:
        return f"Debian's archive no longer has the headers of the kernel {kernel}: the base is older than the archive."
    lines = [line for line in output.splitlines() if re.search(r"\berror:|^E: |Error! ", line)]
    said = lines[0] if lines else output.strip()[-300:]
    return f"The drivers could not be compiled for the kernel {kernel}: {without_user(said)}"
