"""The byte structures of packs: header and record (docs/image-format.md §4).

Bytes in, facts out: no file is opened here.
"""

import os
import struct
import zlib
from enum import IntEnum

import msgspec
import zstandard
from blake3 import blake3

from core.errors import DamagedError
from core.units import KIB, MIB
from images.store.xaes import NONCE_SIZE, TAG_SIZE, XaesKey

PACK_MAGIC = b"LRPK"
PACK_HEADER_SIZE = 64
PACK_VERSION = 1
PACK_SIZE_LIMIT = 1 << 30

RECORD_MAGIC = b"LRCK"
RECORD_HEADER_SIZE = 80
PLAIN_LIMIT = 16 * MIB
PAYLOAD_LIMIT = 16 * MIB + 64 * KIB

ID_SIZE = 32

_PACK = struct.Struct("<4sI16s16s24x")
_RECORD = struct.Struct("<4sBBBxII32s24s4x")
_CRC = struct.Struct("<I")


class RecordKind(IntEnum):
    """What a record holds."""

    CHUNK = 0
    PAGE = 1


class Codec(IntEnum):
    """How the payload is compressed."""

    STORED = 0
    ZSTANDARD = 1


class Cipher(IntEnum):
    """How the payload is sealed; 1 stays reserved for XChaCha20-Poly1305."""

    NONE = 0
    XAES_256_GCM = 2


class RecordHeader(msgspec.Struct, frozen=True):
    """The header of a record. Lengths in bytes; ``nonce`` has 24, zero without a cipher."""

    kind: RecordKind
    codec: Codec
    cipher: Cipher
    payload_length: int
    plain_length: int
    id: bytes
    nonce: bytes


def chunk_id(plain: bytes | bytearray | memoryview) -> bytes:
    """The 32-byte id of plain content in a repository that is not encrypted; also the digest of files."""
    return blake3(plain).digest()


def encode_pack_header(repository: bytes, pack: bytes) -> bytes:
    """The 64 bytes a pack starts with; both ids have 16 bytes."""
    return _PACK.pack(PACK_MAGIC, PACK_VERSION, repository, pack)


def check_pack_header(data: bytes, repository: bytes, pack: bytes, name: str) -> None:
    """Raise DamagedError unless ``data`` is the header of that pack of that repository."""
    magic, version, found_repository, found_pack = _PACK.unpack(data)
    for field, offset, expected, found in (
        ("magic", 0, PACK_MAGIC, magic),
        ("version", 4, PACK_VERSION, version),
        ("repository id", 8, repository, found_repository),
        ("pack id", 24, pack, found_pack),
    ):
        if expected != found:
            raise DamagedError(f"{name}, offset {offset}: {field} is {_show(found)}, expected {_show(expected)}.")


def encode_record(
    kind: RecordKind, identifier: bytes, plain_length: int, codec: Codec, payload: bytes, key: XaesKey | None
) -> tuple[bytes, bytes]:
    """A record as it lies in a pack: its header and what follows it, sealed when there is a key."""
    cipher = Cipher.NONE if key is None else Cipher.XAES_256_GCM
    nonce = bytes(NONCE_SIZE) if key is None else os.urandom(NONCE_SIZE)
    length = len(payload) + (0 if key is None else TAG_SIZE)
    head = _RECORD.pack(RECORD_MAGIC, kind, codec, cipher, length, plain_length, identifier, nonce)
    if key is not None:
        _, payload = key.seal(payload, head, nonce)
    return head + _CRC.pack(zlib.crc32(head)), payload


