"""The label of an LVM physical volume and the metadata area behind it: whose it is, and LVM's text of its group.

As in LVM2's sources, ``lib/label/label.h`` and ``lib/format_text/layout.h``. A reader of bytes: the text is parsed in
``lvm_text.py``, and nothing is activated.
"""

import itertools
import struct
import zlib

import msgspec

from images.sources import BlockSource

_SECTOR = 512
_LABEL = struct.Struct("<8sQII8s")
_PV = struct.Struct("<32sQ")
_AREA = struct.Struct("<QQ")
_AREA_HEADER = struct.Struct("<I16sIQQ")
_LOCATION = struct.Struct("<QQII")
_AREA_MAGIC = b" LVM2 x[5A%r0N*>"
_IGNORED = 1
#: More than LVM makes areas of any size for; the text itself is far smaller.
_TEXT_LIMIT = 16 << 20
_LOCATION_LIMIT = 64


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a physical volume says of itself.

    Attributes:
        uuid: as LVM spells it. size: bytes.
        texts: the text of each of its metadata areas that is in use and sound; none on a volume that keeps no copy.
        metadata_areas: how many it has, in use and sound or not.
    """

    uuid: str
    size: int
    texts: tuple[str, ...]
    metadata_areas: int


def read_label(source: BlockSource) -> Label | None:
    """The label of a physical volume, in one of the first four sectors; None when there is none that is sound.

    Raises:
        DeviceError: it cannot be read.
    """
    if source.size < 4 * _SECTOR:
        return None
    start = source.read_at(0, 4 * _SECTOR)
    for number in range(4):
        sector = start[number * _SECTOR : (number + 1) * _SECTOR]
        magic, own, checksum, offset, kind = _LABEL.unpack_from(sector)
        if (magic, own, kind) != (b"LABELONE", number, b"LVM2 001") or checksum != lvm_crc(sector[20:]):
            continue
        if not _LABEL.size <= offset <= _SECTOR - _PV.size:
            continue
        uuid, size = _PV.unpack_from(sector, offset)
        areas = _metadata_areas(sector, offset + _PV.size)
        texts = tuple(text for area in areas if (text := _area_text(source, *area)))
        return Label(uuid=spell(uuid), size=size, texts=texts, metadata_areas=len(areas))
    return None


def spell(uuid: bytes) -> str:
    """LVM's spelling of its 32 letters."""
    text = uuid.decode("ascii", "replace")
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(text[start:end] for start, end in itertools.pairwise(cuts))


def lvm_crc(data: bytes) -> int:
    """``calc_crc`` of lib/misc/crc.c: CRC-32 that begins with 0xf597a6cf and is not inverted."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _metadata_areas(sector: bytes, offset: int) -> list[tuple[int, int]]:
    """Offset and size of the metadata areas: a list of data areas comes first, each list ends with zeros."""
    found: list[tuple[int, int]] = []
    lists = 0
    while lists < 2 and offset + _AREA.size <= _SECTOR and len(found) < _LOCATION_LIMIT:
        start, size = _AREA.unpack_from(sector, offset)
        offset += _AREA.size
        if start == 0:
            lists += 1
        elif lists == 1:
            found.append((start, size))
    return found


def _area_text(source: BlockSource, start: int, size: int) -> str:
    """The text that is in force in a metadata area, a ring of bytes behind its header; empty when none is sound."""
    if size <= _SECTOR or start + size > source.size:
        return ""
    header = source.read_at(start, _SECTOR)
    checksum, magic, _, own, own_size = _AREA_HEADER.unpack_from(header)
    if magic != _AREA_MAGIC or (own, own_size) != (start, size) or checksum != lvm_crc(header[4:]):
        return ""
    offset, length, text_checksum, flags = _LOCATION.unpack_from(header, _AREA_HEADER.size)
    if flags & _IGNORED or not _SECTOR <= offset < size or not 0 < length <= min(size - _SECTOR, _TEXT_LIMIT):
        return ""
    first = min(length, size - offset)
    data = source.read_at(start + offset, first)
    if first < length:
        data += source.read_at(start + _SECTOR, length - first)
    return data.rstrip(b"\0").decode(errors="replace") if lvm_crc(data) == text_checksum else ""
