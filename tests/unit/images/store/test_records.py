import contextlib
import re

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
    decode_record,
    decompress,
    decompress_into,
    encode_record,
    unseal,
)
from images.store.xaes import XaesKey


def test_the_id_is_blake3() -> None:
    # BLAKE3's published test vector for the empty input.
    assert chunk_id(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


KEY = XaesKey(bytes(range(32)))


def _record(plain: bytes, payload: bytes, codec: Codec, key: XaesKey | None = None) -> bytes:
    return b"".join(encode_record(RecordKind.CHUNK, chunk_id(plain), len(plain), codec, payload, key))


def _plain(data: bytes, key: XaesKey | None = None) -> bytes:
    """Both ways of reading must come to the same end."""
    header = decode_record(data, "here")
    payload = unseal(data, header, key, "here")
    room = memoryview(bytearray(b"?" * (header.plain_length + 3)))
    try:
        plain = decompress(header, payload, zstandard.ZstdDecompressor(), "here")
    except DamagedError as error:
        with pytest.raises(DamagedError, match=re.escape(error.message)):
            decompress_into(header, payload, zstandard.ZstdDecompressor(), room, "here")
        raise
    assert decompress_into(header, payload, zstandard.ZstdDecompressor(), room, "here") == plain
    assert bytes(room) == plain + b"???"
    return plain


@given(st.binary(min_size=1, max_size=5000), st.booleans(), st.booleans())
def test_round_trip(plain: bytes, compress: bool, sealed: bool) -> None:
    key = KEY if sealed else None
    codec = Codec.ZSTANDARD if compress else Codec.STORED
    data = _record(plain, zstandard.compress(plain) if compress else plain, codec, key)
    assert _plain(data, key) == plain
    if sealed and len(plain) > 8:
        assert plain not in data[RECORD_HEADER_SIZE:]


@given(st.integers(0, RECORD_HEADER_SIZE - 1), st.integers(1, 255))
def test_every_changed_header_byte_is_noticed(at: int, flip: int) -> None:
    data = bytearray(_record(b"x", b"x", Codec.STORED))
    data[at] ^= flip
    with pytest.raises(DamagedError, match="here"):
        decode_record(bytes(data), "here")


@given(st.integers(0, 99 + 16), st.integers(1, 255))
def test_every_changed_sealed_byte_is_noticed(at: int, flip: int) -> None:
    plain = bytes(range(100))
    data = bytearray(_record(plain, plain, Codec.STORED, KEY))
    data[RECORD_HEADER_SIZE + at] ^= flip
    with pytest.raises(DamagedError, match="altered"):
        _plain(bytes(data), KEY)


def test_a_sealed_header_cannot_be_exchanged() -> None:
    """Kind, lengths and id are authenticated with the payload: a record cannot be passed off as another."""
    one, two = (_record(plain, plain, Codec.STORED, KEY) for plain in (b"one", b"two"))
    with pytest.raises(DamagedError, match="altered"):
        _plain(one[:RECORD_HEADER_SIZE] + two[RECORD_HEADER_SIZE:], KEY)


def test_plain_records_do_not_belong_into_an_encrypted_repository() -> None:
    with pytest.raises(DamagedError, match="cipher 0"):
        _plain(_record(b"x", b"x", Codec.STORED), KEY)
    with pytest.raises(DamagedError, match="cipher 2"):
        _plain(_record(b"x", b"x", Codec.STORED, KEY))


def test_a_frame_that_promises_more_is_not_unpacked() -> None:
    data = b"".join(
        encode_record(RecordKind.CHUNK, bytes(32), 10, Codec.ZSTANDARD, zstandard.compress(bytes(1 << 20)), None)
    )
    with pytest.raises(DamagedError, match="promise"):
        _plain(data)


@pytest.mark.parametrize("codec", [Codec.ZSTANDARD, Codec.STORED])
def test_more_than_there_is_room_for_is_not_unpacked(codec: Codec) -> None:
    plain = bytes(1000)
    data = _record(plain, zstandard.compress(plain) if codec is Codec.ZSTANDARD else plain, codec)
    header = decode_record(data, "here")
    room = memoryview(bytearray(999))
    with pytest.raises(DamagedError, match="1000 bytes, at most 999"):
        decompress_into(header, data[RECORD_HEADER_SIZE:], zstandard.ZstdDecompressor(), room, "here")
    assert bytes(room) == bytes(999)


@given(st.data())
def test_a_damaged_frame_never_passes_for_a_whole_one(data: st.DataObject) -> None:
    """Cut short or with a turned byte it is refused, or gives as many bytes as were promised, which their id judges."""
    plain = bytes(range(256)) * 20
    frame = bytearray(zstandard.compress(plain))
    if data.draw(st.booleans()):
        frame = frame[: data.draw(st.integers(1, len(frame) - 1))]
    else:
        frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    record = _record(plain, bytes(frame), Codec.ZSTANDARD)
    header = decode_record(record, "here")
    room = memoryview(bytearray(len(plain)))
    with contextlib.suppress(DamagedError):
        payload = unseal(record, header, None, "here")
        assert len(decompress_into(header, payload, zstandard.ZstdDecompressor(), room, "here")) == len(plain)
