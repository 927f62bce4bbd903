"""What a system says of its mounts and its swap: the lines of its ``/etc/fstab``. Whose line means which volume is not
said here.

Formats: fstab(5); octal escapes as util-linux reads them (libmount, unmangle); names in ``/dev/disk`` as udev writes
them (systemd, encode_devnode_name).
"""

import posixpath
import re
from collections.abc import Iterator
from enum import StrEnum

import msgspec

_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_HEXADECIMAL = re.compile(rb"\\x([0-9a-f]{2})")


class Tag(StrEnum):
    """By what a line names a volume. ``device``: the path of a node."""

    UUID = "UUID"
    LABEL = "LABEL"
    PARTUUID = "PARTUUID"
    PARTLABEL = "PARTLABEL"
    DEVICE = "device"


_FOLDERS = {
    "by-uuid": Tag.UUID,
    "by-label": Tag.LABEL,
    "by-partuuid": Tag.PARTUUID,
    "by-partlabel": Tag.PARTLABEL,
}


class FstabLine(msgspec.Struct, frozen=True):
    """One mount, or one swap space.

    Attributes:
        spec: what is mounted, in the line's own words, without escapes.
        place: an absolute path, normal; empty for swap.
        kind: of the filesystem, or ``swap``, ``tmpfs``, ``auto``.
        number: of the line in the file, from 1.
    """

    spec: str
    place: str
    kind: str
    options: tuple[str, ...] = ()
    number: int = 0

    @property
    def tag(self) -> Tag | None:
        """By what the volume is named; None for what is no volume, as ``tmpfs`` and ``server:/share``."""
        return named(self.spec)[0]

    @property
    def value(self) -> str:
        """The UUID, label, name or node."""
        return named(self.spec)[1]

    @property
    def subvolume(self) -> str:
        """The option that names a subvolume of btrfs, ``subvol=`` or ``subvolid=``; empty for none."""
        if self.kind not in ("btrfs", "auto"):
            return ""
        found = [option for option in self.options if option.startswith(("subvol=", "subvolid="))]
        return found[-1] if found else ""


def parse_fstab(text: str) -> tuple[FstabLine, ...]:
    """The lines that mount something on a path, parents before children."""
    lines = (
        FstabLine(without_escapes(words[0]), _normal(words[1]), words[2], _options(words), number)
        for number, words in _written(text)
        if words[1].startswith("/")
    )
    return tuple(sorted(lines, key=lambda line: line.place))


def parse_swaps(text: str) -> tuple[FstabLine, ...]:
    """The lines that say where to swap to, in their order."""
    return tuple(
        FstabLine(without_escapes(words[0]), "", words[2], _options(words), number)
        for number, words in _written(text)
        if words[2] == "swap"
    )


def _written(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are no comments and have all that a line needs: their numbers and words."""
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.split()
        if len(words) >= 3 and not words[0].startswith("#"):
            yield number, words


def _normal(word: str) -> str:
    return "/" + posixpath.normpath(without_escapes(word)).lstrip("/")


def _options(words: list[str]) -> tuple[str, ...]:
    return tuple(without_escapes(words[3]).split(",")) if len(words) > 3 else ()


def without_escapes(word: str) -> str:
    """A word without its octal escapes, which stand for bytes."""
    return _unescaped(word, _OCTAL, 8)


def named(spec: str) -> tuple[Tag | None, str]:
    """By what a spec names a volume, and the UUID, label, name or node; crypttab(5) has the same spellings."""
    tag, equals, value = spec.partition("=")
    if equals and tag in _FOLDERS.values():
        return Tag(tag), value.strip("\"'")
    if spec.startswith("/dev/disk/"):
        folder, _, value = spec.removeprefix("/dev/disk/").partition("/")
        if folder in _FOLDERS:
            return _FOLDERS[folder], _unescaped(value, _HEXADECIMAL, 16)
    return (Tag.DEVICE, spec) if spec.startswith("/dev/") else (None, spec)


def _unescaped(text: str, escape: re.Pattern[bytes], base: int) -> str:
    data = text.encode(errors="surrogateescape")
    return escape.sub(lambda match: bytes([int(match[1], base)]), data).decode(errors="replace")
