"""CRCs against the catalogue's check values, zlib, and the definition bit by bit."""

import binascii
import random

import numpy as np
import pytest

from images.filesystems.checksums import CRC16, CRC32C, crc, crc_of_rows

_CRC32 = 0xEDB88320


def bit_by_bit(polynomial: int, remainder: int, content: bytes) -> int:
    for byte in content:
        remainder ^= byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ (polynomial if remainder & 1 else 0)
    return remainder


def test_check_values() -> None:
    """Of the string 123456789, as RFC 3720 and the CRC catalogue give them."""
    assert crc(CRC32C, 0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283
    assert crc(CRC16, 0, b"123456789") == 0xBB3D
    assert crc(CRC32C, 0xFFFFFFFF, bytes(32)) ^ 0xFFFFFFFF == 0x8A9136AA  # RFC 3720, B.4


@pytest.mark.parametrize("length", [0, 1, 4, 63, 127, 128, 129, 512, 4096, 65536])
def test_rows_equal_zlib(length: int) -> None:
    """zlib knows CRC-32 only; the polynomial is a parameter here."""
    content = random.Random(length).randbytes(3 * length)
    rows = np.frombuffer(content, dtype=np.uint8).reshape(3, length)
    found = crc_of_rows(_CRC32, np.full(3, 0xFFFFFFFF, dtype=np.uint32), rows) ^ np.uint32(0xFFFFFFFF)
    assert found.tolist() == [binascii.crc32(row.tobytes()) for row in rows]


@pytest.mark.parametrize("polynomial", [CRC16, CRC32C])
@pytest.mark.parametrize("length", [30, 200, 1000])
def test_rows_with_seeds_of_their_own(polynomial: int, length: int) -> None:
    rows = np.frombuffer(random.Random(length).randbytes(3 * length), dtype=np.uint8).reshape(3, length)
    seeds = [0, 0xFFFF, 0x1234]
    found = crc_of_rows(polynomial, np.array(seeds, dtype=np.uint32), rows)
    assert found.tolist() == [
        bit_by_bit(polynomial, seed, row.tobytes()) for seed, row in zip(seeds, rows, strict=True)
    ]
