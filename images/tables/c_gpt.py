"""The GPT structures as they lie on disk (UEFI specification 2.10, section 5.3).

Parsing only: whether the numbers can be believed is decided in ``gpt.py``.
"""

import struct
from uuid import UUID

import msgspec

SIGNATURE = b"EFI PART"

#: Bytes of the header that carry meaning; ``header_size`` may name more, up to a sector.
HEADER_SIZE = 92
#: Offset of the header's own CRC, taken as zero while it is computed.
HEADER_CRC_OFFSET = 16
#: Bytes of the part of an entry that is defined; entries may be longer.
ENTRY_SIZE = 128

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
    """One partition entry. ``last_lba`` is inclusive, as on disk."""

    type: UUID
    uuid: UUID
    first_lba: int
    last_lba: int
    attributes: int
    name: str


def parse_header(content: bytes) -> Header:
    """The header at the start of ``content`` (at least 92 bytes)."""
    fields = list(_HEADER.unpack_from(content))
    fields[9] = UUID(bytes_le=fields[9])
    return Header(*fields)


def parse_entry(content: bytes, offset: int) -> Entry:
    """The entry at ``offset`` of the entry array.

    A name that is not valid UTF-16 keeps its readable characters: firmware and tools ignore names,
    so a bad one is no reason to lose the disk.
    """
    kind, unique, first, last, attributes, name = _ENTRY.unpack_from(content, offset)
    text = name.decode("utf-16-le", errors="replace").split("\0", 1)[0]
    return Entry(UUID(bytes_le=kind), UUID(bytes_le=unique), first, last, attributes, text)
