"""A kernel module, from the bytes of its file: what it calls itself, which kernel it is for, what it drives and needs.

Reads ELF (64 bit, little-endian: amd64 and arm64), plain or compressed as kmod knows it. It does not load modules, and
whether a kernel would take one is decided by whoever compares ``vermagic``.

Sources: the ELF specification (gABI 4.1, chapters 4 and 5); the kernel's include/linux/module.h (``.modinfo`` holds
``tag=value`` strings, each ended by NUL) and scripts/sign-file.c (the words behind a signed module).
"""

import lzma
import struct
import zlib
from pathlib import Path

import msgspec
import zstandard

from core.errors import DamagedError, DeviceError
from core.units import MIB

#: File names that kmod takes for modules.
SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
#: No module is larger unpacked; the largest of Debian's (amdgpu) is 30 MiB.
_LARGEST = 256 * MIB
_SIGNED = b"~Module signature appended~\n"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMBOL_TABLE = 2
_NO_BYTES = 8
_RELOCATABLE = 1


class KernelModule(msgspec.Struct, frozen=True, kw_only=True):
    """What a module says of itself.

    Attributes:
        name: as lsmod shows it, with ``_``.
        vermagic: the kernel it was built for and how; begins with the kernel's release. Empty when it does not say.
        aliases: patterns of modaliases it claims.
        depends: names of modules it needs.
        firmware: files below /lib/firmware it may ask for; may hold wildcards.
        imports: symbols it takes from the kernel and from other modules.
        signed: a signature is appended. Whose, it does not say.
    """

    name: str
    vermagic: str
    aliases: tuple[str, ...]
    depends: tuple[str, ...]
    firmware: tuple[str, ...]
    imports: frozenset[str]
    signed: bool

    @property
    def kernel(self) -> str:
        """The release it was built for, as ``uname -r`` gives it."""
        return self.vermagic.partition(" ")[0]


def is_module(path: Path) -> bool:
    """Whether the name is a module's."""
    return path.name.endswith(SUFFIXES)


def module_name(path: Path) -> str:
    """The name that kmod gives the module in this file."""
    return path.name.partition(".ko")[0].replace("-", "_")


