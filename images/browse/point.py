"""A volume or a whole disk of a recovery point as a :class:`~images.sources.BlockSource`.

Reads chunks through the repository, each proven by its digest, and remembers the latest decoded ones. Nothing is
written, and nothing is mounted: what lies in the bytes is the business of the filesystem readers beside this file.
"""

import threading
from collections.abc import Iterator

from core.errors import DamagedError, DeviceError
from core.units import MIB
from images.model.extents import Extent
from images.model.layout import Disk
from images.model.manifest import Manifest, Volume, VolumeRole
from images.store.repository import Repository

#: Bytes of decoded chunks that are remembered. Metadata of a filesystem is read in small pieces from few chunks.
CACHE_SIZE = 64 * MIB


class OutsideError(DeviceError):
    """A range that the volume does not have: what the filesystem says of itself leads there."""


class ChunkCache:
    """Decoded chunks of one repository by id, the latest used ones, bounded in bytes. Safe from several threads.

    Shared by all volumes that are open: two recovery points of one machine have most chunks in common.

    Attributes:
        fetched: chunks read from the repository so far.
    """

    def __init__(self, repository: Repository, limit: int = CACHE_SIZE) -> None:
        self.repository = repository
        self.fetched = 0
        self._limit = limit
        self._size = 0
        self._chunks: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    def read(self, identifier: bytes, where: str) -> bytes:
        """The proven content of a chunk.

        Raises:
            DamagedError: it is missing or damaged; ``where`` names what needs it.
        """
        with self._lock:
            found = self._chunks.pop(identifier, None)
            if found is not None:
                self._chunks[identifier] = found
                return found
        found = self.repository.read_chunk(identifier, where)
        with self._lock:
            self.fetched += 1
            if identifier not in self._chunks:
                self._chunks[identifier] = found
                self._size += len(found)
            while self._size > self._limit and len(self._chunks) > 1:
                self._size -= len(self._chunks.pop(next(iter(self._chunks))))
        return found


class VolumeSource:
    """One volume of a recovery point. What was not allocated reads as zeros.

    Attributes:
        volume: the manifest's entry.
        point: the full id of the recovery point.
        name: ``0123456789ab disk0-part2``, for people and errors.
    """

    def __init__(self, cache: ChunkCache, point: str, volume: Volume, sector_size: int) -> None:
        self.cache = cache
        self.point = point
        self.volume = volume
        self.name = f"{point[:12]} {volume.id}"
        self._sector_size = sector_size
        self._chunk_size = cache.repository.chunk_size

    @property
    def size(self) -> int:
        return self.volume.size

    @property
    def sector_size(self) -> int:
        return self._sector_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            OutsideError: the range is outside the volume. DamagedError: a chunk is missing or damaged; the message
                names recovery point, volume and range.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutsideError(f"{length} bytes at {offset} are outside a volume of {self.size} bytes.")
        end, pieces = offset + length, []
        for number in range(offset // self._chunk_size, -(-end // self._chunk_size)):
            start = number * self._chunk_size
            first, last = max(offset - start, 0), min(end - start, self._chunk_size)
            content = self._chunk(number)
            pieces.append(bytes(last - first) if content is None else content[first:last])
        return b"".join(pieces)

    def _chunk(self, number: int) -> bytes | None:
        """The plain bytes of a chunk; None for zeros."""
        start = number * self._chunk_size
        size = min(self._chunk_size, self.size - start)
        where = f"{self.name}, bytes {start} to {start + size}"
        slot = self.cache.repository.slot(self.volume, number, where)
        if slot is None or slot.id is None:
            return None
        content = self.cache.read(slot.id, where)
        if len(content) != size:
            raise DamagedError(f"{where}: the chunk has {len(content)} bytes, expected {size}.")
        return content

    def allocated(self) -> Iterator[Extent]:
        """Runs of chunks that hold something other than zeros, sorted."""
        start = end = 0
        for slot in self.cache.repository.slots(self.volume, self.name):
            if slot.id is None:
                continue
            first = slot.number * self._chunk_size
            if first != end:
                if end > start:
                    yield Extent(start, end)
                start = first
            end = min(first + self._chunk_size, self.size)
        if end > start:
            yield Extent(start, end)


class DiskSource:
    """A whole disk of a recovery point: its volumes at their old offsets, zeros between them.

    The backup GPT at the end is not kept in an image and reads as zeros here; ``images.export`` makes it again.

    Attributes:
        volumes: the sources of its volumes, in the order of their offsets, never overlapping.
    """

    def __init__(self, cache: ChunkCache, point: str, manifest: Manifest, disk: Disk) -> None:
        self.disk = disk
        self.name = f"{point[:12]} {disk.id}"
        own = sorted(
            (volume for volume in manifest.volumes if volume.disk == disk.id), key=lambda volume: volume.offset
        )
        end = 0
        for volume in own:
            if volume.offset < end or volume.offset + volume.size > disk.size:
                raise DeviceError(
                    f"{self.name}: volume {volume.id}, bytes {volume.offset} to {volume.offset + volume.size}, "
                    f"overlaps another or reaches behind the disk's {disk.size} bytes."
                )
            end = volume.offset + volume.size
        self.volumes = tuple(VolumeSource(cache, point, volume, disk.sector_size) for volume in own)

    @property
    def size(self) -> int:
        return self.disk.size

    @property
    def sector_size(self) -> int:
        return self.disk.sector_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``. Raises as :meth:`VolumeSource.read_at`."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DeviceError(f"{self.name}: {length} bytes at {offset} are outside a disk of {self.size} bytes.")
        content = bytearray(length)
        for source in self.volumes:
            begin = source.volume.offset
            first, last = max(offset, begin), min(offset + length, begin + source.size)
            if first < last:
                content[first - offset : last - offset] = source.read_at(first - begin, last - first)
        return bytes(content)

    def allocated(self) -> Iterator[Extent]:
        """Runs that hold something other than zeros, sorted; bytes on the disk."""
        for source in self.volumes:
            for extent in source.allocated():
                yield Extent(source.volume.offset + extent.start, source.volume.offset + extent.end)


def open_volume(cache: ChunkCache, point: str, manifest: Manifest, volume: Volume) -> VolumeSource:
    """The source of one volume, with the sector size of what it lies on."""
    return VolumeSource(cache, point, volume, manifest.layout.device(volume.disk).sector_size)


def filesystem_volumes(manifest: Manifest) -> tuple[Volume, ...]:
    """The volumes that may hold a filesystem: all but boot areas and what is kept of a container's members."""
    members = {member for container in manifest.layout.containers for member in container.member_ids}
    return tuple(
        volume
        for volume in manifest.volumes
        if volume.role is not VolumeRole.HEAD and (volume.partition or volume.disk) not in members
    )
