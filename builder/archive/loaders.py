"""Boot loaders for the network and the memory test, as the medium's own Debian release has them.

Taken from the release and not from the machine that builds: only GRUB 2.12 speaks UEFI HTTP Boot, and what Debian
signed for a release starts its kernels. The packages are unpacked, never installed, and nothing of them runs here.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from builder.archive.debian import open_archive
from builder.cache import Cache, key_of
from core.errors import DamagedError
from core.events import Event, Sink, Stage
from core.process import Runner

_PACKAGES = ("grub-efi-amd64-signed", "memtest86+", "shim-helpers-amd64-signed", "shim-signed")
#: Name in the cache's folder to path in the packages.
_FILES = {
    "bootx64.efi": "usr/lib/shim/shimx64.efi.signed",
    "grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    "mmx64.efi": "usr/lib/shim/mmx64.efi.signed",
    "memtest.bin": "boot/memtest86+x64.bin",
    "memtest.efi": "boot/memtest86+x64.efi",
}


class Loaders(msgspec.Struct, frozen=True):
    """Where they are.

    Attributes:
        network: signed programs for UEFI over the network, by the name under which each asks for the next.
        memtest: the memory test for BIOS (``memtest.bin``) and UEFI (``memtest.efi``; Debian does not sign it).
    """

    network: dict[str, Path]
    memtest: dict[str, Path]


def fetch_loaders(
    release: str, sources: Iterable[str], cache: Cache, runner: Runner, sink: Sink, *, state: tuple[str, ...] = ()
) -> Loaders:
    """The release's boot loaders, from the cache or from the archive that ``sources`` (lines of a sources.list) name.

    Args:
        state: digests of what the archive publishes: a newer one has newer loaders.

    Raises:
        UnreachableError: they are not in the cache, and the archive does not answer.
        DamagedError: a package has another content than expected.
    """
    lines = tuple(sources)

    def make(folder: Path) -> None:
        sink(Event(stage=Stage.BUILD, message="Fetching boot loaders for the network"))
        archive = open_archive(lines, cache, runner, sink, state=state)
        with cache.scratch("loaders") as scratch:
            archive.unpack(_PACKAGES, scratch)
            for name, path in _FILES.items():
                if not (scratch / path).is_file():
                    raise DamagedError(f"Debian {release}: expected {path} in {', '.join(_PACKAGES)}, found none.")
                shutil.copyfile(scratch / path, folder / name)

    folder, _ = cache.entry("loaders", key_of(("loaders 2", release, *state, *lines, *_FILES.values())), make)
    return Loaders(
        {name: folder / name for name in _FILES if not name.startswith("memtest")},
        {name: folder / name for name in _FILES if name.startswith("memtest")},
    )
