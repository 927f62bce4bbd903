"""Partition tables under the fuzzer: what is read can be written, and reads back as the same table.

Checksums would keep the fuzzer out of a GPT, so that each input is read twice: as it is, and with its checksums made
right.
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.errors import LiferaftError, RefusedError
from images.model.layout import PartitionTable
from images.sources import BlockSource
from images.tables.detect import read_table
from images.tables.piece import TablePiece
from images.tables.table_bytes import table_pieces
from tests.fuzz.sparse import SparseSource, make

MIB = 1 << 20
#: Bytes of entries that are worth a checksum here.
_ENTRIES_LIMIT = 1 << 17


class Laid:
    """A source with pieces of a table laid over it."""

    def __init__(self, inner: BlockSource, pieces: tuple[TablePiece, ...]) -> None:
        self.size, self.sector_size = inner.size, inner.sector_size
        self._inner, self._pieces = inner, pieces

    def read_at(self, offset: int, length: int) -> bytes:
        found = bytearray(self._inner.read_at(offset, length))
        for piece in self._pieces:
            start, end = max(offset, piece.offset), min(offset + length, piece.extent.end)
            if start < end:
                found[start - offset : end - offset] = piece.data[start - piece.offset : end - piece.offset]
        return bytes(found)


def check_tables(source: SparseSource) -> None:
    """Read, write and read again, with and without right checksums."""
    with contextlib.suppress(LiferaftError):
        check_table(Laid(source, _sealed(source)))
    check_table(source)


def check_table(source: BlockSource) -> None:
    """Whatever is read is inside the disk, and is read again from the bytes that are made of it."""
    table = read_table(source)
    if table is None:
        return
    for partition in table.partitions:
        assert 0 < partition.start_lba < partition.end_lba <= source.size // source.sector_size
    try:
        pieces = table_pieces(table, source.size, source.sector_size)
    except RefusedError:
        return
    assert _facts(read_table(Laid(source, pieces))) == _facts(table)


def _facts(table: PartitionTable | None) -> PartitionTable:
    assert table is not None
    return msgspec.structs.replace(table, notes=())


def _sealed(source: SparseSource) -> tuple[TablePiece, ...]:
    """Both headers of a GPT of 512-byte sectors with their checksums made right."""
    pieces: list[TablePiece] = []
    for offset in (512, source.size - 512):
        sector = bytearray(source.read_at(offset, 512))
        size = struct.unpack_from("<I", sector, 12)[0]
        entries, count, each = struct.unpack_from("<QII", sector, 72)
        if sector[:8] == b"EFI PART" and 92 <= size <= 512 and count * each <= _ENTRIES_LIMIT:
            try:
                array = source.read_at(entries * 512, count * each)
            except LiferaftError:
                continue
            struct.pack_into("<I", sector, 88, zlib.crc32(array))
            struct.pack_into("<I", sector, 16, 0)
            struct.pack_into("<I", sector, 16, zlib.crc32(sector[:size]))
            pieces.append(TablePiece(offset, bytes(sector)))
    return tuple(pieces)


def table_images(folder: Path) -> Iterator[SparseSource]:
    """Tables that sfdisk makes."""
    scripts = {
        "gpt": "<label: gpt\nsize=2M, type=U\nsize=3M, type=S\nsize=4M\n",
        "short gpt": "<label: gpt\ntable-length: 8\nfirst-lba: 4\n3: start=4, size=9\n8: size=2M\n",
        "dos": "<label: dos\nsize=2M\nsize=20M, type=E\nsize=2M, type=L\nsize=2M, type=L\nsize=2M, bootable\n",
        "chain": "<label: dos\n3: start=2048,size=40000,type=f\n5: start=30000,size=9\n6: start=4096,size=9\n",
    }
    for name, script in scripts.items():
        yield make(folder, name, 64 * MIB, ["sfdisk", "IMAGE", script])
