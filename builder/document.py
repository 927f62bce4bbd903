"""The medium's own document, ``liferaft/medium.json``: what is on it, by name, size and digest.

Written last, so it does not name itself. Whoever opens a finished medium (inspect, inject, preflight, the check at
boot) begins here.
"""

import datetime
import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from builder.architecture import Architecture
from builder.archive.mirror import PackageSource
from builder.digest import sha256_of
from core.documents import decode_stored
from core.errors import DamagedError, RefusedError
from images.sources import BlockSource, BytesSource

MEDIUM_VERSION = 1
#: Where it lies on the medium.
MEDIUM_DOCUMENT = "liferaft/medium.json"
#: Bytes of a boot image that xorriso fills in.
_ADDRESSES = ((8, 64), (2548, 2556))


class MediumFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file on the medium: its path there, bytes, SHA-256."""

    path: str
    size: int
    sha256: str


class MediumDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What a medium is.

    Attributes:
        version: of this document.
        liferaft: the version that built it.
        built: the time it belongs to, UTC: when the newest package list it was built from was published, or what
            SOURCE_DATE_EPOCH named. Not when somebody ran the build: that would make equal media differ.
        release: the Debian release. architecture: Debian's name.
        medium_id: the mark by which the initrd knows a medium it belongs to.
        kernel: its release, as ``uname -r`` gives it.
        kernel_parameters: the recipe's words.
        layers: names of the squashfs layers, lowest first.
        initrds: paths of what the boot loader loads as initrd, in order.
        ram: bytes of RAM the machine needs. ram_copied: the same when the medium is copied to RAM.
        sources: the package lists it was built from.
        files: every file of the medium but this one, by path.
        boot_images: what firmware starts from, ``bios`` (where the architecture has it) and ``efi``: bytes and
            :func:`boot_image_digest`.
    """

    version: int = MEDIUM_VERSION
    liferaft: str
    built: datetime.datetime
    release: str
    architecture: str
    medium_id: str
    kernel: str
    kernel_parameters: tuple[str, ...] = ()
    layers: tuple[str, ...]
    initrds: tuple[str, ...]
    ram: int
    ram_copied: int
    sources: tuple[PackageSource, ...] = ()
    files: tuple[MediumFile, ...]
    boot_images: tuple[MediumFile, ...] = ()


def describe_files(files: Mapping[str, Path]) -> tuple[MediumFile, ...]:
    """Size and digest of each file, sorted by its path on the medium."""
    found = []
    for path, source in sorted(files.items()):
        found.append(MediumFile(path=path, size=source.stat().st_size, sha256=sha256_of(source)))
    return tuple(found)


def describe_boot_images(bios: Path | None, efi: Path) -> tuple[MediumFile, ...]:
    """The images as they are before the ISO is written."""
    found = []
    for name, path in (("bios", bios), ("efi", efi)):
        if path is None:
            continue
        source = BytesSource(path.read_bytes())
        found.append(MediumFile(path=name, size=source.size, sha256=boot_image_digest(source)))
    return tuple(found)


def boot_image_digest(image: BlockSource) -> str:
    """SHA-256 of a boot image without the two places where xorriso writes the image's own address: the boot info table
    (mkisofs(8), -boot-info-table) and GRUB's (xorriso --grub2-boot-info). In the EFI image they are nothing special."""
    content = bytearray(image.read_at(0, image.size))
    for start, end in _ADDRESSES:
        content[start:end] = bytes(len(content[start:end]))
    return hashlib.sha256(content).hexdigest()


def architecture_of_medium(document: MediumDocument, name: str) -> Architecture:
    """The architecture that a medium starts on; ``name`` is what an error calls the medium.

    Raises:
        RefusedError: this liferaft makes no media for it.
    """
    try:
        return Architecture(document.architecture)
    except ValueError:
        raise RefusedError(
            f"{name} is for {document.architecture[:40]!r}, for which this liferaft makes no media.",
            hint="Use the liferaft that built the medium, or a newer one.",
        ) from None


def parse_medium(content: bytes, *, name: str) -> MediumDocument:
    """A document that liferaft wrote; ``name`` is what an error calls it.

    Raises:
        DamagedError: it is not one, or of a version that this liferaft does not know.
    """
    document = decode_stored(content, MediumDocument, name=name)
    if document.version != MEDIUM_VERSION:
        raise DamagedError(
            f"{name} has version {document.version}; this liferaft knows {MEDIUM_VERSION}.",
            hint="Use the liferaft that built the medium, or a newer one.",
        )
    return document