def read_module(path: Path) -> KernelModule:
    """Read the module in a file.

    Raises:
        DeviceError: the file cannot be read.
        DamagedError: it is not a kernel module, or a damaged one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeviceError(f"{path} cannot be read: {error.strerror}.") from None
    return parse_module(_unpack(content, str(path)), name=str(path))


def parse_module(content: bytes, *, name: str) -> KernelModule:
    """An ELF object's bytes to what the module says of itself; ``name`` is the file's, for errors.

    Raises:
        DamagedError: it is not a kernel module.
    """
    sections = _sections(content, name)
    if ".modinfo" not in sections:
        raise DamagedError(f"{name} has no section .modinfo: it is an ELF object, but not a kernel module.")
    told: dict[str, list[str]] = {}
    for entry in _bytes_of(content, sections[".modinfo"], name).split(b"\0"):
        tag, equals, value = entry.decode(errors="replace").partition("=")
        if equals:
            told.setdefault(tag, []).append(value)
    depends = ",".join(told.get("depends", [])).split(",")
    return KernelModule(
        name=told.get("name", [module_name(Path(name))])[0].replace("-", "_"),
        vermagic=told.get("vermagic", [""])[0].strip(),
        aliases=tuple(told.get("alias", [])),
        depends=tuple(depend.replace("-", "_") for depend in depends if depend),
        firmware=tuple(told.get("firmware", [])),
        imports=_imports(content, sections, name),
        signed=content.endswith(_SIGNED),
    )


class _Section(msgspec.Struct, frozen=True):
    """A section header: ``offset`` and ``size`` in bytes of the file, ``link`` the number of another section."""

    number: int
    kind: int
    offset: int
    size: int
    link: int


def _sections(content: bytes, name: str) -> dict[str, _Section]:
    """Section headers by name, each inside the file."""
    if content[:4] != b"\x7fELF":
        raise DamagedError(f"{name}, offset 0, ELF magic: expected 7f454c46, found {content[:4].hex() or 'no bytes'}.")
    if len(content) < _HEADER.size or content[4:6] != b"\x02\x01":
        raise DamagedError(f"{name}, offset 4: expected a 64-bit little-endian ELF, found {content[4:6].hex()}.")
    head = _HEADER.unpack_from(content)
    kind, table, width, count, names = head[1], head[6], head[11], head[12], head[13]
    if kind != _RELOCATABLE:
        raise DamagedError(f"{name}, offset 16, ELF type: expected 1 (relocatable, as modules are), found {kind}.")
    if width != _SECTION.size or table + width * count > len(content):
        raise DamagedError(
            f"{name}, offset 40: {count} section headers of {width} bytes at {table} do not fit into the file's "
            f"{len(content)} bytes."
        )
    raw = [_SECTION.unpack_from(content, table + width * number) for number in range(count)]
    found = [_Section(number, row[1], row[4], row[5], row[6]) for number, row in enumerate(raw)]
    if names >= count:
        raise DamagedError(f"{name}, offset 62: section {names} should hold the names, and there are {count}.")
    words = _bytes_of(content, found[names], name)
    return {_word(words, row[0]): section for row, section in zip(raw, found, strict=True)}


def _bytes_of(content: bytes, section: _Section, name: str) -> bytes:
    if section.kind == _NO_BYTES:
        return b""
    end = section.offset + section.size
    if end > len(content):
        raise DamagedError(
            f"{name}: section {section.number} ends at byte {end}, behind the file's end at {len(content)}."
        )
    return content[section.offset : end]


def _imports(content: bytes, sections: dict[str, _Section], name: str) -> frozenset[str]:
    """Names of the symbols that the symbol table has without a section of their own."""
    table = next((section for section in sections.values() if section.kind == _SYMBOL_TABLE), None)
    if table is None:
        return frozenset()
    words = next((section for section in sections.values() if section.number == table.link), None)
    if words is None:
        raise DamagedError(f"{name}: the symbol table's names should be in section {table.link}, which is not there.")
    strings = _bytes_of(content, words, name)
    rows = _bytes_of(content, table, name)
    rows = rows[: len(rows) - len(rows) % _SYMBOL.size]
    return frozenset(_word(strings, row[0]) for row in _SYMBOL.iter_unpack(rows) if row[3] == 0 and row[0])


def _word(strings: bytes, start: int) -> str:
    end = strings.find(b"\0", start)
    return strings[start : end if end >= 0 else len(strings)].decode(errors="replace")


def _unpack(content: bytes, name: str) -> bytes:
    """The plain bytes, whatever kmod's compression is; at most what a module can have."""
    try:
        if content.startswith(b"\xfd7zXZ\0"):
            whole = lzma.LZMADecompressor(memlimit=_LARGEST)
            plain, ended = whole.decompress(content, max_length=_LARGEST + 1), whole.eof
        elif content.startswith(b"\x28\xb5\x2f\xfd"):
            plain, ended = _unpack_zstd(content)
        elif content.startswith(b"\x1f\x8b"):
            inflate = zlib.decompressobj(31)
            plain, ended = inflate.decompress(content, _LARGEST + 1), inflate.eof
        else:
            plain, ended = content, True
    except (lzma.LZMAError, zstandard.ZstdError, zlib.error) as error:
        raise DamagedError(f"{name} cannot be unpacked: {error}.") from None
    if len(plain) > _LARGEST:
        raise DamagedError(f"{name} unpacks to more than {_LARGEST // MIB} MiB: no kernel module is that large.")
    if not ended:
        raise DamagedError(f"{name} cannot be unpacked: it ends in the middle, after {len(content)} bytes.")
    return plain


def _unpack_zstd(content: bytes) -> tuple[bytes, bool]:
    """The plain bytes, a little more than the largest at most, and whether the end was reached."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=_LARGEST).decompressobj()
    plain = bytearray()
    # A few packed bytes may stand for 128 KiB (RFC 8878, RLE blocks): looked at before it is too much.
    for start in range(0, len(content), 4096):
        if unpacker.eof or len(plain) > _LARGEST:
            break
        plain += unpacker.decompress(content[start : start + 4096])
    return bytes(plain), unpacker.eof
