"""Writes qcow2 version 3 images: one pass, in the order of the disk, only what is not zero.

Not a reader, and not a general writer: no snapshots, no backing file, no compression. Clusters are of 64 KiB. An L2
table is written when the disk goes past it, so that memory is bounded by the L1 table (8 bytes for 512 MiB of disk);
the counts come last, the header after them: until then the file is no image.

Format: QEMU, docs/interop/qcow2.txt.
"""

import struct
from typing import BinaryIO

CLUSTER = 64 << 10
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_ENTRIES = CLUSTER // 8
#: One reference, from one table: may be written in place.
_COPIED = 1 << 63
_COUNTS = CLUSTER // 2
_ZEROS = bytes(CLUSTER)


class Qcow2Writer:
    """One image.

    Args:
        stream: empty, writable, can seek.
        size: bytes of the disk.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._l1 = [0] * -(-size // (CLUSTER * _ENTRIES))
        self._l2: list[int] = [0] * _ENTRIES
        self._open = -1
        self._clusters = 1
        self._last = -1
        stream.seek(CLUSTER)

    def write(self, number: int, data: bytes) -> None:
        """Cluster ``number`` of the disk; numbers ascend. Zeros need not be written.

        Raises:
            ValueError: out of order, or behind the end of the disk.
        """
        if number <= self._last or number * CLUSTER + len(data) > -(-self._size // CLUSTER) * CLUSTER:
            raise ValueError(f"cluster {number} of {len(data)} bytes after {self._last}")
        self._last = number
        if data == _ZEROS[: len(data)]:
            return
        table, slot = divmod(number, _ENTRIES)
        if table != self._open:
            self._close_table()
            self._open = table
        self._l2[slot] = self._append(data) | _COPIED

    def finish(self) -> None:
        """Write the tables and, last, the header."""
        self._close_table()
        l1 = struct.pack(f">{len(self._l1)}Q", *self._l1)
        l1_offset = self._append(l1)
        blocks, table = self._count_sizes()
        total = self._clusters + blocks + table
        first_block = self._clusters
        for block in range(blocks):
            used = min(max(total - block * _COUNTS, 0), _COUNTS)
            self._append(b"\x00\x01" * used)
        offsets = [(first_block + block) * CLUSTER for block in range(blocks)]
        table_offset = self._append(struct.pack(f">{blocks}Q", *offsets).ljust(table * CLUSTER, b"\0"))
        header = _HEADER.pack(
            b"QFI\xfb",
            3,
            0,  # no backing file
            0,
            CLUSTER.bit_length() - 1,
            self._size,
            0,  # not encrypted
            len(self._l1),
            l1_offset,
            table_offset,
            table,
            0,  # no snapshots
            0,
            0,  # no features, neither incompatible
            0,  # nor compatible
            0,  # nor autoclear
            4,  # counts of 16 bits
            104,
        )
        self._stream.seek(0)
        # Zeros behind the header end its list of extensions.
        self._stream.write(header.ljust(CLUSTER, b"\0"))

    def _close_table(self) -> None:
        if self._open >= 0:
            self._l1[self._open] = self._append(struct.pack(f">{_ENTRIES}Q", *self._l2)) | _COPIED
            self._l2 = [0] * _ENTRIES

    def _append(self, data: bytes) -> int:
        """Bytes at the end of the file, filled up to whole clusters. Returns where they begin."""
        offset = self._clusters * CLUSTER
        padded = data + bytes(-len(data) % CLUSTER)
        self._stream.write(padded)
        self._clusters += len(padded) // CLUSTER
        return offset

    def _count_sizes(self) -> tuple[int, int]:
        """Clusters for the counts and for their table: they count themselves, so the numbers grow until they fit."""
        blocks = table = 1
        while True:
            total = self._clusters + blocks + table
            needed = -(-total // _COUNTS)
            needed_table = -(-needed // _ENTRIES)
            if needed <= blocks and needed_table <= table:
                return blocks, table
            blocks, table = max(blocks, needed), max(table, needed_table)
