"""On-disk structures of NTFS: boot sector, protected records, attributes. Parsing and bounds only.

Formats: the Linux kernel's fs/ntfs3/ntfs.h and ntfs-3g's include/ntfs-3g/layout.h. What is to be believed is
decided in ``ntfs.py``.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag

import msgspec

from core.errors import DamagedError

MAGIC = b"NTFS    "
#: The update sequence protects steps of 512 bytes, whatever the sector size.
STRIDE = 512
MAX_CLUSTER = 2 << 20
MAX_RECORD = 64 << 10


class SystemFile(IntEnum):
    """Numbers of the records whose place in the MFT is fixed; only those with a part to play here."""

    MFT = 0
    MIRROR = 1
    LOG = 2
    VOLUME = 3
    ROOT = 5
    BITMAP = 6
    BOOT = 7


class AttributeType(IntEnum):
    """Kinds of attributes that are read, and the bounds of all kinds."""

    FIRST = 0x10
    LIST = 0x20
    FILE_NAME = 0x30
    VOLUME_NAME = 0x60
    VOLUME_INFORMATION = 0x70
    DATA = 0x80
    INDEX_ROOT = 0x90
    INDEX_ALLOCATION = 0xA0
    BITMAP = 0xB0
    LAST = 0x1000
    END = 0xFFFFFFFF


class VolumeFlag(IntFlag):
    """Flags of $Volume that are judged. Windows 8 and newer keep 0x80 set on sound volumes."""

    DIRTY = 0x1
    CHKDSK_UNDERWAY = 0x4000


class BootSector(msgspec.Struct, frozen=True, kw_only=True):
    """The boot sector, bounds checked. Sizes in bytes unless named otherwise.

    Attributes:
        sector_count: sectors of the volume, without the copy of the boot sector that follows them.
        mft_lcn, mirror_lcn: cluster numbers where $MFT and $MFTMirr begin.
        record_size: of an MFT record.
    """

    sector_size: int
    cluster_size: int
    sector_count: int
    mft_lcn: int
    mirror_lcn: int
    record_size: int

    @property
    def size(self) -> int:
        return self.sector_count * self.sector_size

    @property
    def clusters(self) -> int:
        """Whole clusters; the sectors left over belong to none."""
        return self.size // self.cluster_size


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """One attribute of a record, or one segment of it.

    Attributes:
        value: the content of a resident attribute; None when it lies in clusters.
        first_vcn, last_vcn: which of the attribute's clusters this segment maps.
        pairs: its mapping pairs.
        size, initialized: bytes; what lies behind ``initialized`` reads as zeros. Valid in the first segment.
    """

    type: int
    name: str
    flags: int
    value: bytes | None = None
    first_vcn: int = 0
    last_vcn: int = -1
    pairs: bytes = b""
    size: int = 0
    initialized: int = 0


class ListEntry(msgspec.Struct, frozen=True):
    """An entry of $ATTRIBUTE_LIST: in which record an attribute's segment lies."""

    type: int
    name: str
    first_vcn: int
    reference: int


def parse_boot_sector(sector: bytes) -> BootSector:
    """The fields in the first 512 bytes of a volume.

    Raises:
        DamagedError: one of them is outside its bounds.
    """
    sector_size, per_cluster = struct.unpack_from("<HB", sector, 11)
    sector_count, mft_lcn, mirror_lcn, per_record = struct.unpack_from("<QQQb", sector, 40)
    if any(sector[14:21]) or any(sector[22:24]) or any(sector[32:36]):
        raise DamagedError("its boot sector is damaged: fields of FAT's boot sector are not zero")
    if sector_size not in (512, 1024, 2048, 4096):
        raise DamagedError(f"its boot sector is damaged: its sectors have {sector_size} bytes")
    # clusters of more than 128 sectors are written as a negative power of two (Windows 10 1709 and newer)
    sectors = 1 << (256 - per_cluster) if per_cluster >= 0xF4 else per_cluster
    cluster_size = sectors * sector_size
    if sectors.bit_count() != 1 or cluster_size > MAX_CLUSTER:
        raise DamagedError(f"its boot sector is damaged: its clusters have {per_cluster:#x} sectors")
    boot = BootSector(
        sector_size=sector_size,
        cluster_size=cluster_size,
        sector_count=sector_count,
        mft_lcn=mft_lcn,
        mirror_lcn=mirror_lcn,
        record_size=_record_size(per_record, cluster_size),
    )
    if not boot.clusters:
        raise DamagedError(f"its boot sector is damaged: it has {sector_count} sectors")
    for name, lcn in (("$MFT", mft_lcn), ("$MFTMirr", mirror_lcn)):
        if lcn >= boot.clusters:
            raise DamagedError(f"its boot sector is damaged: {name} begins at cluster {lcn} of {boot.clusters}")
    return boot


def _record_size(clusters: int, cluster_size: int) -> int:
    """Bytes of an MFT record: so many clusters or, negative, a power of two."""
    size = clusters * cluster_size if clusters > 0 else 1 << min(-clusters, 31)
    if not is_protected_size(size):
        raise DamagedError(f"its boot sector is damaged: its MFT records have {size} bytes")
    return size


