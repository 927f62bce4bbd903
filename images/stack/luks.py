"""The header of a LUKS container: what it is, where its data begin, whether it can be followed. Opens nothing.

LUKS1: "LUKS On-Disk Format Specification" 1.2.3, section 2; LUKS2: "LUKS2 On-Disk Format Specification" 1.1.2,
sections 2 and 3 (both gitlab.com/cryptsetup/cryptsetup/docs).
"""

import hashlib
import struct

import msgspec

from images.sources import BlockSource

MAGIC = b"LUKS\xba\xbe"
_SECOND_MAGIC = b"SKUL\xba\xbe"
_BINARY = 4096
#: The sizes of a LUKS2 header area that the specification knows end with 4 MiB (section 2.2).
_HEADER_LIMIT = 4 << 20
_LUKS1 = struct.Struct(">6sH32s32s32sII20s32sI40s")
_LUKS2 = struct.Struct(">6sHQQ48s32s64s40s48sQ184x64s")
_SECTOR = 512


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What the header says.

    Attributes:
        version, uuid, label, payload_offset, sector_size: as in :class:`images.model.stack.Luks`.
        size: bytes of the encrypted data; 0 for all up to the end of the device.
        oddity: why the container cannot be followed; empty when it can.
    """

    version: int
    uuid: str
    payload_offset: int
    sector_size: int = _SECTOR
    size: int = 0
    label: str = ""
    oddity: str = ""


class _Segment(msgspec.Struct, frozen=True):
    type: str
    offset: str = "0"
    size: str = "dynamic"
    sector_size: int = _SECTOR
    integrity: msgspec.Raw | None = None


class _Requirements(msgspec.Struct, frozen=True):
    mandatory: tuple[str, ...] = ()


class _Config(msgspec.Struct, frozen=True):
    requirements: _Requirements = _Requirements()


class _Metadata(msgspec.Struct, frozen=True):
    segments: dict[str, _Segment]
    config: _Config = _Config()


class _Binary(msgspec.Struct, frozen=True):
    """One copy of a LUKS2 header: its binary part, and the JSON behind it."""

    sequence: int
    size: int
    uuid: str
    label: str
    metadata: bytes


def read_header(source: BlockSource) -> Header | None:
    """The header of the container; None when there is none, or none that is sound.

    Raises:
        DeviceError: it cannot be read.
    """
    if source.size < _BINARY:
        return None
    start = source.read_at(0, _BINARY)
    if not start.startswith(MAGIC):
        return None
    version = int.from_bytes(start[6:8], "big")
    if version == 1:
        return _luks1(start)
    return _luks2(source) if version == 2 else None


def _luks1(start: bytes) -> Header | None:
    _, _, _, _, _, payload, _, _, _, _, uuid = _LUKS1.unpack_from(start)
    # 0 is a header that was detached from its data: section 2 has the payload behind the key material.
    oddity = "" if payload else "its header was made to lie elsewhere"
    return Header(version=1, uuid=_text(uuid), payload_offset=payload * _SECTOR, oddity=oddity)


def _luks2(source: BlockSource) -> Header | None:
    first = _copy(source, 0, MAGIC)
    if first is None:
        return None
    try:
        metadata = msgspec.json.decode(first.metadata, type=_Metadata)
        segment = next(iter(metadata.segments.values()))
        offset, size = int(segment.offset), 0 if segment.size == "dynamic" else int(segment.size)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, StopIteration, ValueError):
        return None
    return Header(
        version=2,
        uuid=first.uuid,
        payload_offset=offset,
        sector_size=segment.sector_size,
        size=size,
        label=first.label,
        oddity=_oddity(source, first, metadata, segment),
    )


def _oddity(source: BlockSource, first: _Binary, metadata: _Metadata, segment: _Segment) -> str:
    second = _copy(source, first.size, _SECOND_MAGIC)
    if second is None or second.sequence != first.sequence:
        # cryptsetup would write the good copy over the bad one when it opens it: that is not ours to do to a source.
        return "the two copies of its header differ"
    if metadata.config.requirements.mandatory:
        return f"it asks for {', '.join(metadata.config.requirements.mandatory)}"
    if len(metadata.segments) != 1 or segment.type != "crypt":
        return "it has other segments than one that is encrypted"
    return "it keeps integrity tags" if segment.integrity is not None else ""


def _copy(source: BlockSource, offset: int, magic: bytes) -> _Binary | None:
    """One of the two copies, when its checksum agrees."""
    if offset + _BINARY > source.size:
        return None
    start = source.read_at(offset, _BINARY)
    found, version, size, sequence, label, algorithm, _, uuid, _, own, checksum = _LUKS2.unpack_from(start)
    if found != magic or version != 2 or own != offset or not _BINARY < size <= _HEADER_LIMIT:
        return None
    if offset + size > source.size or _text(algorithm) != "sha256":
        return None
    whole = bytearray(source.read_at(offset, size))
    whole[448:512] = bytes(64)
    if hashlib.sha256(whole).digest() != checksum[:32]:
        return None
    metadata = bytes(whole[_BINARY:]).split(b"\0", 1)[0]
    return _Binary(sequence, size, _text(uuid), _text(label), metadata)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")
