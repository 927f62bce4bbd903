"""The dos structures as they lie on disk: a boot record's four entries, its disk signature and the old geometry.

Parsing and packing only: whether the numbers can be believed is decided in ``dos.py`` and ``boot_records.py``.
Sources: UEFI specification 2.10, table 5-1; kernel, include/linux/msdos_partition.h.
"""

import struct

import msgspec

#: Bytes of a boot record, at any sector size, and where its parts lie.
RECORD_SIZE = 512
BOOT_CODE_SIZE = 440
TABLE_OFFSET = 446
ENTRY_SIZE = 16
MARK_OFFSET = 510
MARK = b"\x55\xaa"
#: What belongs to the table: disk signature, two bytes for copy protection, entries, mark.
TAIL_SIZE = RECORD_SIZE - BOOT_CODE_SIZE

PROTECTIVE_TYPE = 0xEE
EXTENDED_TYPES = frozenset({0x05, 0x0F, 0x85})
ESP_TYPE = 0xEF
ACTIVE = 0x80
#: Numbers and counts in an entry are 32 bits wide.
LBA_LIMIT = 1 << 32

_ENTRY = struct.Struct("<B3sB3sII")
#: The geometry that everybody has counted cylinders by since disks had none; places behind it have one spelling.
_HEADS, _TRACK, _CYLINDERS = 255, 63, 1024
_FAR = b"\xfe\xff\xff"


class Entry(msgspec.Struct, frozen=True):
    """One of the four entries of a boot record. ``start`` and ``count`` are sectors, CHS as three raw bytes."""

    status: int
    first_chs: bytes
    type: int
    last_chs: bytes
    start: int
    count: int

    @property
    def used(self) -> bool:
        return self.type != 0 and self.count != 0

    @property
    def extended(self) -> bool:
        return self.used and self.type in EXTENDED_TYPES


EMPTY = Entry(0, bytes(3), 0, bytes(3), 0, 0)


def entry_offset(index: int) -> int:
    """Where in its record the entry with that index (from 0) lies."""
    return TABLE_OFFSET + ENTRY_SIZE * index


def parse_entries(record: bytes) -> list[Entry]:
    """The four entries of a boot record."""
    return [Entry(*_ENTRY.unpack_from(record, entry_offset(index))) for index in range(4)]


def pack_entry(entry: Entry) -> bytes:
    """The 16 bytes of an entry."""
    return _ENTRY.pack(entry.status, entry.first_chs, entry.type, entry.last_chs, entry.start, entry.count)


def entry_at(lba: int, count: int, kind: int, *, relative_to: int = 0, active: bool = False) -> Entry:
    """An entry for ``count`` sectors from ``lba``, whose start counts from LBA ``relative_to``."""
    status = ACTIVE if active else 0
    return Entry(status, chs(lba), kind, chs(lba + count - 1), lba - relative_to, count)


def chs(lba: int) -> bytes:
    """Head, sector with the high bits of the cylinder, and cylinder of a place, by 255 heads and 63 sectors."""
    cylinder, rest = divmod(lba, _HEADS * _TRACK)
    if cylinder >= _CYLINDERS:
        return _FAR
    return bytes((rest // _TRACK, rest % _TRACK + 1 | cylinder >> 2 & 0xC0, cylinder & 0xFF))