def is_protected_size(size: int) -> bool:
    """Whether a record or an index block may have so many bytes."""
    return size.bit_count() == 1 and STRIDE <= size <= MAX_RECORD


def serial_of(sector: bytes) -> str:
    """The volume serial number as libblkid spells it; empty when it is zero."""
    (serial,) = struct.unpack_from("<Q", sector, 72)
    return f"{serial:016X}" if serial else ""


def unprotect(content: bytes, magic: bytes, name: str) -> bytes:
    """A record with its update sequence undone.

    Args:
        magic: its first four bytes; ``name``: what the record is, for the error.

    Raises:
        DamagedError: it has another magic, or its sectors were not written together.
    """
    if content[:4] != magic:
        raise DamagedError(f"{name} begins with {content[:4]!r} instead of {magic!r}")
    offset, count = struct.unpack_from("<HH", content, 4)
    steps = len(content) // STRIDE
    if count != steps + 1 or offset & 1 or not 8 <= offset <= STRIDE - 2 - 2 * count:
        raise DamagedError(f"{name} has an update sequence of {count} words at {offset}")
    number = content[offset : offset + 2]
    restored = bytearray(content)
    for step in range(steps):
        end = (step + 1) * STRIDE
        if content[end - 2 : end] != number:
            raise DamagedError(f"{name} is torn: its sector {step} was not written with the others")
        restored[end - 2 : end] = content[offset + 2 + 2 * step : offset + 4 + 2 * step]
    return bytes(restored)


def parse_attributes(record: bytes, name: str) -> Iterator[Attribute]:
    """The attributes of an unprotected MFT record.

    Raises:
        DamagedError: a length or an offset is outside the record, or the attributes are not in order of their types.
    """
    (offset,) = struct.unpack_from("<H", record, 20)
    used, size = struct.unpack_from("<II", record, 24)
    if size != len(record) or used > size:
        raise DamagedError(f"{name} claims to use {used} of {size} bytes, but has {len(record)}")
    previous = AttributeType.FIRST
    while offset + 4 <= used:
        (kind,) = struct.unpack_from("<I", record, offset)
        if kind == AttributeType.END:
            return
        if kind % 0x10 or not previous <= kind <= AttributeType.LAST:
            raise DamagedError(f"{name} has an attribute of type {kind:#x} behind one of {previous:#x}")
        length = struct.unpack_from("<I", record, offset + 4)[0] if offset + 8 <= used else 0
        nonresident = offset + 9 <= used and record[offset + 8]
        if offset % 8 or length % 8 or length < (64 if nonresident else 24) or offset + length > used:
            raise DamagedError(f"{name} has an attribute of {length} bytes at {offset}")
        yield _parse_attribute(record[offset : offset + length], kind, f"{name}, attribute {kind:#x},")
        previous = kind
        offset += length
    raise DamagedError(f"the attributes of {name} do not end")


def _parse_attribute(content: bytes, kind: int, name: str) -> Attribute:
    nonresident, name_length, name_offset, flags = struct.unpack_from("<BBHH", content, 8)
    name_end = name_offset + 2 * name_length
    if name_end > len(content):
        raise DamagedError(f"{name} has a name outside it")
    own_name = content[name_offset:name_end].decode("utf-16-le", errors="replace") if name_length else ""
    if not nonresident:
        length, offset = struct.unpack_from("<IH", content, 16)
        if offset + length > len(content):
            raise DamagedError(f"{name} has a value outside it")
        value = content[offset : offset + length]
        return Attribute(type=kind, name=own_name, flags=flags, value=value, size=length, initialized=length)
    first_vcn, last_vcn, pairs_offset = struct.unpack_from("<QqH", content, 16)
    size, initialized = struct.unpack_from("<QQ", content, 48)
    if not 64 <= pairs_offset < len(content):
        raise DamagedError(f"{name} has mapping pairs outside it")
    return Attribute(
        type=kind,
        name=own_name,
        flags=flags,
        first_vcn=first_vcn,
        last_vcn=last_vcn,
        pairs=content[pairs_offset:],
        size=size,
        initialized=initialized,
    )


def parse_list(content: bytes, name: str) -> Iterator[ListEntry]:
    """The entries of an $ATTRIBUTE_LIST.

    Raises:
        DamagedError: an entry is outside the list.
    """
    offset = 0
    while offset + 26 <= len(content):
        kind, length, name_length, name_offset, first_vcn, reference = struct.unpack_from("<IHBBQQ", content, offset)
        end = offset + length
        if length < 26 or end > len(content) or (name_length and name_offset + 2 * name_length > length):
            raise DamagedError(f"the attribute list of {name} has an entry of {length} bytes at {offset}")
        start = offset + name_offset
        own_name = content[start : start + 2 * name_length].decode("utf-16-le", errors="replace")
        yield ListEntry(kind, own_name, first_vcn, reference)
        offset = end
