"""What the medium must be, for the check at boot: digests of ranges, and the initrd part that compares them.

Before live-boot uses a layer, ``data/check-medium`` hashes it and compares (docs/medium.md, "Before it is used"). The
digests travel in the initrd, which the boot loader has loaded by then. This finds a rotten stick, a bad copy and a lost
download; it is no defence against a person who rewrites the initrd, too: that is what Secure Boot and keys are for.

SHA-512, because the initrd's busybox computes it three times as fast as SHA-256 on a processor without instructions for
either: 110 against 38 MB/s for each processor that QEMU emulates here.
"""

import hashlib
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path

import msgspec

from builder.initrd import InitrdFile, read_initrd, write_initrd
from core.errors import DamagedError
from core.units import MIB

#: Where the part lies on the medium. It comes last: its script replaces live-boot's own check.
SUMS = "live/sums.img"
#: Bytes of a range: small enough to say where damage is, and to keep every processor busy.
RANGE_SIZE = 8 * MIB
_SUMS_TEXT = "usr/lib/liferaft/sums.txt"
_SCRIPT = "usr/lib/liferaft/check-medium"
#: live-boot reads all files of this folder in the order of their names; its function of this name does nothing without
#: a parameter, and when it finds everything in order it restarts the machine.
_HOOK = "usr/lib/live/boot/9999-liferaft-check"
_HOOK_TEXT = """#!/bin/sh
# liferaft's check in the place of live-boot's own.
Verify_checksums ()
{
	sh /usr/lib/liferaft/check-medium "${1}"
}
"""
_COMPARED = re.compile(r"live/[^/]+\.squashfs|live/filesystem\.module|liferaft/(?!medium\.json)[^/]+")
_LINE = re.compile(r"(?P<digest>[0-9a-f]{128}) (?P<offset>[0-9]{1,16}) (?P<size>[0-9]{1,16}) (?P<path>\S[^\n]{0,1023})")


class Range(msgspec.Struct, frozen=True):
    """The SHA-512 of a range of a file on the medium; ``offset`` is a multiple of :data:`RANGE_SIZE`, in bytes."""

    path: str
    offset: int
    size: int
    digest: str


def belongs(path: str) -> bool:
    """Whether a file of the medium is compared at boot: what the running system is made of or acts on.

    Kernel and initrds are in use by then. Folders below ``liferaft/`` hold what is only carried.
    """
    return (
        re.fullmatch(r"live/[^/]+\.squashfs|live/filesystem\.module|liferaft/(?!medium\.json)[^/]+", path) is not None
    )


def ranges_of(path: str, pieces: Iterable[bytes]) -> Iterator[Range]:
    """The ranges of one file, from its bytes in order."""
    offset, size, digest = 0, 0, hashlib.sha512()
    for piece in pieces:
        view = memoryview(piece)
        while view:
            part = view[: RANGE_SIZE - size]
            digest.update(part)
            size += len(part)
            view = view[len(part) :]
            if size == RANGE_SIZE:
                yield Range(path, offset, size, digest.hexdigest())
                offset, size, digest = offset + size, 0, hashlib.sha512()
    if size:
        yield Range(path, offset, size, digest.hexdigest())


def ranges_of_files(files: Mapping[str, Path]) -> tuple[Range, ...]:
    """The ranges of all files that are compared, by path on the medium."""
    found: list[Range] = []
    for path, source in sorted(files.items()):
        if belongs(path):
            with source.open("rb") as stream:
                found += ranges_of(path, iter(lambda: stream.read(MIB), b""))
    return tuple(found)


def sums_image(ranges: Iterable[Range]) -> bytes:
    """The initrd part for :data:`SUMS`; equal ranges give equal bytes."""
    text = "".join(f"{part.digest} {part.offset} {part.size} {part.path}\n" for part in ranges)
    script = files("builder").joinpath("data/check-medium").read_bytes()
    plain, program = stat.S_IFREG | 0o644, stat.S_IFREG | 0o755
    return write_initrd(
        (
            InitrdFile(_SUMS_TEXT, plain, text.encode(errors="surrogateescape")),
            InitrdFile(_SCRIPT, program, script),
            InitrdFile(_HOOK, plain, _HOOK_TEXT.encode()),
        )
    )


def read_sums(image: bytes, *, name: str) -> tuple[Range, ...]:
    """The ranges in an initrd part that liferaft made; ``name`` is what an error calls it.

    Raises:
        DamagedError: not such a part, or a line of it is not as written above.
    """
    text = next((file.content for file in read_initrd(image, name=name) if file.name == _SUMS_TEXT), None)
    if text is None:
        raise DamagedError(f"{name} has no {_SUMS_TEXT}: expected the digests of the medium.")
    found = []
    for number, line in enumerate(text.decode(errors="surrogateescape").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None or int(match["offset"]) % RANGE_SIZE or not 0 < int(match["size"]) <= RANGE_SIZE:
            raise DamagedError(
                f"{name}, {_SUMS_TEXT}, line {number}: expected 'SHA-512 OFFSET SIZE PATH', found {line[:120]!r}."
            )
        found.append(Range(match["path"], int(match["offset"]), int(match["size"]), match["digest"]))
    return tuple(found)
