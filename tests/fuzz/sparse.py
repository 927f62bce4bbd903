"""Base images for the fuzzer: real filesystems and tables, of which only the blocks that are not zero are kept.

An input is a list of patches; each names one of those blocks, a place in it and the bytes to put there, so that the
fuzzer's work goes into structures and not into gigabytes of nothing.
"""

import os
import struct
import subprocess
from pathlib import Path

from core.errors import DeviceError

BLOCK = 4096
_PATCH = struct.Struct("<HHB")


class SparseSource:
    """Random access to blocks in memory; everything else reads as zeros."""

    def __init__(self, blocks: dict[int, bytes], size: int, sector_size: int = 512) -> None:
        self.blocks = blocks
        self.size = size
        self.sector_size = sector_size
        self.bytes_read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DeviceError(f"{length} bytes at {offset} are outside a source of {self.size} bytes.")
        self.bytes_read += length
        first, last = offset // BLOCK, (offset + length + BLOCK - 1) // BLOCK
        if last - first > 4096:
            # A huge read is answered without building it block by block.
            data = bytearray((last - first) * BLOCK)
            for number, block in self.blocks.items():
                if first <= number < last:
                    data[(number - first) * BLOCK : (number - first + 1) * BLOCK] = block
        else:
            data = bytearray().join(self.blocks.get(number, bytes(BLOCK)) for number in range(first, last))
        return bytes(data[offset - first * BLOCK : offset - first * BLOCK + length])

    def patched(self, data: bytes) -> "SparseSource":
        """This image with the patches an input holds."""
        blocks = dict(self.blocks)
        numbers = sorted(blocks)
        at = 0
        while at + _PATCH.size < len(data):
            which, where, length = _PATCH.unpack_from(data, at)
            at += _PATCH.size
            number = numbers[which % len(numbers)]
            content = data[at : at + 1 + length % 16]
            at += len(content)
            where = min(where % BLOCK, BLOCK - len(content))
            old = blocks[number]
            blocks[number] = old[:where] + content + old[where + len(content) :]
        return SparseSource(blocks, self.size, self.sector_size)


def load(path: Path, sector_size: int = 512) -> SparseSource:
    """The blocks of an image file that are not zero; holes are skipped."""
    blocks: dict[int, bytes] = {}
    size = path.stat().st_size
    with path.open("rb") as stream:
        position = 0
        while position < size:
            try:
                position = os.lseek(stream.fileno(), position, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(stream.fileno(), position, os.SEEK_HOLE)
            for number in range(position // BLOCK, -(-end // BLOCK)):
                block = os.pread(stream.fileno(), BLOCK, number * BLOCK).ljust(BLOCK, b"\0")
                if block.strip(b"\0"):
                    blocks[number] = block
            position = end
    return SparseSource(blocks, size, sector_size)


def make(folder: Path, name: str, size: int, *commands: list[str], sector_size: int = 512) -> SparseSource:
    """An image made by real tools; ``IMAGE`` in a command is its path."""
    path = folder / name
    with path.open("wb") as stream:
        stream.truncate(size)
    for command in commands:
        words = [word.replace("IMAGE", str(path)) for word in command]
        script = words.pop().removeprefix("<") if words[-1].startswith("<") else None
        subprocess.run(
            words,
            input=script,
            text=True,
            check=True,
            capture_output=True,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
        )
    found = load(path, sector_size)
    path.unlink()
    return found
