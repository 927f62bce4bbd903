"""Writing a stick: an order in which it starts nothing until all of it is there and proven.

What would start the old contents is taken away first, the ISO is written without its first MiB, everything is read
back past the caches, then the rest of the head, the table's backup, and the first page, with LBA 0, last. Whoever
pulls the stick out in between has one that no firmware starts, never one that starts half a system. The guards and
the opened device are the caller's.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from builder.stick.data import DataImage
from builder.stick.layout import SECTOR, StickLayout, data_extent, interim_table
from builder.stick.marks import MARK, mark_content, mark_offsets
from core.errors import DeviceError
from core.events import Event, Meter, Sink, Stage, ticking
from core.units import MIB, align_down, align_up, counted, format_size
from images.sources import BlockSource
from images.tables.gpt_bytes import gpt_pieces
from images.tables.piece import TablePiece

#: Bytes in front that are written last: LBA 0, the table, and the ISO's volume descriptors.
HEAD = MIB
#: Bytes of one write.
_PIECE = 4 * MIB
_LYING = "Do not use this stick: it keeps less than it says, or it is failing. Return it."


class UnprovenError(DeviceError):
    """The stick does not give back what was written."""


class StickTarget(Protocol):
    """The opened stick. Offsets and lengths are bytes, multiples of its sectors."""

    node: str
    size: int

    def write_at(self, offset: int, data: bytes | memoryview) -> None: ...

    def write_zeros(self, offset: int, length: int) -> None: ...

    def read_at(self, offset: int, length: int) -> memoryview: ...

    def flush(self) -> None: ...


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was written. Bytes and seconds; ``verified``: bytes that were read back and compared."""

    written: int
    verified: int
    write_seconds: float
    verify_seconds: float


def write_stick(
    iso: BlockSource,
    target: StickTarget,
    layout: StickLayout,
    data: DataImage | None,
    sink: Sink,
    *,
    suspect: bool,
) -> Written:
    """Write a stick and prove it.

    Args:
        iso: its bytes, at least HEAD.
        layout: where everything goes; made for ``target.size``.
        data: the filesystem for a new data partition.
        suspect: the stick may be smaller than it says: find out. An image file is not.

    Raises:
        UnprovenError: it does not give back what was written. DeviceError: it failed. Either way it starts nothing.
    """
    writing = _Writing(iso, target, layout, sink)
    marks = _Marks(target, layout) if suspect and not layout.kept else None
    writing.take_away_the_old()
    if marks is not None:
        sink(Event(stage=Stage.PREFLIGHT, message=f"Marking {counted(len(marks.offsets), 'place')} of the stick"))
        marks.write()
    writing.write_body()
    writing.verify_body()
    if marks is not None:
        marks.verify()
    if data is not None:
        writing.write_data(data)
    writing.write_head()
    return writing.result()


