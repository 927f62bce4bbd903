"""The GPT structures as they lie on disk (UEFI specification 2.10, section 5.3).

Parsing and packing only: whether the numbers can be believed is decided in ``gpt.py``.
"""

import struct
import zlib
from uuid import UUID

import msgspec

SIGNATURE = b"EFI PART"
REVISION = b"\x00\x00\x01\x00"

#: Bytes of the header that carry meaning; ``header_size`` may name more, up to a sector.
HEADER_SIZE = 92
#: Offset of the header's own CRC, taken as zero while it is computed.
HEADER_CRC_OFFSET = 16
#: Bytes of the part of an entry that is defined; entries may be longer.
ENTRY_SIZE = 128
#: Bytes of the name in an entry.
NAME_SIZE = 72
#: Bytes of an entry array that are read or made at most: 8192 entries of 128 bytes, far above any real disk.
MAX_ENTRIES_SIZE = 1 << 20

_HEADER = struct.Struct("<8s4sIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")

UNUSED_TYPE = UUID(int=0)
ESP_TYPE = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS_BOOT_TYPE = UUID("21686148-6449-6e6f-744e-656564454649")
MSR_TYPE = UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae")
RECOVERY_TYPE = UUID("de94bba4-06d1-4d40-a16a-bfd50179d6ac")


class Header(msgspec.Struct, frozen=True):
    """The fields of a header, in the order of the specification. LBAs are sectors, sizes bytes."""

    signature: bytes
    revision: bytes
    header_size: int
    header_crc: int
    reserved: int
    my_lba: int
    alternate_lba: int
    first_usable_lba: int
    last_usable_lba: int
    disk_guid: UUID
    entries_lba: int
    entry_count: int
    entry_size: int
    entries_crc: int


class Entry(msgspec.Struct, frozen=True):
    """One partition entry. ``last_lba`` is inclusive, as on disk; ``name`` is the field's 72 bytes."""

    type: UUID
    uuid: UUID
    first_lba: int
    last_lba: int
    attributes: int
    name: bytes


def parse_header(content: bytes) -> Header:
    """The header at the start of ``content`` (at least 92 bytes)."""
    fields = list(_HEADER.unpack_from(content))
    fields[9] = UUID(bytes_le=fields[9])
    return Header(*fields)


def pack_header(header: Header) -> bytes:
    """A header of 92 bytes with its own checksum; what ``header`` says of its size and checksum does not count."""

    def packed(checksum: int) -> bytes:
        return _HEADER.pack(
            header.signature,
            header.revision,
            HEADER_SIZE,
            checksum,
            header.reserved,
            header.my_lba,
            header.alternate_lba,
            header.first_usable_lba,
            header.last_usable_lba,
            header.disk_guid.bytes_le,
            header.entries_lba,
            header.entry_count,
            header.entry_size,
            header.entries_crc,
        )

    return packed(zlib.crc32(packed(0)))


def header_checksum(content: bytes, size: int) -> int:
    """The checksum of the header of ``size`` bytes at the start of ``content``."""
    covered = bytearray(content[:size])
    struct.pack_into("<I", covered, HEADER_CRC_OFFSET, 0)
    return zlib.crc32(covered)


def parse_entry(content: bytes, offset: int) -> Entry:
    """The entry at ``offset`` of the entry array."""
    kind, unique, first, last, attributes, name = _ENTRY.unpack_from(content, offset)
    return Entry(UUID(bytes_le=kind), UUID(bytes_le=unique), first, last, attributes, name)


def pack_entry(entry: Entry) -> bytes:
    """The 128 bytes of an entry."""
    return _ENTRY.pack(
        entry.type.bytes_le, entry.uuid.bytes_le, entry.first_lba, entry.last_lba, entry.attributes, entry.name
    )


def decode_name(field: bytes) -> str:
    """The name in a field of 72 bytes.

    A name that is not valid UTF-16 keeps its readable characters: firmware and tools ignore names,
    so a bad one is no reason to lose the disk.
    """
    return field.decode("utf-16-le", errors="replace").split("\0", 1)[0]


def encode_name(name: str) -> bytes | None:
    """The field of 72 bytes for a name; None when it has more than 36 UTF-16 units."""
    field = name.encode("utf-16-le", "surrogatepass")
    return field.ljust(NAME_SIZE, b"\0") if len(field) <= NAME_SIZE else None
