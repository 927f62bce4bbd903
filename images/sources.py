"""Random access to bytes: what every reader takes instead of a path.

A :class:`BlockSource` is a disk, a partition of it, a file or a stored image. It is read-only by
construction (the law: the source is never written) and safe to use from several threads.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from core.errors import DeviceError, UsageError

#: What the kernel answers for sectors that a disk cannot give: I/O error, medium error, protection error, remote I/O.
_UNREADABLE = frozenset({errno.EIO, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO})
_BLKGETSIZE64 = 0x80081272
_BLKSSZGET = 0x1268
_BLKPBSZGET = 0x127B


class UnreadableSectorsError(DeviceError):
    """Sectors of the range cannot be read; the others of the source may well be."""


class BlockSource(Protocol):
    """Bytes at offsets.

    ``size`` and offsets are bytes; ``sector_size`` is the logical sector size, 512 or 4096.
    """

    @property
    def size(self) -> int: ...

    @property
    def sector_size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            UnreadableSectorsError: some of its sectors cannot be read.
            DeviceError: the range is outside the source, or reading failed in another way.
        """
        ...


@runtime_checkable
class Prefetching(Protocol):
    """A source that can be told what will be read soon."""

    def prefetch(self, offset: int, length: int) -> None:
        """Begin to fetch a range into memory and return at once. A range that cannot be had is no error here."""
        ...


class FileSource:
    """A block device or a plain file (a raw disk image), opened read-only."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        size: int,
        sector_size: int,
        physical_sector_size: int,
        *,
        is_device: bool = False,
    ) -> None:
        self.path = path
        self.is_device = is_device
        self._descriptor = descriptor
        self._size = size
        self._sector_size = sector_size
        self.physical_sector_size = physical_sector_size

    @property
    def size(self) -> int:
        return self._size

    @property
    def sector_size(self) -> int:
        return self._sector_size

    @property
    def descriptor(self) -> int:
        """The open file descriptor (libblkid probes through it)."""
        return self._descriptor

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self._size:
            raise DeviceError(f"{self.path}: {length} bytes at {offset} are outside its {self._size} bytes.")
        try:
            return self._read(offset, length)
        except OSError as error:
            kind = UnreadableSectorsError if error.errno in _UNREADABLE else DeviceError
            if kind is UnreadableSectorsError and self.is_device and length <= mmap.PAGESIZE:
                # The page cache loses a whole page with one sector: ask the disk itself.
                with contextlib.suppress(OSError):
                    return self._read_uncached(offset, length)
            raise kind(f"{self.path}: {length} bytes at {offset} cannot be read: {error.strerror}.") from None

    def answers(self) -> bool:
        """Whether the disk still gives its first sector, and its old size, when it is asked past all caches."""
        if not self.is_device:
            return True
        try:
            found = struct.unpack("=Q", fcntl.ioctl(self._descriptor, _BLKGETSIZE64, bytes(8)))[0]
            return bool(found == self._size) and bool(self._read_uncached(0, self._sector_size))
        except OSError:
            return False

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                raise DeviceError(f"{self.path} ended at {offset + len(data)}; it had {self._size} bytes before.")
            data += more
        return data

    def _read_uncached(self, offset: int, length: int) -> bytes:
        """Whole sectors past the page cache. Raises OSError."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        try:
            with mmap.mmap(-1, mmap.PAGESIZE) as buffer, memoryview(buffer) as view, view[:length] as part:
                if os.preadv(descriptor, [part], offset) != length:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return bytes(part)
        finally:
            os.close(descriptor)

    def prefetch(self, offset: int, length: int) -> None:
        # Only an advice: what cannot be read says so when it is read.
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_WILLNEED)


@contextlib.contextmanager
def open_source(path: Path, *, sector_size: int = 0) -> Iterator[FileSource]:
    """Open a block device or raw image file read-only.

    Args:
        sector_size: logical sector size of an image file; 0 means 512. A device says its own.

    Raises:
        UsageError: there is no such path, or it is neither a block device nor a plain file, or it is empty.
        DeviceError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist.", hint="liferaft probe lists the disks of this machine.") from None
    except OSError as error:
        raise DeviceError(
            f"{path} cannot be opened for reading: {error.strerror}.", hint="Reading a block device needs root."
        ) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISBLK(mode):
            size = struct.unpack("=Q", fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8)))[0]
            logical = struct.unpack("=i", fcntl.ioctl(descriptor, _BLKSSZGET, bytes(4)))[0]
            physical = struct.unpack("=i", fcntl.ioctl(descriptor, _BLKPBSZGET, bytes(4)))[0]
            _forget_cached(descriptor)
        elif stat.S_ISREG(mode):
            size = os.fstat(descriptor).st_size
            logical = physical = sector_size or 512
        else:
            raise UsageError(
                f"{path} is neither a block device nor a plain file.", hint="Name a disk, or a raw image of one."
            )
        if size == 0:
            raise UsageError(f"{path} is empty: there is nothing to read.", hint="Is it the right disk or file?")
        yield FileSource(path, descriptor, size, logical, physical, is_device=stat.S_ISBLK(mode))
    finally:
        os.close(descriptor)


def _forget_cached(descriptor: int) -> None:
    """Drop what the kernel remembers of a disk: it may be older than what lies on it.

    A partition, a volume on it or a filesystem writes past the page cache of the disk's own node, and that is kept
    from one opening to the next for as long as anything holds the disk, if only a partition mounted read-only.
    """
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


class WindowSource:
    """A range of another source that looks like a source of its own: a partition of a disk.

    Args:
        offset: bytes from the start of ``inner``; size: bytes.
    """

    def __init__(self, inner: BlockSource, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > inner.size:
            raise DeviceError(f"A window of {size} bytes at {offset} is outside a source of {inner.size} bytes.")
        self.inner = inner
        self.offset = offset
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    @property
    def sector_size(self) -> int:
        return self.inner.sector_size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self._size:
            raise DeviceError(f"{length} bytes at {offset} are outside a partition of {self._size} bytes.")
        return self.inner.read_at(self.offset + offset, length)

    def prefetch(self, offset: int, length: int) -> None:
        if isinstance(self.inner, Prefetching):
            self.inner.prefetch(self.offset + offset, length)


class BytesSource:
    """Bytes in memory as a source: headers and tables that are already read, and tests."""

    def __init__(self, content: bytes, sector_size: int = 512) -> None:
        self._content = content
        self._sector_size = sector_size

    @property
    def size(self) -> int:
        return len(self._content)

    @property
    def sector_size(self) -> int:
        return self._sector_size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > len(self._content):
            raise DeviceError(f"{length} bytes at {offset} are outside a source of {len(self._content)} bytes.")
        return self._content[offset : offset + length]
