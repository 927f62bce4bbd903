"""Bytes that do not fill their sectors, written between what these hold already."""

from core.units import covering_sectors, to_bytes
from restore.target.target import Target


def write_between(target: Target, offset: int, content: bytes | bytearray, sector_size: int) -> tuple[int, bytes]:
    """Put ``content`` at ``offset`` bytes of a target, and leave the rest of the sectors it lies in as it is.

    Returns:
        where the first of these sectors begins, in bytes, and what was written from there; nothing is read back.

    Raises:
        DeviceError: the target cannot be read or written there.
    """
    first, count = covering_sectors(offset, offset + len(content), sector_size)
    start = to_bytes(first, sector_size)
    sectors = bytearray(target.read_at(start, to_bytes(count, sector_size)))
    sectors[offset - start : offset - start + len(content)] = content
    written = bytes(sectors)
    target.write_at(start, written)
    return start, written
