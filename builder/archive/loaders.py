"""Boot loaders for the network, the memory test, and loaders for media where the machine that builds has none, as the
medium's own Debian release has them.

Taken from the release and not from the machine that builds: only GRUB 2.12 speaks UEFI HTTP Boot, and what Debian
signed for a release starts its kernels. The packages are unpacked, never installed, and nothing of them runs here.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from builder.architecture import Architecture, architecture_of
from builder.archive.debian import open_archive
from builder.cache import Cache, key_of
from core.errors import DamagedError
from core.events import Event, Sink, Stage
from core.process import Runner

#: Names of what starts from a medium and not over the network begin with this in the cache's folder.
_ON_MEDIUM = "medium-"


class _Parts(msgspec.Struct, frozen=True):
    """Packages, and what is taken of them: name in the cache's folder to path in the packages."""

    packages: tuple[str, ...]
    files: dict[str, str]


_AMD64 = _Parts(
    ("grub-efi-amd64-signed", "memtest86+", "shim-helpers-amd64-signed", "shim-signed"),
    {
        "bootx64.efi": "usr/lib/shim/shimx64.efi.signed",
        "grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
        "mmx64.efi": "usr/lib/shim/mmx64.efi.signed",
        "memtest.bin": "boot/memtest86+x64.bin",
        "memtest.efi": "boot/memtest86+x64.efi",
    },
)
#: Debian has no memory test for arm64.
_ARM64 = _Parts(
    ("grub-efi-arm64-signed", "shim-helpers-arm64-signed", "shim-signed"),
    {
        "bootaa64.efi": "usr/lib/shim/shimaa64.efi.signed",
        "grubaa64.efi": "usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed",
        "mmaa64.efi": "usr/lib/shim/mmaa64.efi.signed",
        f"{_ON_MEDIUM}BOOTAA64.EFI": "usr/lib/shim/shimaa64.efi.signed",
        f"{_ON_MEDIUM}grubaa64.efi": "usr/lib/grub/arm64-efi-signed/gcdaa64.efi.signed",
        f"{_ON_MEDIUM}mmaa64.efi": "usr/lib/shim/mmaa64.efi.signed",
    },
)
_PARTS = {Architecture.AMD64: _AMD64, Architecture.ARM64: _ARM64}


class Loaders(msgspec.Struct, frozen=True):
    """Where they are.

    Attributes:
        network: signed programs for UEFI over the network, by the name under which each asks for the next.
        memtest: the memory test for BIOS (``memtest.bin``) and UEFI (``memtest.efi``; Debian does not sign it).
        medium: signed programs for UEFI from a medium, by their names in its ``EFI/BOOT``; none where the machine that
            builds brings them.
    """

    network: dict[str, Path]
    memtest: dict[str, Path]
    medium: dict[str, Path] = {}


def fetch_loaders(
    release: str, sources: Iterable[str], cache: Cache, runner: Runner, sink: Sink, *, state: tuple[str, ...] = ()
) -> Loaders:
    """The release's boot loaders, from the cache or from the archive that ``sources`` (lines of a sources.list) name,
    for the architecture that they name.

    Args:
        state: digests of what the archive publishes: a newer one has newer loaders.

    Raises:
        UnreachableError: they are not in the cache, and the archive does not answer.
        DamagedError: a package has another content than expected.
    """
    lines = tuple(sources)
    parts = _PARTS[architecture_of(lines)]

    def make(folder: Path) -> None:
        sink(Event(stage=Stage.BUILD, message="Fetching boot loaders for the network"))
        archive = open_archive(lines, cache, runner, sink, state=state)
        with cache.scratch("loaders") as scratch:
            archive.unpack(parts.packages, scratch)
            for name, path in parts.files.items():
                if not (scratch / path).is_file():
                    raise DamagedError(f"Debian {release}: expected {path} in {', '.join(parts.packages)}, found none.")
                shutil.copyfile(scratch / path, folder / name)

    key = key_of(("loaders 2", release, *state, *lines, *parts.files.values()))
    folder, _ = cache.entry("loaders", key, make)
    found = {name: folder / name for name in parts.files}
    medium = {name.removeprefix(_ON_MEDIUM): path for name, path in found.items() if name.startswith(_ON_MEDIUM)}
    memtest = {name: path for name, path in found.items() if name.startswith("memtest")}
    network = {name: path for name, path in found.items() if name not in memtest and not name.startswith(_ON_MEDIUM)}
    return Loaders(network, memtest, medium)