class _Writing:
    """One run: what is done, how far."""

    def __init__(self, iso: BlockSource, target: StickTarget, layout: StickLayout, sink: Sink) -> None:
        self._iso = iso
        self._target = target
        self._layout = layout
        self._sink = sink
        self._written = self._verified = 0
        self._write_seconds = self._verify_seconds = 0.0
        table = layout.table
        self._pieces = gpt_pieces(table, layout.size, SECTOR) if table is not None else ()

    def take_away_the_old(self) -> None:
        """Nothing starts from the stick any more; of the old only the data that is kept is still named."""
        interim = interim_table(self._layout)
        if interim is not None:
            # While this is written the old backup still names the data.
            pieces = gpt_pieces(interim, self._layout.size, SECTOR)
            self._write(_laid_over(bytes(HEAD), 0, pieces), 0)
            # Only when this is on the stick, and not in its cache, may that backup go.
            self._target.flush()
            self._write_tail(pieces)
        else:
            # The backup of the old table, and what RAID and other filesystems keep at the end.
            tail = align_down(self._layout.size - MIB, MARK)
            self._target.write_zeros(0, HEAD)
            self._target.write_zeros(tail, self._layout.size - tail)
        self._target.flush()

    def write_body(self) -> None:
        """The ISO without its head."""
        started = time.monotonic()
        meter = Meter(self._sink, Stage.STICK, max(self._iso.size - HEAD, 0))
        with ticking(meter):
            for at, piece in self._body():
                self._write(piece, at)
                meter.advance(min(len(piece), self._iso.size - at))
            self._target.flush()
        self._write_seconds += time.monotonic() - started

    def verify_body(self) -> None:
        """Read it back and compare. Raises UnprovenError."""
        started = time.monotonic()
        meter = Meter(self._sink, Stage.VERIFY, max(self._iso.size - HEAD, 0))
        with ticking(meter):
            for at, piece in self._body():
                self._compare(piece, at)
                meter.advance(min(len(piece), self._iso.size - at))
        self._verify_seconds += time.monotonic() - started

    def write_data(self, data: DataImage) -> None:
        """The data partition: no signature of an earlier life at its ends, then the new filesystem."""
        place = data_extent(self._layout)
        assert place is not None
        self._sink(Event(stage=Stage.LAYOUT, message=f"Making the data partition ({format_size(place.size)})"))
        for at in (place.start, place.end - MIB):
            self._target.write_zeros(at, MIB)
        for at, piece in _used(data):
            self._write(piece, place.start + at)
        self._target.flush()
        for at, piece in _used(data):
            self._compare(piece, place.start + at)

    def write_head(self) -> None:
        """What makes the stick start: the head, the backup, and LBA 0 with the table when all else is on the stick."""
        head = _laid_over(self._iso.read_at(0, HEAD), 0, self._pieces)
        self._write(head[MARK:], MARK)
        self._write_tail(self._pieces)
        self._target.flush()
        self._compare(head[MARK:], MARK)
        for at, piece in _behind_head(self._pieces):
            self._compare(piece, at)
        self._write(head[:MARK], 0)
        self._target.flush()
        try:
            self._compare(head[:MARK], 0)
        except UnprovenError:
            with contextlib.suppress(DeviceError):
                self._target.write_zeros(0, MARK)
                self._target.flush()
            raise

    def result(self) -> Written:
        return Written(
            written=self._written,
            verified=self._verified,
            write_seconds=round(self._write_seconds, 3),
            verify_seconds=round(self._verify_seconds, 3),
        )

    def _body(self) -> Iterator[tuple[int, bytes]]:
        for at in range(HEAD, self._iso.size, _PIECE):
            length = min(_PIECE, self._iso.size - at)
            # Whole pages, which every device takes past the cache; no partition begins inside the ISO's last one.
            padded = min(align_up(length, MARK), self._layout.size - at)
            yield at, self._iso.read_at(at, length).ljust(padded, b"\0")

    def _write_tail(self, pieces: Iterable[TablePiece]) -> None:
        for at, piece in _behind_head(pieces):
            self._write(piece, at)

    def _write(self, content: bytes, at: int) -> None:
        self._target.write_at(at, content)
        self._written += len(content)

    def _compare(self, content: bytes, at: int) -> None:
        found = bytes(self._target.read_at(at, len(content)))
        if found != content:
            wrong = next(n for n in range(0, len(content), SECTOR) if found[n : n + SECTOR] != content[n : n + SECTOR])
            where = f"LBA {(at + wrong) // SECTOR} (byte {at + wrong})"
            raise UnprovenError(
                f"{self._target.node}: {where} does not hold what was written.",
                hint=_LYING,
            )
        self._verified += len(content)


class _Marks:
    """The marks of one run, behind the ISO."""

    def __init__(self, target: StickTarget, layout: StickLayout) -> None:
        self._target = target
        self._seed = os.urandom(16)
        iso = align_up(max(layout.iso, HEAD), MARK)
        self.offsets = mark_offsets(iso, layout.size, max(iso - HEAD - MARK, MARK))

    def write(self) -> None:
        for at in self.offsets:
            self._target.write_at(at, mark_content(self._seed, at))
        self._target.flush()

    def verify(self) -> None:
        """Raises UnprovenError: a place does not hold its mark."""
        lost = [at for at in self.offsets if self._target.read_at(at, MARK) != mark_content(self._seed, at)]
        if lost:
            raise UnprovenError(
                f"{self._target.node} says that it has {format_size(self._target.size)}, and of "
                f"{counted(len(self.offsets), 'place')} that were written {len(lost)} do not hold what was put there, "
                f"the first at {format_size(lost[0])} (byte {lost[0]}).",
                hint=_LYING,
            )


def _laid_over(content: bytes, at: int, pieces: Iterable[TablePiece]) -> bytes:
    """``content``, which lies at byte ``at``, with what of the pieces lies in it."""
    made = bytearray(content)
    for piece in pieces:
        if at <= piece.offset and piece.extent.end <= at + len(content):
            made[piece.offset - at : piece.extent.end - at] = piece.data
    return bytes(made)


def _behind_head(pieces: Iterable[TablePiece]) -> Iterator[tuple[int, bytes]]:
    """The table's pieces at the end of the stick."""
    return ((piece.offset, piece.data) for piece in pieces if piece.offset >= HEAD)


def _used(data: DataImage) -> Iterator[tuple[int, bytes]]:
    for extent in data.used:
        for at in range(extent.start, extent.end, _PIECE):
            yield at, data.source.read_at(at, min(_PIECE, extent.end - at))
