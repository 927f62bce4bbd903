"""Initrds: reading the files in one, and writing a part that the kernel unpacks over what came before.

The kernel takes a row of cpio archives (``newc``), each plain or compressed, with zeros between them; a file in a later
one replaces the earlier one's. Nothing here knows what the files mean.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c.
"""

import io
import lzma
import stat
import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec
import zstandard

from core.errors import DamagedError
from core.units import MIB

_MAGIC = (b"070701", b"070702")
_HEADER = 110
_END = "TRAILER!!!"
#: Debian's own, with every driver, unpacks to about 200 MiB.
_LARGEST = 1024 * MIB
_LONGEST_NAME = 4096
#: A few packed bytes may stand for 128 KiB (RFC 8878, RLE blocks): looked at before it is too much.
_PIECE = 4096


class InitrdFile(msgspec.Struct, frozen=True):
    """An entry of an archive: a file with its bytes, a folder (empty), or a link (its target as bytes).

    Attributes:
        name: path without a leading slash.
        mode: type and permissions, as st_mode.
    """

    name: str
    mode: int
    content: bytes

    @property
    def is_file(self) -> bool:
        """A plain file."""
        return stat.S_ISREG(self.mode)


class _Unpacker(Protocol):
    """What zlib, lzma and zstandard have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def read_initrd(content: bytes, *, name: str) -> Iterator[InitrdFile]:
    """All entries, in the order in which the kernel unpacks them; ``name`` is the file's, for errors.

    Raises:
        DamagedError: not cpio, cut short, or compressed in a way that liferaft does not know.
    """
    place = _skip_zeros(content, 0)
    while place < len(content):
        if content[place : place + 6] in _MAGIC:
            entries, place = _read_archive(content, place, name)
            yield from _linked(entries)
        else:
            plain, place = _unpack(content, place, name)
            yield from read_initrd(plain, name=f"{name}, unpacked")
        place = _skip_zeros(content, place)


def write_initrd(files: Iterable[InitrdFile]) -> bytes:
    """An archive (zstd) of ``files`` and the folders they lie in; equal files give equal bytes."""
    found = {file.name: file for file in files}
    folders = {parent for name in found for parent in _parents(name)} - found.keys()
    found |= {name: InitrdFile(name, stat.S_IFDIR | 0o755, b"") for name in folders}
    out = io.BytesIO()
    for number, (_, file) in enumerate(sorted(found.items()), 1):
        _write_entry(out, number, file)
    _write_entry(out, 0, InitrdFile(_END, 0, b""))
    return zstandard.ZstdCompressor(level=12).compress(out.getvalue())


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _write_entry(out: io.BytesIO, number: int, file: InitrdFile) -> None:
    name = file.name.encode(errors="surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(file.mode) else 1
    fields = (number, file.mode, 0, 0, links, 0, len(file.content), 0, 0, 0, 0, len(name), 0)
    out.write(_MAGIC[0] + b"".join(b"%08X" % field for field in fields) + name)
    out.write(bytes(-out.tell() % 4))
    out.write(file.content)
    out.write(bytes(-out.tell() % 4))


class _Entry(msgspec.Struct, frozen=True):
    """A file, and the numbers that files share which are links to one another (inode and device)."""

    file: InitrdFile
    inode: tuple[int, int, int]


def _linked(entries: list[_Entry]) -> Iterator[InitrdFile]:
    """The files, each with its bytes: of those linked to one another, the archive gives them to one only."""
    shared = {entry.inode: entry.file.content for entry in entries if entry.file.is_file and entry.file.content}
    for entry in entries:
        if entry.file.is_file and not entry.file.content:
            yield InitrdFile(entry.file.name, entry.file.mode, shared.get(entry.inode, b""))
        else:
            yield entry.file


def _read_archive(content: bytes, start: int, name: str) -> tuple[list[_Entry], int]:
    """The entries of the plain archive at ``start``, and the offset behind its trailer.

    Padding counts from the archive's own first byte.
    """
    place = start
    found: list[_Entry] = []
    while True:
        header = content[place : place + _HEADER]
        if header[:6] not in _MAGIC:
            seen = repr(header[:6]) if header else "the end of the file"
            raise DamagedError(f"{name}, offset {place}, cpio header: expected 070701, found {seen}.")
        try:
            fields = [int(header[6 + 8 * index : 14 + 8 * index], 16) for index in range(13)]
        except ValueError:
            raise DamagedError(f"{name}, offset {place + 6}: expected 13 numbers of 8 hex digits each.") from None
        mode, size, name_size = fields[1], fields[6], fields[11]
        if not 0 < name_size <= _LONGEST_NAME:
            raise DamagedError(
                f"{name}, offset {place + 94}, length of a name: expected 1 to {_LONGEST_NAME}, found {name_size}."
            )
        behind_name = place + _HEADER + name_size
        data = behind_name + -(behind_name - start) % 4
        end = data + size
        if end > len(content):
            raise DamagedError(
                f"{name}, offset {place}: the entry ends at byte {end}, behind the end at byte {len(content)}."
            )
        entry = content[place + _HEADER : behind_name - 1].decode(errors="surrogateescape")
        if entry == _END:
            return found, end
        # Files without links may all say inode 0.
        inode = (fields[0], fields[7], fields[8]) if fields[4] > 1 else (-1, 0, len(found))
        found.append(_Entry(InitrdFile(entry.removeprefix("./").lstrip("/"), mode, content[data:end]), inode))
        place = end + -(end - start) % 4


def _skip_zeros(content: bytes, place: int) -> int:
    while place < len(content) and content[place] == 0:
        place += 1
    return place


def _unpack(content: bytes, place: int, name: str) -> tuple[bytes, int]:
    """The plain bytes of the compressed archive at ``place``, and the offset behind it."""
    unpacker = _unpacker(content[place : place + 6])
    if unpacker is None:
        raise DamagedError(
            f"{name}, offset {place}: expected a cpio archive, plain or packed by zstd, xz or gzip; "
            f"found {content[place : place + 6].hex()}."
        )
    plain = bytearray()
    fed = place
    try:
        while not unpacker.eof and fed < len(content):
            plain += unpacker.decompress(content[fed : fed + _PIECE])
            fed += _PIECE
            if len(plain) > _LARGEST:
                raise DamagedError(f"{name} unpacks to more than {_LARGEST // MIB} MiB: no initrd is that large.")
    except (lzma.LZMAError, zstandard.ZstdError, zlib.error) as error:
        raise DamagedError(f"{name}: the archive at offset {place} cannot be unpacked: {error}.") from None
    if not unpacker.eof:
        raise DamagedError(f"{name}: the archive at offset {place} is cut off by the file's end at {len(content)}.")
    return bytes(plain), min(fed, len(content)) - len(unpacker.unused_data)


def _unpacker(magic: bytes) -> _Unpacker | None:
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor(max_window_size=128 * MIB).decompressobj()
    if magic.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor(memlimit=_LARGEST)
    if magic.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31)
    return None
