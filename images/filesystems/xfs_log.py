"""Whether the log of an XFS is clean: its last record says that the filesystem was unmounted.

Finds the end of the log as the kernel does (fs/xfs/xfs_log_recover.c: xlog_find_head, xlog_find_tail), but believes
in less: where blocks near the end are out of order, as after a torn write, the kernel goes on looking, and here the
log counts as not clean. Replays nothing.
"""

import struct

from images.sources import BlockSource

#: The log is written in blocks of 512 bytes whatever the sector, each stamped with the number of its cycle.
BLOCK = 512
RECORD_MAGIC = 0xFEEDBABE
#: How much may be in flight, and so out of order, at once: 8 buffers of 256 KiB (kernel: XLOG_TOTAL_REC_SHIFT).
_IN_FLIGHT = 8 * 256 * 1024 // BLOCK
#: One header block covers the cycle numbers of this much data.
_HEADER_COVERS = 32 * 1024
_UNMOUNT_FLAG = 0x20
_CLIENT_LOG = 0xAA

NEEDS_RECOVERY = "its log needs recovery: it is mounted, or was not cleanly unmounted (mount and unmount it once)"
UNREADABLE = "its log has no beginning and no end that can be told"


class _Log:
    """The log's blocks by number."""

    def __init__(self, source: BlockSource, offset: int, size: int) -> None:
        self._source = source
        self._offset = offset
        self.count = size // BLOCK

    def block(self, number: int) -> bytes:
        return self._source.read_at(self._offset + number % self.count * BLOCK, BLOCK)

    def cycle(self, number: int) -> int:
        """The cycle in which a block was last written; 0 for never."""
        return _cycle(self.block(number))

    def cycles(self, start: int, end: int) -> list[int]:
        """The cycles of a range of blocks."""
        content = self._source.read_at(self._offset + start * BLOCK, (end - start) * BLOCK)
        return [_cycle(content[offset : offset + BLOCK]) for offset in range(0, len(content), BLOCK)]


def doubt_about_log(source: BlockSource, offset: int, size: int, uuids: frozenset[bytes]) -> str:
    """Why an internal log is not clean; empty when it is.

    Args:
        offset, size: where the log lies, in bytes.
        uuids: what every record must carry, one of them.

    Raises:
        DeviceError: the source cannot be read.
    """
    log = _Log(source, offset, size)
    first, last = log.cycle(0), log.cycle(log.count - 1)
    if first == 0:
        return UNREADABLE
    if first == last:  # the log was filled to its very end: the next record starts at block 0
        head = log.count
    elif last == first - 1:
        head = _first_older(log, first)
    else:
        return NEEDS_RECOVERY
    if not _in_order(log, head, first):
        return NEEDS_RECOVERY
    return "" if _ends_with_unmount(log, head, first, uuids) else NEEDS_RECOVERY


def _cycle(block: bytes) -> int:
    magic, cycle = struct.unpack_from(">II", block)
    return int(cycle) if magic == RECORD_MAGIC else int(magic)


def _first_older(log: _Log, young: int) -> int:
    """The first block of an older cycle, by halving: block 0 is of the youngest one, the last block is not."""
    low, high = 0, log.count - 1
    while high - low > 1:
        middle = (low + high) // 2
        if log.cycle(middle) == young:
            low = middle
        else:
            high = middle
    return high


def _in_order(log: _Log, head: int, young: int) -> bool:
    """Whether all that could have been in flight when the last record was written is where it belongs.

    What lies behind the head is of the cycle before, or older: xfs_repair leaves blocks there that were never written.
    """
    start, end = max(head - _IN_FLIGHT, 0), min(head + _IN_FLIGHT, log.count)
    before = log.cycles(start, head)
    behind = log.cycles(head, end)
    wrapped = max(_IN_FLIGHT - head, 0)  # the window before the head goes on at the end of the log
    tail = log.cycles(max(log.count - wrapped, head), log.count)
    return set(before) == {young} and all(cycle < young for cycle in (*behind, *tail))


def _ends_with_unmount(log: _Log, head: int, cycle: int, uuids: frozenset[bytes]) -> bool:
    """Whether the record that ends right before ``head`` is there and says "unmounted"."""
    for start in range(head - 1, head - min(_IN_FLIGHT, log.count) - 1, -1):
        header = log.block(start)
        magic, stamp, version, length, lsn = struct.unpack_from(">IIIIQ", header)
        if magic == RECORD_MAGIC:
            break
    else:
        return False
    if start < 0:  # it began at the end of the log, in the cycle before
        cycle -= 1
    operations = struct.unpack_from(">I", header, 40)[0]
    buffer_size = struct.unpack_from(">I", header, 320)[0]
    headers = -(-buffer_size // _HEADER_COVERS) if version & 2 and buffer_size > _HEADER_COVERS else 1
    if header[304:320] not in uuids or stamp != cycle or lsn != cycle << 32 | start % log.count:
        return False
    if operations != 1 or start + headers + -(-length // BLOCK) != head:
        return False
    client, flags = struct.unpack_from(">8xBB", log.block(start + headers))
    return bool(client == _CLIENT_LOG and flags & _UNMOUNT_FLAG)
