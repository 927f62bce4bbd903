"""A program for UEFI (PE/COFF) from its bytes: sections, the digest that is signed, the signatures on it.

Follows Microsoft's PE format specification and, for the digest, its Authenticode specification as EDK2 implements it
(SecurityPkg DxeImageVerificationLib). Who signed, and whether that holds, is :mod:`builder.finished.signatures`.
"""

import hashlib
import struct
from typing import Any

import msgspec

from core.errors import DamagedError

#: The largest that belongs on a medium: a kernel with an initrd in it has some 100 MiB.
MAXIMUM_SIZE = 512 * 1024 * 1024
_HEADER_POINTER = 0x3C
_MARK = b"PE\0\0"
_COFF = struct.Struct("<HHIIIHH")
_SECTION = struct.Struct("<8sIIIIIIHHI")
_CERTIFICATE = struct.Struct("<IHH")
_PE32, _PE32_PLUS = 0x10B, 0x20B
#: Offset of NumberOfRvaAndSizes in the optional header; the data directories follow it.
_DIRECTORIES = {_PE32: 92, _PE32_PLUS: 108}
_SIZE_OF_HEADERS = 60
_CHECKSUM = 64
_SECURITY_DIRECTORY = 4
_PKCS_SIGNED_DATA = 0x0002
_MAXIMUM_SECTIONS = 96
_SYMBOL_SIZE = 18
_LONGEST_NAME = 64


class Section(msgspec.Struct, frozen=True):
    """A section: its name, and where its bytes are in the file. ``used`` of ``size`` bytes mean something."""

    name: str
    offset: int
    size: int
    used: int


class PeFile(msgspec.Struct, frozen=True):
    """A program.

    Attributes:
        name: what errors call it.
        content: the file.
        headers: size of its headers.
        checksum: offset of the field that is not signed.
        directory: offset of the security directory's entry, which is not signed either.
        table: offset of the certificate table; the end of the file without one.
        table_size: bytes.
        sections: in the order of the file's headers.
    """

    name: str
    content: bytes
    headers: int
    checksum: int
    directory: int
    table: int
    table_size: int
    sections: tuple[Section, ...]

    def section(self, name: str) -> bytes | None:
        """The content of the section of that name without its padding; None when there is none."""
        for section in self.sections:
            if section.name == name:
                return self.content[section.offset : section.offset + section.used]
        return None

    def digest(self, algorithm: str = "sha256") -> bytes:
        """What a signature signs: everything but the checksum and the signatures."""
        done = hashlib.new(algorithm)
        view = memoryview(self.content)
        done.update(view[: self.checksum])
        done.update(view[self.checksum + 4 : self.directory])
        done.update(view[self.directory + 8 : self.headers])
        hashed = self.headers
        for section in sorted(self.sections, key=lambda section: section.offset):
            if section.size:
                done.update(view[section.offset : section.offset + section.size])
                hashed += section.size
        # Behind the sections: EDK2 counts from what was hashed, not from where the last section ends.
        done.update(view[hashed : len(self.content) - self.table_size])
        return done.digest()

    def signatures(self) -> tuple[bytes, ...]:
        """The PKCS #7 messages in the certificate table, in order.

        Raises:
            DamagedError: an entry reaches beyond the table.
        """
        found = []
        offset, end = self.table, self.table + self.table_size
        while offset + _CERTIFICATE.size <= end:
            size, _, kind = _CERTIFICATE.unpack_from(self.content, offset)
            if not _CERTIFICATE.size < size <= end - offset:
                raise _damaged(self.name, offset, "dwLength", f"at most {end - offset}", str(size))
            if kind == _PKCS_SIGNED_DATA:
                found.append(self.content[offset + _CERTIFICATE.size : offset + size])
            offset += (size + 7) // 8 * 8
        return tuple(found)


def parse_pe(content: bytes, *, name: str) -> PeFile:
    """A program from its bytes.

    Raises:
        DamagedError: it is no PE file, or one whose headers lead outside of it.
    """
    if len(content) > MAXIMUM_SIZE:
        raise DamagedError(f"{name} has {len(content)} bytes; expected at most {MAXIMUM_SIZE}.")
    start = _unpack("<I", content, _HEADER_POINTER, name, "e_lfanew")[0] if content[:2] == b"MZ" else len(content)
    if content[start : start + 4] != _MARK:
        raise _damaged(name, 0, "signature", "MZ and PE", content[:2].hex())
    coff = _unpack(_COFF.format, content, start + 4, name, "COFF header")
    count, optional_size = coff[1], coff[5]
    optional = start + 4 + _COFF.size
    magic = _unpack("<H", content, optional, name, "Magic")[0]
    if magic not in _DIRECTORIES:
        raise _damaged(name, optional, "Magic", "0x10b or 0x20b", f"{magic:#x}")
    if count > _MAXIMUM_SECTIONS:
        raise _damaged(name, start + 6, "NumberOfSections", f"at most {_MAXIMUM_SECTIONS}", str(count))
    headers = _unpack("<I", content, optional + _SIZE_OF_HEADERS, name, "SizeOfHeaders")[0]
    directories = optional + _DIRECTORIES[magic]
    directory = directories + 4 + 8 * _SECURITY_DIRECTORY
    table, table_size = len(content), 0
    if _unpack("<I", content, directories, name, "NumberOfRvaAndSizes")[0] <= _SECURITY_DIRECTORY:
        raise _damaged(name, directories, "NumberOfRvaAndSizes", "5 or more", "fewer")
    offset, size = _unpack("<II", content, directory, name, "security directory")
    if size:
        table, table_size = offset, size
    if not directory + 8 <= headers <= len(content):
        raise _damaged(name, optional + _SIZE_OF_HEADERS, "SizeOfHeaders", "within the file", str(headers))
    if table + table_size != len(content):
        raise _damaged(name, directory, "security directory", "the end of the file", f"{table}+{table_size}")
    names = coff[3] + coff[4] * _SYMBOL_SIZE if coff[3] else 0
    sections = _sections(content, optional + optional_size, count, names, name)
    return PeFile(name, content, headers, optional + _CHECKSUM, directory, table, table_size, sections)


def _sections(content: bytes, offset: int, count: int, names: int, name: str) -> tuple[Section, ...]:
    found = []
    for place in range(offset, offset + count * _SECTION.size, _SECTION.size):
        title, virtual, _, size, start, *_ = _unpack(_SECTION.format, content, place, name, "section header")
        if size and start + size > len(content):
            raise _damaged(name, place, "SizeOfRawData", f"within {len(content)} bytes", f"{start}+{size}")
        found.append(Section(_section_name(title, content, names), start, size, min(virtual, size)))
    return tuple(found)


def _section_name(title: bytes, content: bytes, names: int) -> str:
    """The name; one of more than 8 letters lies in the string table at ``names``, and ``/OFFSET`` stands for it."""
    text = title.rstrip(b"\0")
    if names and text[:1] == b"/" and text[1:].isdigit():
        start = names + int(text[1:])
        text = content[start : start + _LONGEST_NAME].split(b"\0", 1)[0]
    return text.decode("ascii", "replace")


def _unpack(form: str, content: bytes, offset: int, name: str, field: str) -> tuple[Any, ...]:
    if offset < 0 or offset + struct.calcsize(form) > len(content):
        raise _damaged(name, offset, field, f"{struct.calcsize(form)} bytes", "the end of the file")
    return struct.unpack_from(form, content, offset)


def _damaged(name: str, offset: int, field: str, expected: str, found: str) -> DamagedError:
    return DamagedError(f"{name}: at byte {offset}, {field}: expected {expected}, found {found}.")
