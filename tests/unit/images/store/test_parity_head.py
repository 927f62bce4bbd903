"""Parity files byte for byte as docs/image-format.md §11 has them, and heads that lie."""

import os
import struct
from typing import Literal

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DamagedError, UsageError
from images.store.parity import examine, parity_name, protect
from images.store.parity_head import Geometry, Parity, choose_parity, decode_geometry, decode_head, plan_geometry
from images.store.records import encode_pack_header
from images.store.repository import pack_name
from tests.unit.images.store.memory import MemoryBackend
from tests.unit.images.store.reed_solomon import parity_block

REPOSITORY, PACK = bytes(range(16)), bytes(range(100, 116))
KIB, MIB = 1 << 10, 1 << 20


def written(size: int, parity: Parity) -> MemoryBackend:
    backend = MemoryBackend()
    content = encode_pack_header(REPOSITORY, PACK) + os.urandom(size - 64)
    backend.write(pack_name(PACK), content)
    protect(backend, REPOSITORY, PACK, parity)
    return backend


@pytest.mark.parametrize(("blocks", "tail"), ((21, 4096), (17, 1), (3, 100)))
def test_the_whole_file_is_that_of_the_document(blocks: int, tail: int) -> None:
    k, m, size = 8, 3, 4096
    backend = written((blocks - 1) * size + tail, Parity(data_blocks=k, parity_blocks=m, block_size=4096))
    pack = backend.files[pack_name(PACK)]
    groups = {21: 3, 17: 3, 3: 1}[blocks]
    cut = [pack[at : at + size] for at in range(0, len(pack), size)]
    full = [block.ljust(size, b"\0") for block in cut] + [bytes(size)] * (k * groups - blocks)
    rows = [b"".join(parity_block(k, number, full[group::groups]) for group in range(groups)) for number in range(m)]
    head = b"LRPR" + struct.pack("<I", 1) + REPOSITORY + PACK
    head += struct.pack("<QIHHII", len(pack), size, k, m, groups, 0)
    head += b"".join(blake3(block).digest()[:16] for block in cut)
    head += b"".join(blake3(row[at : at + size]).digest()[:16] for row in rows for at in range(0, len(row), size))
    head = head.ljust(4096 - 32, b"\0")
    head += blake3(head).digest()
    assert backend.files[f"packs/64/{PACK.hex()}.parity"] == b"".join(head + row for row in rows) + head


def test_the_numbers_of_the_document() -> None:
    full = plan_geometry(1 << 30, Parity())
    assert (full.blocks, full.groups, full.rows) == (16384, 128, 128)
    assert (full.groups - 1) * full.block_size == 8128 * KIB
    assert 0.031 < full.file_size / full.pack_size < 0.033
    for size in (2 * MIB, 5_000_000, 32 * MIB):
        assert plan_geometry(size, Parity()).groups == 4
    for size in (64, 65_537, 512 * KIB):
        assert plan_geometry(size, Parity()).groups == 1


@given(st.integers(64, 1 << 30), st.integers(64, 192), st.integers(1, 32), st.sampled_from((4096, 8192, 65536)))
def test_what_a_writer_plans_a_reader_takes(
    size: int, data: int, parity: int, block_size: Literal[4096, 8192, 65536]
) -> None:
    planned = plan_geometry(size, Parity(data_blocks=data, parity_blocks=parity, block_size=block_size))
    head = _fixed(size, block_size, data, parity, planned.groups)
    assert decode_geometry(head, REPOSITORY, PACK, "here") == planned
    assert planned.block(planned.blocks - 1).end == size
    assert planned.parity_block(parity * planned.groups - 1).end == planned.file_size - planned.head_size
    assert planned.file_size < 1 << 30


def _fixed(size: int, block: int, data: int, parity: int, groups: int, *, version: int = 1) -> bytes:
    ids = b"LRPR" + struct.pack("<I", version) + REPOSITORY + PACK
    return ids + struct.pack("<QIHHII", size, block, data, parity, groups, 0)


