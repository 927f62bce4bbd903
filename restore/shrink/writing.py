"""A volume that was made smaller to its range on a target, and the read-back that proves it.

Its chunks are not those of the repository any more: each piece has a digest taken when it was read from the overlay,
where chunks are proven by the repository, and by that it is compared with what the target gives back.
"""

from collections.abc import Callable
from functools import partial

import msgspec
from blake3 import blake3

from core.errors import DeviceError
from core.events import Meter
from core.units import MIB, format_size
from images.model.extents import Extent
from restore.shrink.result import PIECE, Lot, Piece, Shrunk
from restore.stream.buffers import Buffers
from restore.stream.ground import StreamCount
from restore.stream.pipeline import Pipeline
from restore.stream.route import pieces
from restore.target.target import Target

#: Threads that read the overlay, and that write or read the target.
_READING, _WRITING = 2, 2
_DIGEST = 32
#: Zeros are compared in pieces of this size.
_ZEROS = 4 * MIB


class Writing:
    """One volume on its way.

    Args:
        offset: bytes on the target where it begins.
        where: names recovery point and volume, for errors.
        resume: keep what is there already. discard: tell the target what nobody needs.
        halt: raises StoppedError when the work is to end.
    """

    def __init__(
        self,
        shrunk: Shrunk,
        target: Target,
        offset: int,
        where: str,
        *,
        resume: bool,
        discard: bool,
        halt: Callable[[], None],
    ) -> None:
        self.shrunk = shrunk
        self.target = target
        self.offset = offset
        self.resume = resume
        self._where = where
        self._discard = discard
        self._halt = halt
        # One digest behind the other, in the order of the pieces: 16 MiB for a tebibyte.
        self._digests = bytearray()

    @property
    def size(self) -> int:
        """Bytes of data."""
        return sum(piece.extent.size for piece in self.shrunk.pieces() if piece.lot is Lot.DATA)

    def write(self, meter: Meter) -> StreamCount:
        """Write the data, then zero and discard the rest.

        Raises:
            DamagedError: a chunk is missing or damaged. DeviceError: the target failed.
        """
        count = StreamCount()
        self._digests.clear()
        data = (piece for piece in self.shrunk.pieces() if piece.lot is Lot.DATA)
        with Pipeline[_Moved]((_READING, _WRITING), Buffers(_READING + _WRITING + 2, PIECE)) as pipeline:
            for moved in pipeline.run(partial(_Transfer, self, piece.extent) for piece in data):
                self._halt()
                self._digests += moved.digest
                count += StreamCount(kept=moved.size) if moved.kept else StreamCount(written=moved.size)
                meter.advance(moved.size)
        for piece in self.shrunk.pieces():
            for extent in pieces(piece.extent, self._halt) if piece.lot is not Lot.DATA else ():
                start, size = self.offset + extent.start, extent.size
                if piece.lot is Lot.ZERO:
                    self.target.zero(start, size)
                    count += StreamCount(zeroed=size)
                elif self._discard and self.target.discard(start, size):
                    count += StreamCount(discarded=size)
        return count

    def verify(self, meter: Meter) -> StreamCount:
        """Read everything back but what is free; what is wrong is written once more, and read again.

        Returns:
            the bytes that had to be written once more.

        Raises:
            DeviceError: the target does not give back what was written.
        """
        self.target.flush()
        place = rewritten = 0
        for piece in self.shrunk.pieces():
            if piece.lot is Lot.FREE:
                continue
            self._halt()
            if piece.lot is Lot.ZERO:
                rewritten += self._prove_zeros(piece)
                continue
            digest = bytes(self._digests[place : place + _DIGEST])
            place += _DIGEST
            if not self._holds(piece.extent, digest):
                self.target.write_at(self.offset + piece.extent.start, self._read(piece.extent, digest))
                self.target.flush()
                if not self._holds(piece.extent, digest):
                    raise self._wrong(piece.extent)
                rewritten += piece.extent.size
            meter.advance(piece.extent.size)
        return StreamCount(rewritten=rewritten)

    def _holds(self, extent: Extent, digest: bytes) -> bool:
        """Whether the target holds what was written to a range."""
        return blake3(self.target.read_at(self.offset + extent.start, extent.size)).digest() == digest

    def _read(self, extent: Extent, digest: bytes) -> bytes:
        """The bytes of a range once more.

        Raises:
            DeviceError: the overlay gives other bytes than before.
        """
        content = self.shrunk.overlay.read_at(extent.start, extent.size)
        if blake3(content).digest() != digest:
            raise DeviceError(
                f"{self._where}: bytes {extent.start} to {extent.end} of scratch are not what they were.",
                hint="The disk with the scratch folder fails. Name another: --scratch, or F3 at the wizard's plan.",
            )
        return content

    def _prove_zeros(self, piece: Piece) -> int:
        """Compare a range with zeros. Returns the bytes that had to be zeroed once more."""
        rewritten = 0
        for start in range(piece.extent.start, piece.extent.end, _ZEROS):
            extent = Extent(start, min(start + _ZEROS, piece.extent.end))
            if self._is_zero(extent):
                continue
            self.target.write_at(self.offset + extent.start, bytes(extent.size))
            self.target.flush()
            if not self._is_zero(extent):
                raise self._wrong(extent)
            rewritten += extent.size
        return rewritten

    def _is_zero(self, extent: Extent) -> bool:
        start = self.offset + extent.start
        return self.target.is_hole(start, extent.size) or not any(self.target.read_at(start, extent.size))

    def _wrong(self, extent: Extent) -> DeviceError:
        start = self.offset + extent.start
        return DeviceError(
            f"{self._where}: what {self.target.node} holds at bytes {start} to {start + extent.size} is not what was "
            f"written ({format_size(extent.size)}).",
            hint="The disk is failing, or something else wrote to it. Do not trust it.",
        )


class _Moved(msgspec.Struct, frozen=True):
    """What became of one piece."""

    size: int = 0
    digest: bytes = b""
    kept: bool = False


class _Transfer:
    """One piece on its way to the target."""

    def __init__(self, writing: Writing, extent: Extent, buffer: memoryview) -> None:
        self._writing = writing
        self._extent = extent
        self._buffer = buffer[: extent.size]
        self.stages = (self._read, self._write)
        self.result = _Moved()

    def _read(self) -> None:
        self._buffer[:] = self._writing.shrunk.overlay.read_at(self._extent.start, self._extent.size)

    def _write(self) -> None:
        writing, start = self._writing, self._writing.offset + self._extent.start
        digest = blake3(self._buffer).digest()
        kept = writing.resume and blake3(writing.target.read_at(start, self._extent.size)).digest() == digest
        if not kept:
            writing.target.write_from(start, self._buffer)
        self.result = _Moved(self._extent.size, digest, kept)
