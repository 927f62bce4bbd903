"""Targets: an open disk or file that is written, and the way to open one.

Nothing is opened that has obstacles (``candidates.py``), that somebody else holds, or that is another disk or file now.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from core.errors import DeviceError, RefusedError
from restore.target.candidates import Candidate

#: Seconds to wait for whoever holds a target's lock.
LOCK_PATIENCE = 30.0
_FALLOC_ZERO = 0x10 | 0x01  # FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
_BLKDISCARD = 0x1277  # linux/fs.h: _IO(0x12, 119)
#: The number of no file: with it every call fails with EBADF.
_CLOSED = 0x7FFFFFFF
_FALLOC_PUNCH = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_FAILING = "The disk may be failing or full. Running the same restore again goes on where it stopped."


class Target:
    """An open target. Offsets and lengths are bytes, multiples of the sector size. Safe from several threads.

    Writes and read-backs go past the page cache where the device can, so that verifying reads what
    the disk holds and not what memory remembers.
    """

    def __init__(self, node: str, descriptor: int, size: int, sector_size: int) -> None:
        self.node = node
        self.size = size
        self.sector_size = sector_size
        self._descriptor = descriptor
        self._local = threading.local()
        self._zeros = mmap.mmap(-1, 1 << 20)
        self._block = stat.S_ISBLK(os.fstat(descriptor).st_mode)
        self._discards = True

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of ``data``. Raises DeviceError."""
        self._bound(offset, len(data))
        buffer = self._buffer(len(data))
        buffer[: len(data)] = data
        self._write(offset, memoryview(buffer)[: len(data)])

    def write_from(self, offset: int, aligned: memoryview) -> None:
        """Write all of ``aligned``, which starts on a page boundary, without copying it. Raises DeviceError."""
        self._bound(offset, len(aligned))
        self._write(offset, aligned)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, by the cheapest way the target has. Raises DeviceError."""
        self._bound(offset, length)
        for mode in (_FALLOC_PUNCH, _FALLOC_ZERO):
            if _fallocate(self._descriptor, mode, offset, length):
                return
        self.write_zeros(offset, length)

    def write_zeros(self, offset: int, length: int) -> None:
        """The same by writing them, where the cheap way was not believed. Raises DeviceError."""
        self._bound(offset, length)
        view = memoryview(self._zeros)
        for at in range(offset, offset + length, len(view)):
            self._write(at, view[: min(len(view), offset + length - at)])

    def discard(self, offset: int, length: int) -> bool:
        """Tell the target that nobody needs a range any more; what it reads as afterwards is not said.

        Returns:
            whether the target took it; not every one can.
        """
        self._bound(offset, length)
        if self._discards and self._block:
            try:
                fcntl.ioctl(self._descriptor, _BLKDISCARD, struct.pack("QQ", offset, length))
            except OSError:
                self._discards = False
        elif self._discards:
            self._discards = _fallocate(self._descriptor, _FALLOC_PUNCH, offset, length)
        return self._discards

    def is_hole(self, offset: int, length: int) -> bool:
        """Whether a range of an image file is a hole, and so reads as zeros; False where nobody knows."""
        if self._block:
            return False
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA) >= offset + length
        except OSError as error:
            return error.errno == errno.ENXIO

    def read_at(self, offset: int, length: int) -> memoryview:
        """Read back; the view is valid until this thread's next call. Raises DeviceError."""
        view = memoryview(self._buffer(length))[:length]
        self.read_into(offset, view)
        return view

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view``, which starts on a page boundary. Raises DeviceError."""
        length = len(view)
        self._bound(offset, length)
        done = 0
        try:
            while done < length:
                count = os.preadv(self._descriptor, [view[done:]], offset + done)
                if count == 0:
                    raise self._failed("reading back", offset, length, "it ends before")
                done += count
        except OSError as error:
            raise self._failed("reading back", offset, length, str(error.strerror)) from None

    def flush(self) -> None:
        """Everything written is on the disk when this returns; nothing of it stays in the page cache."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if self.gone:
                raise self._lost() from None
            # The kernel keeps no address for what a cache did not get rid of.
            raise DeviceError(
                f"{self.node}: flushing failed: {error.strerror}. Some of what was written is not there.",
                hint=f"The kernel's log (dmesg) may say which sectors. {_FAILING}",
            ) from None
        if self.gone:
            raise self._lost()
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if size != self.size:
            raise DeviceError(f"{self.node} has {size} bytes now, and had {self.size} when it was opened.")
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Nothing goes through it any more, from no thread that is still at work: its number may be another file's."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        os.close(descriptor)

    @property
    def gone(self) -> bool:
        """Whether the disk is not there any more: one that was taken out, or that its controller gave up."""
        # The kernel makes a disk that it removes one of no bytes (block/genhd.c, __blk_mark_disk_dead); whoever writes
        # to it then is told that no space is left.
        try:
            return self._block and os.lseek(self._descriptor, 0, os.SEEK_END) == 0
        except OSError:
            return False

    def _failed(self, doing: str, offset: int, length: int, reason: str) -> DeviceError:
        """What to raise when the system did not read or write a range."""
        if self.gone:
            return self._lost()
        first, behind = offset // self.sector_size, -(-(offset + length) // self.sector_size)
        place = f"{length} bytes at {offset} (LBA {first} to {behind - 1})"
        return DeviceError(f"{self.node}: {doing} {place} failed: {reason}.", hint=_FAILING)

    def _lost(self) -> DeviceError:
        return DeviceError(
            f"{self.node} is gone: the disk was taken out, or does not answer any more.",
            hint="Look at its cables and its power. Running the same restore again goes on where it stopped.",
        )

    def _bound(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DeviceError(f"{self.node}: {length} bytes at {offset} are outside its {self.size} bytes.")

    def _write(self, offset: int, view: memoryview) -> None:
        done = 0
        try:
            while done < len(view):
                done += os.pwritev(self._descriptor, [view[done:]], offset + done)
        except OSError as error:
            raise self._failed("writing", offset, len(view), str(error.strerror)) from None

    def _buffer(self, length: int) -> mmap.mmap:
        """This thread's page-aligned buffer, as O_DIRECT needs it."""
        found = getattr(self._local, "buffer", None)
        if found is None or len(found) < length:
            found = self._local.buffer = mmap.mmap(-1, max(length, 1 << 20))
        assert isinstance(found, mmap.mmap)
        return found


@contextlib.contextmanager
def open_target(candidate: Candidate, kind: type[Target] = Target) -> Iterator[Target]:
    """Open a target for writing, as a ``kind``, locked against udev and other programs that honour the lock.

    Raises:
        RefusedError: something speaks against it, or another program holds it. Nothing was written.
    """
    if candidate.obstacles:
        raise RefusedError(f"{candidate.node} may not be written.", reasons=candidate.obstacles)
    exclusive = os.O_EXCL if stat.S_ISBLK(Path(candidate.node).stat().st_mode) else 0
    try:
        os.close(os.open(candidate.node, os.O_RDONLY | exclusive | os.O_CLOEXEC))
        descriptor = os.open(candidate.node, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        held = " by the kernel (mounted, in a RAID, mapped)" if error.errno == errno.EBUSY else ""
        raise RefusedError(
            f"{candidate.node} cannot be opened for writing: {error.strerror}{held}.", hint="Writing a disk needs root."
        ) from None
    try:
        _lock(candidate.node, descriptor)
        _same_as_ever(candidate, descriptor)
        _go_direct(descriptor, candidate.sector_size)
        target = kind(candidate.node, descriptor, candidate.size, candidate.sector_size)
    except BaseException:
        os.close(descriptor)
        raise
    try:
        yield target
    finally:
        target.close()


def _same_as_ever(candidate: Candidate, descriptor: int) -> None:
    """Refuse another disk, or file, that has the name now."""
    size, found = os.lseek(descriptor, 0, os.SEEK_END), os.fstat(descriptor)
    if size != candidate.size:
        raise RefusedError(f"{candidate.node} has {size} bytes now, and had {candidate.size} when it was looked at.")
    if candidate.plain and candidate.inode != f"{found.st_dev}:{found.st_ino}":
        raise RefusedError(f"{candidate.node} is another file now than the one that was looked at.")


def _lock(node: str, descriptor: int) -> None:
    """Keep udev and other programs that honour the lock away, for as long as the target is open.

    udev itself holds the lock for a moment whenever it looks at a disk, so a busy one is waited for.

    Raises:
        RefusedError: somebody holds it for longer than that.
    """
    until = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise RefusedError(
                    f"Another program works on {node}.", hint="Wait for it to end, or end it, and try again."
                ) from None
            time.sleep(0.2)


def _go_direct(descriptor: int, sector_size: int) -> None:
    """Switch to O_DIRECT where the target takes it; elsewhere (tmpfs) the page cache stays in between."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        # One sector at one sector's offset: a file on a disk with larger sectors refuses that.
        os.preadv(descriptor, [memoryview(mmap.mmap(-1, 4096))[:sector_size]], sector_size)
    except OSError:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> bool:
    """Python's os.posix_fallocate has no modes; the C library's fallocate does."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.fallocate64(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0)
