import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DamagedError
from images.store.records import (
    RECORD_HEADER_SIZE,
    Codec,
    RecordKind,
    chunk_id,
    decode_payload,
    decode_record,
    encode_record,
)


def test_the_id_is_blake3() -> None:
    # BLAKE3's published test vector for the empty input.
    assert chunk_id(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@given(st.binary(min_size=1, max_size=5000), st.booleans())
def test_round_trip(plain: bytes, compress: bool) -> None:
    payload = zstandard.compress(plain) if compress else plain
    codec = Codec.ZSTANDARD if compress else Codec.STORED
    data = encode_record(RecordKind.CHUNK, chunk_id(plain), len(plain), codec, payload) + payload
    header = decode_record(data, "here")
    assert decode_payload(header, data[RECORD_HEADER_SIZE:], zstandard.ZstdDecompressor(), "here") == plain


@given(st.integers(0, RECORD_HEADER_SIZE - 1), st.integers(1, 255))
def test_every_changed_header_byte_is_noticed(at: int, flip: int) -> None:
    data = bytearray(encode_record(RecordKind.CHUNK, chunk_id(b"x"), 1, Codec.STORED, b"x"))
    data[at] ^= flip
    with pytest.raises(DamagedError, match="here"):
        decode_record(bytes(data), "here")


@given(st.integers(0, 99), st.integers(1, 255))
def test_every_changed_payload_byte_is_noticed(at: int, flip: int) -> None:
    plain = bytes(range(100))
    header = decode_record(encode_record(RecordKind.CHUNK, chunk_id(plain), 100, Codec.STORED, plain), "here")
    payload = bytearray(plain)
    payload[at] ^= flip
    with pytest.raises(DamagedError, match="digest"):
        decode_payload(header, bytes(payload), zstandard.ZstdDecompressor(), "here")


def test_a_frame_that_promises_more_is_not_unpacked() -> None:
    bomb = zstandard.compress(bytes(1 << 20))
    header = decode_record(encode_record(RecordKind.CHUNK, bytes(32), 10, Codec.ZSTANDARD, bomb), "here")
    with pytest.raises(DamagedError, match="promise"):
        decode_payload(header, bomb, zstandard.ZstdDecompressor(), "here")
