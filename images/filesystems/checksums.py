"""CRCs of many equally long records at once, as ext4 and XFS keep them of their metadata.

Plain Python would take seconds for a large filesystem. Here numpy steps through all records together; long records
are cut into segments that are stepped through together too, and the segments' CRCs joined: a CRC is linear, so that
of A followed by B is that of A moved past the length of B, XOR that of B. No final inversion: ext4 stores the bare
remainder.
"""

import functools

import numpy as np
from numpy.typing import NDArray

#: Reflected polynomials: CRC-32C (RFC 3720, B.4) and CRC-16 (the kernel's lib/crc16.c).
CRC32C = 0x82F63B78
CRC16 = 0xA001
#: Bytes of a segment.
_SEGMENT = 64


@functools.cache
def _table(polynomial: int) -> NDArray[np.uint32]:
    """The remainders of all 256 bytes."""
    remainders: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        remainders = (remainders >> np.uint32(1)) ^ (remainders & np.uint32(1)) * np.uint32(polynomial)
    return remainders


@functools.cache
def _past_zeros(polynomial: int, length: int) -> NDArray[np.uint32]:
    """What a remainder becomes behind ``length`` zero bytes, a power of two: four tables, one for each byte of it."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if length == 1:
        bits = _table(polynomial)[bits & 0xFF] ^ (bits >> 8)
    else:
        half = _past_zeros(polynomial, length // 2)
        bits = _moved(half, _moved(half, bits))
    tables = np.zeros((4, 256), dtype=np.uint32)
    for bit in range(8):
        with_bit = (np.arange(256) >> bit) & 1 == 1
        tables[:, with_bit] ^= bits.reshape(4, 8)[:, bit : bit + 1]
    return tables


def _moved(tables: NDArray[np.uint32], remainders: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Remainders moved as far as the tables of :func:`_past_zeros` say."""
    low, lower, higher, high = tables
    moved: NDArray[np.uint32] = low[remainders & 0xFF] ^ lower[remainders >> 8 & 0xFF]
    moved ^= higher[remainders >> 16 & 0xFF] ^ high[remainders >> 24]
    return moved


def crc_of_rows(polynomial: int, seeds: NDArray[np.uint32], rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The CRC of each row.

    Args:
        seeds: the CRC to start from, one for each row.
        rows: bytes, shape (records, length).
    """
    count, length = rows.shape
    if length < 2 * _SEGMENT:
        return _stepped(polynomial, seeds.astype(np.uint32), rows)
    segments = 1 << (-(-length // _SEGMENT) - 1).bit_length()
    # a seed is as good as XORed into the first four bytes, and zeros before them then change nothing
    padded = np.zeros((count, segments * _SEGMENT), dtype=np.uint8)
    start = segments * _SEGMENT - length
    padded[:, start:] = rows
    padded[:, start : start + 4] ^= seeds.astype("<u4").view(np.uint8).reshape(count, 4)
    pieces = padded.reshape(count * segments, _SEGMENT)
    remainders = _stepped(polynomial, np.zeros(len(pieces), dtype=np.uint32), pieces)
    span = _SEGMENT
    while len(remainders) > count:
        remainders = _moved(_past_zeros(polynomial, span), remainders[0::2]) ^ remainders[1::2]
        span *= 2
    return remainders


def crc(polynomial: int, seed: int, content: bytes) -> int:
    """The CRC of one record."""
    rows = np.frombuffer(content, dtype=np.uint8).reshape(1, -1)
    return int(crc_of_rows(polynomial, np.array([seed], dtype=np.uint32), rows)[0])


def _stepped(polynomial: int, remainders: NDArray[np.uint32], rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The CRC of each row, one column of bytes at a time."""
    table = _table(polynomial)
    for column in np.ascontiguousarray(rows.T):
        remainders = table[(remainders ^ column) & 0xFF] ^ (remainders >> 8)
    return remainders