def decode_record(data: bytes | memoryview, where: str) -> RecordHeader:
    """The header in the first 80 bytes of ``data``.

    Raises:
        DamagedError: naming ``where``, the field, what was expected and what was found.
    """
    if len(data) < RECORD_HEADER_SIZE:
        raise DamagedError(f"{where}: the record header has {len(data)} bytes, expected {RECORD_HEADER_SIZE}.")
    magic, kind, codec, cipher, payload_length, plain_length, identifier, nonce = _RECORD.unpack_from(data)
    if magic != RECORD_MAGIC:
        raise DamagedError(f"{where}: record magic is {_show(magic)}, expected {_show(RECORD_MAGIC)}.")
    found = zlib.crc32(data[: _RECORD.size])
    (expected,) = _CRC.unpack_from(data, _RECORD.size)
    if found != expected:
        raise DamagedError(f"{where}: record header checksum is {found:08x}, expected {expected:08x}.")
    try:
        known_kind, known_codec, known_cipher = RecordKind(kind), Codec(codec), Cipher(cipher)
    except ValueError:
        raise DamagedError(
            f"{where}: kind {kind}, codec {codec}, cipher {cipher} are not known to this version."
        ) from None
    if not 0 < plain_length <= PLAIN_LIMIT or not 0 < payload_length <= PAYLOAD_LIMIT:
        raise DamagedError(f"{where}: lengths {payload_length} and {plain_length} are out of bounds.")
    return RecordHeader(known_kind, known_codec, known_cipher, payload_length, plain_length, identifier, nonce)


def unseal(data: bytes | memoryview, header: RecordHeader, key: XaesKey | None, where: str) -> bytes | memoryview:
    """The compressed payload of the record that ``data`` begins with.

    Raises:
        DamagedError: it was altered, or is sealed in a plain repository, or not sealed in an encrypted one: such a
            record did not come from anyone who has the key.
    """
    payload = memoryview(data)[RECORD_HEADER_SIZE : RECORD_HEADER_SIZE + header.payload_length]
    if len(payload) != header.payload_length:
        raise DamagedError(f"{where}: the record has {len(payload)} bytes of {header.payload_length}.")
    if (key is None) != (header.cipher is Cipher.NONE):
        raise DamagedError(f"{where}: cipher {header.cipher.value} does not belong into this repository.")
    if key is None:
        return payload
    return key.open(header.nonce, payload, bytes(data[: _RECORD.size]), where)


def decompress(
    header: RecordHeader, payload: bytes | memoryview, decompressor: zstandard.ZstdDecompressor, where: str
) -> bytes:
    """The plain content, of exactly the promised length; whoever calls proves it by its id.

    Raises:
        DamagedError: it does not decompress to the promised length.
    """
    if header.codec is Codec.ZSTANDARD:
        try:
            if zstandard.frame_content_size(payload) != header.plain_length:
                raise DamagedError(f"{where}: the compressed frame does not promise {header.plain_length} bytes.")
            plain = decompressor.decompress(payload, max_output_size=header.plain_length)
        except zstandard.ZstdError as error:
            raise DamagedError(f"{where}: the chunk does not decompress: {error}.") from None
    else:
        plain = bytes(payload)
    if len(plain) != header.plain_length:
        raise DamagedError(f"{where}: the chunk has {len(plain)} bytes, expected {header.plain_length}.")
    return plain


def decompress_into(
    header: RecordHeader,
    payload: bytes | memoryview,
    decompressor: zstandard.ZstdDecompressor,
    room: memoryview,
    where: str,
) -> memoryview:
    """As :func:`decompress`, into the beginning of ``room``, without a copy on the way.

    Returns:
        the part of ``room`` that holds the plain content.

    Raises:
        DamagedError: it does not decompress to the promised length, or that is more than ``room`` has.
    """
    if header.plain_length > len(room):
        raise DamagedError(f"{where}: the chunk has {header.plain_length} bytes, at most {len(room)} belong here.")
    if header.codec is not Codec.ZSTANDARD:
        plain = decompress(header, payload, decompressor, where)
        room[: len(plain)] = plain
        return room[: len(plain)]
    room = room[: header.plain_length]
    try:
        if zstandard.frame_content_size(payload) != header.plain_length:
            raise DamagedError(f"{where}: the compressed frame does not promise {header.plain_length} bytes.")
        with decompressor.stream_reader(payload) as reader:
            found = reader.readinto(room)
    except zstandard.ZstdError as error:
        raise DamagedError(f"{where}: the chunk does not decompress: {error}.") from None
    if found != header.plain_length:
        raise DamagedError(f"{where}: the chunk has {found} bytes, expected {header.plain_length}.")
    return room


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
