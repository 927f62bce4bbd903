"""Volumes that nobody's tool would write: what they may cost. The bytes are ECMA-119's."""

import struct

import pytest

from builder.finished.iso9660 import read_volume
from core.errors import DamagedError
from images.sources import BytesSource

_BLOCK = 2048


class _Counting(BytesSource):
    """Counts what is read."""

    read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.read += length
        return super().read_at(offset, length)


def _both(value: int, letter: str) -> bytes:
    """7.2.3 and 7.3.3: a number in both byte orders."""
    return struct.pack(f"<{letter}", value) + struct.pack(f">{letter}", value)


def _record(name: bytes, block: int, size: int) -> bytes:
    """9.1: a directory record of a folder."""
    pad = b"" if len(name) % 2 else b"\0"
    body = bytes(1) + _both(block, "I") + _both(size, "I") + bytes(7) + b"\x02\0\0" + _both(1, "H")
    body += bytes([len(name)]) + name + pad
    return bytes([len(body) + 1]) + body


def _volume(folders: list[bytes], blocks: int) -> bytes:
    """A volume whose root, in block 18, has these records; everything behind it is zeroes."""
    root = _record(b"\0", 18, _BLOCK)
    primary = bytearray(_BLOCK)
    primary[:7] = b"\x01CD001\x01"
    primary[80:88], primary[128:132], primary[156:190] = _both(blocks, "I"), _both(_BLOCK, "H"), root
    content = (root + _record(b"\1", 18, _BLOCK) + b"".join(folders)).ljust(_BLOCK, b"\0")
    end = b"\xffCD001\x01".ljust(_BLOCK, b"\0")
    return (bytes(16 * _BLOCK) + bytes(primary) + end + content).ljust(blocks * _BLOCK, b"\0")


def test_folders_that_lie_over_each_other_are_not_read_without_end() -> None:
    """50 of 4 MiB each in a file of 5 MiB: 200 MiB to read, and a file with more levels asks for more than any disk."""
    folders = [_record(b"F%02d" % number, 19 + number, 4 << 20) for number in range(50)]
    source = _Counting(_volume(folders, 2600))
    with pytest.raises(
        DamagedError, match=r"x\.iso, offset \d+, folder /F0\d: its folders .* more than 16777216 bytes"
    ):
        read_volume(source, "x.iso")
    assert source.read <= 17 << 20


def test_as_many_folders_as_media_have_are_read() -> None:
    folders = [_record(b"F%02d" % number, 19 + number, _BLOCK) for number in range(40)]
    assert read_volume(BytesSource(_volume(folders, 100)), "x.iso").files == {}
