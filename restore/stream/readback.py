"""The read-back: what a target holds, chunk by chunk, compared with what a volume says.

It answers three questions with one way of reading: what need not be written because it is there already, what was
written right, and what has to be written once more. It writes nothing and raises nothing about what it finds.
"""

from collections.abc import Iterable, Iterator
from functools import partial

import msgspec

from core.errors import DeviceError
from core.events import Meter
from core.units import MIB
from images.store.pages import Slot
from restore.stream.buffers import Buffers
from restore.stream.pipeline import Pipeline
from restore.stream.placed import Placed
from restore.stream.route import Route

#: Plain bytes of neighbours read with one request.
READ_BACK = 4 * MIB
#: Requests under way at the target, beside what the cores do.
READING = 4
#: Buffers beside those that threads hold, so that none of them waits for one.
SPARE = 4


class Compared(msgspec.Struct, frozen=True):
    """A run of neighbouring chunks.

    Attributes:
        size: bytes compared.
        right: chunks that are there. wrong: those that are not.
        reason: why it could not be read, when that is why; then all of it is wrong.
    """

    size: int = 0
    right: tuple[Slot, ...] = ()
    wrong: tuple[Slot, ...] = ()
    reason: str = ""


class ReadBack:
    """Compares a target with volumes of one repository.

    Args:
        threads: that hash.
        share: among how many targets memory is shared.
    """

    def __init__(self, route: Route, threads: int, *, share: int = 1) -> None:
        self.route = route
        self._spare = max(1, SPARE // share)
        self.chunk = route.chunk
        self._threads = threads
        self._zero_ids: dict[int, bytes] = {}

    def buffers(self) -> Buffers:
        """For :meth:`compare`; may be lent to one comparison after the other, not to two at once."""
        return Buffers(READING + self._threads + self._spare, max(READ_BACK, self.chunk))

    def compare(self, placed: Placed, slots: Iterable[Slot], meter: Meter, buffers: Buffers) -> Iterator[Compared]:
        """Read the chunks, given in order, and compare them with their ids. Counts data chunks, not zero ones."""
        with Pipeline[Compared]((READING, self._threads), buffers) as pipeline:
            runs = self._runs(slots)
            yield from pipeline.run(partial(_Comparison, self, placed, run, meter) for run in runs)

    def zero_id(self, length: int) -> bytes:
        """The id of that many zero bytes."""
        if length not in self._zero_ids:
            self._zero_ids[length] = self.route.repository.identify(bytes(length))
        return self._zero_ids[length]

    def _runs(self, slots: Iterable[Slot]) -> Iterator[tuple[Slot, ...]]:
        """Slots of neighbouring chunks, as many as one buffer holds."""
        run: list[Slot] = []
        for slot in slots:
            if run and (slot.number != run[-1].number + 1 or len(run) * self.chunk >= READ_BACK):
                yield tuple(run)
                run = []
            run.append(slot)
        if run:
            yield tuple(run)


class _Comparison:
    """A run of neighbouring chunks, read back."""

    def __init__(
        self, readback: ReadBack, placed: Placed, run: tuple[Slot, ...], meter: Meter, buffer: memoryview
    ) -> None:
        self._readback = readback
        self._placed = placed
        self._run = run
        self._meter = meter
        size = (len(run) - 1) * readback.chunk + placed.length(run[-1].number, readback.chunk)
        self._view = buffer[:size]
        self._reason = ""
        self.stages = (self._read, self._compare)
        self.result = Compared()

    def _read(self) -> None:
        self._readback.route.halt()
        offset = self._placed.offset + self._run[0].number * self._readback.chunk
        try:
            self._readback.route.target.read_into(offset, self._view)
        except DeviceError as error:
            if self._readback.route.target.gone:
                raise
            self._reason = error.message

    def _compare(self) -> None:
        readback = self._readback
        wrong: list[Slot] = list(self._run) if self._reason else []
        right: list[Slot] = []
        for place, slot in enumerate(self._run):
            plain = self._view[place * readback.chunk : (place + 1) * readback.chunk]
            if not self._reason:
                same = readback.route.repository.identify(plain) == (slot.id or readback.zero_id(len(plain)))
                (right if same else wrong).append(slot)
            if slot.id is not None:
                self._meter.advance(len(plain))
        self.result = Compared(len(self._view), tuple(right), tuple(wrong), self._reason)