@pytest.mark.parametrize(
    ("head", "words"),
    (
        (_fixed(0, 4096, 8, 2, 1), "byte 40: pack size is 0"),
        (_fixed((1 << 30) + 1, 65536, 128, 4, 129), "byte 40"),
        (_fixed(1 << 20, 0, 8, 2, 1), "byte 48: block size is 0"),
        (_fixed(1 << 20, 4097, 8, 2, 1), "byte 48"),
        (_fixed(1 << 20, 1 << 31, 8, 2, 1), "byte 48"),
        (_fixed(1 << 20, 4096, 0, 2, 1), "byte 52"),
        (_fixed(1 << 20, 4096, 193, 2, 2), "byte 52"),
        (_fixed(1 << 20, 4096, 8, 0, 32), "byte 54"),
        (_fixed(1 << 20, 4096, 8, 9, 32), "byte 54"),
        (_fixed(1 << 20, 4096, 64, 33, 4), "byte 54"),
        (_fixed(1 << 20, 4096, 8, 2, 31), "groups is 31, expected 32 to 256"),
        (_fixed(1 << 20, 4096, 8, 2, 257), "groups is 257"),
        (_fixed(1 << 30, 4096, 2, 1, 262144), "a row has 1073741824 bytes"),
        (_fixed(1 << 20, 4096, 8, 2, 32, version=2), "byte 4: version is 2, expected 1"),
        (b"XRPR" + bytes(60), "byte 0: magic"),
        (b"LRPR", "4 bytes, expected 64"),
    ),
)
def test_numbers_out_of_bounds_are_refused(head: bytes, words: str) -> None:
    with pytest.raises(DamagedError, match=words):
        decode_geometry(head, REPOSITORY, PACK, "here")


def test_a_head_of_another_pack_or_repository_is_refused() -> None:
    head = _fixed(1 << 20, 4096, 8, 2, 32)
    with pytest.raises(DamagedError, match="repository id"):
        decode_geometry(head, bytes(16), PACK, "here")
    with pytest.raises(DamagedError, match="pack id"):
        decode_geometry(head, REPOSITORY, bytes(16), "here")


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 4095), st.integers(1, 255))
def test_a_head_proves_every_byte(offset: int, change: int) -> None:
    head = bytearray(written(40_000, Parity(data_blocks=8, parity_blocks=2, block_size=4096)).files[parity_name(PACK)])
    head = head[:4096]
    decode_head(bytes(head), REPOSITORY, PACK, "here")
    head[offset] ^= change
    with pytest.raises(DamagedError, match="here"):
        decode_head(bytes(head), REPOSITORY, PACK, "here")


def _resealed(head: bytes) -> bytes:
    return head[:-32] + blake3(head[:-32]).digest()


def test_a_resealed_head_with_bytes_that_must_be_zero_is_refused() -> None:
    head = bytearray(written(40_000, Parity(data_blocks=8, parity_blocks=2, block_size=4096)).files[parity_name(PACK)])
    head = head[:4096]
    head[60] = 1
    with pytest.raises(DamagedError, match="must be zero"):
        decode_head(_resealed(bytes(head)), REPOSITORY, PACK, "here")


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, (1 << 64) - 1) | st.integers(1, 1 << 20),
    st.sampled_from((0, 1, 4096, 65536, 1 << 31)),
    st.integers(0, 65535) | st.integers(1, 192),
    st.integers(0, 65535) | st.integers(1, 8),
    st.integers(0, (1 << 32) - 1) | st.integers(1, 40),
    st.binary(max_size=300),
)
def test_heads_with_any_numbers_and_garbage_never_crash(
    size: int, block: int, data: int, parity: int, groups: int, garbage: bytes
) -> None:
    """Also when their digest is right: whoever makes one can seal it."""
    backend = written(40_000, Parity(data_blocks=8, parity_blocks=2, block_size=4096))
    fixed = _fixed(size, block, data, parity, groups)
    try:
        length = decode_geometry(fixed, REPOSITORY, PACK, "here").head_size
    except DamagedError:
        length = 4096
    if length <= 1 << 20:
        head = _resealed((fixed + garbage).ljust(length, b"\0"))
        backend.files[parity_name(PACK)] = head + garbage
    else:
        backend.files[parity_name(PACK)] = fixed + garbage
    condition = examine(backend, REPOSITORY, PACK)
    assert not condition.sound


@pytest.mark.parametrize(
    "text",
    (
        b'{"data_blocks":63}',
        b'{"data_blocks":193}',
        b'{"parity_blocks":0}',
        b'{"parity_blocks":33}',
        b'{"block_size":5000}',
        b'{"code":"xor"}',
    ),
)
def test_the_documents_parity_is_bounded(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Parity)


def test_choosing_parity() -> None:
    assert choose_parity(0) is None
    assert choose_parity(4) == Parity()
    for number in (-1, 33):
        with pytest.raises(UsageError, match="not possible"):
            choose_parity(number)


def test_geometry_says_where_heads_and_rows_are() -> None:
    geometry = Geometry(pack_size=40_960, block_size=4096, data_blocks=8, parity_blocks=2, groups=2)
    assert [geometry.head_offset(copy) for copy in range(3)] == [0, 4096 + 8192, 2 * (4096 + 8192)]
    assert geometry.file_size == 3 * 4096 + 2 * 8192
