"""The overlay: a source that can be written, without the source being written.

What is written goes to a scratch file, block by block; everything else is still read from the source below, which is
read-only by construction. The repository and the disk that was captured never learn of it. Nothing is mounted here,
and no filesystem is known: :mod:`restore.shrink.mount` shows an overlay to other programs.
"""

import contextlib
import errno
import heapq
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from core.errors import DeviceError, LiferaftError
from core.units import KIB, align_up, format_size
from images.model.extents import Extent, clip, merge
from images.sources import BlockSource

#: Bytes that are copied when a part of them is written. One bit of memory each: 32 MiB for 16 TiB.
BLOCK = 64 * KIB
#: Marks are looked at in groups of so many bytes when extents are asked for.
_STRIDE = 512


class ScratchFullError(LiferaftError):
    """The folder for scratch files has no room left."""


class Overlay:
    """A writable view of a source. Safe from several threads.

    The scratch file is sparse, has the size of the source and no name: it is gone when the process ends, however it
    ends.

    Args:
        base: what is seen where nothing was written.
        descriptor: of the scratch file, empty, opened for reading and writing. The caller closes it.
        folder: where it lies, for errors.

    Attributes:
        failure: the first error that a reader or writer met. Programs that are shown the overlay hear only a number;
            whoever started them raises this instead of what they make of it.
    """

    def __init__(self, base: BlockSource, descriptor: int, folder: Path) -> None:
        self.base = base
        self.failure: LiferaftError | None = None
        self._descriptor = descriptor
        self._folder = folder
        self._size = base.size
        # Behind this nothing of the base is seen any more: the overlay was cut there once.
        self._limit = base.size
        self._marks = bytearray(align_up(base.size, BLOCK * 8) // (BLOCK * 8))
        self._marked = 0
        self._lock = threading.RLock()

    @property
    def size(self) -> int:
        return self._size

    @property
    def sector_size(self) -> int:
        return self.base.sector_size

    @property
    def written(self) -> int:
        """Bytes of scratch in use, at most: whole blocks."""
        return self._marked * BLOCK

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            DeviceError: the range is outside, or the scratch file cannot be read.
            DamagedError: a chunk of the source below is missing or damaged.
        """
        if offset < 0 or length < 0 or offset + length > self._size:
            raise DeviceError(f"{length} bytes at {offset} are outside an overlay of {self._size} bytes.")
        with self._remembering():
            with self._lock:
                runs = list(self._runs(offset, offset + length))
            # Who reads meanwhile reads side by side: what is below never changes.
            pieces = (self._scratch(a, b - a) if marked else self._below(a, b) for a, b, marked in runs)
            return b"".join(pieces)

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of ``data``. What only a part of a block is written to is copied up first.

        Raises:
            DeviceError: the range is outside. ScratchFullError: there is no room for it.
            DamagedError: what has to be copied up is missing or damaged.
        """
        end = offset + len(data)
        if offset < 0 or end > self._size:
            raise DeviceError(f"{len(data)} bytes at {offset} are outside an overlay of {self._size} bytes.")
        if not data:
            return
        with self._lock, self._remembering():
            for number in {offset // BLOCK, (end - 1) // BLOCK}:
                first, last = number * BLOCK, min((number + 1) * BLOCK, self._size)
                if not self._is_marked(number) and (offset > first or end < last):
                    self._put(first, self._below(first, last))
            self._put(offset, data)
            for number in range(offset // BLOCK, -(-end // BLOCK)):
                self._mark(number)

    def resize(self, size: int) -> None:
        """Cut the overlay, or make it longer again: what was cut off reads as zeros then, as with a file.

        Raises:
            DeviceError: it would become larger than its source.
        """
        if not 0 <= size <= self.base.size:
            raise DeviceError(f"An overlay of {self.base.size} bytes cannot have {size}.")
        with self._lock, self._remembering():
            if size < self._size:
                self._cut(size)
            self._size = size

    def held(self) -> Iterator[Extent]:
        """What may hold other than zeros, merged and sorted: what was written, and what the source below allocates.

        Of a source that does not say what it allocates, all of it.
        """
        allocated = getattr(self.base, "allocated", None)
        below: Iterable[Extent] = allocated() if allocated is not None else iter((Extent(0, self.base.size),))
        kept = clip(below, Extent(0, min(self._limit, self._size)))
        return clip(merge(heapq.merge(kept, self._written())), Extent(0, self._size))

    def _cut(self, size: int) -> None:
        """Forget what lies behind ``size``: neither the scratch file nor the source below shows it again."""
        for number in range(-(-size // BLOCK), -(-self._size // BLOCK)):
            self._unmark(number)
        self._limit = min(self._limit, size)
        os.ftruncate(self._descriptor, size)

    def _runs(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """The parts of a range that lie in scratch, or below, in order."""
        while start < end:
            marked = self._is_marked(start // BLOCK)
            stop = (start // BLOCK + 1) * BLOCK
            while stop < end and self._is_marked(stop // BLOCK) == marked:
                stop += BLOCK
            yield start, min(stop, end), marked
            start = stop

    def _below(self, start: int, end: int) -> bytes:
        if start >= self._limit:
            return bytes(end - start)
        stop = min(end, self._limit)
        return self.base.read_at(start, stop - start) + bytes(end - stop)

    def _scratch(self, offset: int, length: int) -> bytes:
        pieces = []
        try:
            while length > 0:
                piece = os.pread(self._descriptor, length, offset)
                if not piece:
                    # The file ends where the last write did; a hole reads as zeros.
                    piece = bytes(length)
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
        except OSError as error:
            raise DeviceError(f"The scratch file in {self._folder} cannot be read: {error.strerror}.") from None
        return b"".join(pieces)

    def _put(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._descriptor, view, offset)
                view, offset = view[done:], offset + done
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise ScratchFullError(
                    f"The scratch folder {self._folder} is full: {format_size(self.written)} were written to it.",
                    hint="Name another folder with --scratch: one on a disk that is no target.",
                ) from None
            raise DeviceError(f"The scratch file in {self._folder} cannot be written: {error.strerror}.") from None

    def _is_marked(self, number: int) -> bool:
        return bool(self._marks[number >> 3] & 1 << (number & 7))

    def _mark(self, number: int) -> None:
        if not self._is_marked(number):
            self._marks[number >> 3] |= 1 << (number & 7)
            self._marked += 1

    def _unmark(self, number: int) -> None:
        if self._is_marked(number):
            self._marks[number >> 3] &= ~(1 << (number & 7))
            self._marked -= 1

    def _written(self) -> Iterator[Extent]:
        """The blocks in scratch. Most of the marks are zero: they are passed over in strides."""
        for first in range(0, len(self._marks), _STRIDE):
            if not any(self._marks[first : first + _STRIDE]):
                continue
            for number in range(first * 8, min(first + _STRIDE, len(self._marks)) * 8):
                if self._is_marked(number):
                    yield Extent(number * BLOCK, (number + 1) * BLOCK)

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except LiferaftError as error:
            self.failure = self.failure or error
            raise


@contextlib.contextmanager
def open_overlay(base: BlockSource, folder: Path) -> Iterator[Overlay]:
    """An overlay over ``base`` with its scratch file in ``folder``.

    Raises:
        DeviceError: no scratch file can be made there.
    """
    try:
        stream = tempfile.TemporaryFile(prefix="liferaft-", dir=folder)
    except OSError as error:
        raise DeviceError(
            f"No scratch file can be made in {folder}: {error.strerror}.", hint="Name another folder with --scratch."
        ) from None
    with stream:
        yield Overlay(base, stream.fileno(), folder)
