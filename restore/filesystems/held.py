"""A partition of a target that is held open: read as a source, and patched sector by sector with a read-back."""

from core.errors import DeviceError
from core.units import covering_sectors, to_bytes
from restore.filesystems.patches import Patch
from restore.table.between import write_between
from restore.target.target import Target


class HeldPartition:
    """A range of an open target. Offsets and sizes in bytes from the start of the range.

    See :class:`images.sources.BlockSource`; any range may be read, whole sectors are read for it.
    """

    def __init__(self, target: Target, offset: int, size: int, sector_size: int) -> None:
        if offset < 0 or size < 0 or offset + size > target.size or offset % sector_size:
            raise DeviceError(f"{target.node}: {size} bytes at {offset} are no partition of its {target.size} bytes.")
        self.name = f"{target.node}, bytes {offset} to {offset + size}"
        self._target = target
        self._offset = offset
        self._size = size
        self._sector_size = sector_size

    @property
    def size(self) -> int:
        return self._size

    @property
    def sector_size(self) -> int:
        return self._sector_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``. Raises DeviceError."""
        if offset < 0 or length < 0 or offset + length > self._size:
            raise DeviceError(f"{self.name}: {length} bytes at {offset} are outside its {self._size} bytes.")
        first, count = covering_sectors(offset, offset + length, self._sector_size)
        start = to_bytes(first, self._sector_size)
        sectors = self._target.read_at(self._offset + start, to_bytes(count, self._sector_size))
        return bytes(sectors[offset - start : offset - start + length])

    def write(self, patch: Patch) -> None:
        """Put a patch into its sectors, flush, and read it back.

        Raises:
            DeviceError: it is outside the partition, cannot be written, or does not read back.
        """
        first, count = covering_sectors(patch.offset, patch.offset + len(patch.content), self._sector_size)
        if patch.offset < 0 or to_bytes(first + count, self._sector_size) > self._size:
            raise DeviceError(f"{self.name}: {len(patch.content)} bytes at {patch.offset} are outside it.")
        place = self._offset + patch.offset
        start, sectors = write_between(self._target, place, patch.content, self._sector_size)
        self._target.flush()
        if self._target.read_at(start, len(sectors)) != sectors:
            raise DeviceError(f"{self.name}: {len(patch.content)} bytes at {patch.offset} do not read back.")
