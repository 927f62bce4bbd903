"""The stream: chunks of a volume to their LBA range, and the read-back that proves it.

Neighbouring records of a pack are fetched together, decompressed and hashed into a page-aligned
buffer, and written; each of the three has threads of its own (``pipeline.py``). A chunk reaches the
target only if its digest matched.

Verifying reads every chunk back from the device once, after a flush: most of them behind the writing, where the
device serves both at once (``trail.py``), the rest in a pass of its own at the end. A sample of the chunks is always
left for the end: a disk that lies about its size puts later writes over earlier ones, after they were read back.
What reads back wrong is fetched anew and written once more; on a disk where that happened everything is read again.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import msgspec

from core.errors import DeviceError
from core.events import Meter, Stage, ignore
from core.units import MIB
from images.store.pages import Slot
from images.store.repository import Repository
from restore.stream.buffers import Buffers
from restore.stream.ground import Ground, StreamCount
from restore.stream.marks import Marks
from restore.stream.notes import Notes
from restore.stream.pipeline import Pipeline
from restore.stream.placed import Placed
from restore.stream.readback import Compared, ReadBack
from restore.stream.route import Route, go_on
from restore.stream.trail import Trail
from restore.stream.transfer import Fetch, Moved, Transfer, Wanted, joins
from restore.target.target import Target

#: Plain bytes of one fetch. Over a network every request costs a round trip and our time, so that fewer are better.
BATCH = 4 * MIB
DISTANT_BATCH = 12 * MIB
#: Plain bytes under way, whatever the number of cores; on several targets less, since each has its other buffers.
UNDER_WAY, UNDER_WAY_TOGETHER = 96 * MIB, 64 * MIB
#: Requests under way at the repository, and at the target, beside what the cores do.
FETCHING = 4
WRITING = 4
#: One chunk in so many is read back at the end in any case.
SAMPLE = 64
#: Chunks that are looked at to tell whether a whole volume is worth it.
SPOTS = 32
#: Chunks that may read back wrong before a disk is given up.
MENDED = 256


class Proof(msgspec.Struct, frozen=True):
    """What a read-back found: bytes that are as they should be, and those of them that were written once more."""

    verified: int = 0
    rewritten: int = 0


class Streamer:
    """Streams volumes of one repository to one target.

    Args:
        resume: look at the target first and keep chunks that match already.
        threads: 0 means one for each core.
        share: among how many targets memory is shared.
        discard, halt: as in Route.
    """

    def __init__(
        self,
        repository: Repository,
        target: Target,
        *,
        resume: bool = False,
        threads: int = 0,
        share: int = 1,
        discard: bool = True,
        halt: Callable[[], None] = go_on,
    ) -> None:
        self._route = Route(repository=repository, target=target, discard=discard, halt=halt)
        self.repository = repository
        self.target = target
        self.resume = resume
        self.chunk = repository.chunk_size
        self._threads = threads or os.cpu_count() or 2
        self._under_way = UNDER_WAY if share == 1 else UNDER_WAY_TOGETHER // share
        self._batch = min(DISTANT_BATCH if repository.backend.distant else BATCH, self._under_way // FETCHING)
        self._back = ReadBack(self._route, self._threads, share=share)
        # By volume: chunks that need not be written, and those of which that is proven.
        self._kept: dict[str, Marks] = {}
        self._seen: dict[str, Marks] = {}
        self._looked: set[str] = set()
        self._trusted = 0
        self._proven: list[Placed] = []
        self._mended = False

    def trust(self, placed: Placed, runs: Iterable[range]) -> bool:
        """Keep chunks that somebody says are there, if some of them are. They are read back at the end, too.

        Returns:
            False when one of those that were looked at is not there: then none is kept.
        """
        said = Marks(placed.chunks(self.chunk))
        for run in runs:
            said.update(run)
        every = max(1, len(said) // SPOTS)
        named = (slot for slot in self.repository.slots(placed.volume, placed.where) if slot.number in said)
        spots = [slot for place, slot in enumerate(named) if place % every == 0]
        if any(found.wrong for found in self._compare_quietly(placed, spots)):
            return False
        kept = self._kept.setdefault(placed.volume.id, Marks(said.count))
        kept.update(slot.number for slot in self.repository.slots(placed.volume, placed.where) if slot.number in said)
        self._trusted += len(kept)
        return True

    def resembles(self, placed: Placed) -> bool:
        """Whether one of some chunks of the volume, taken from all over it, is where it belongs."""
        every = max(1, placed.chunks(self.chunk) // SPOTS)
        slots = self.repository.slots(placed.volume, placed.where)
        spots = [slot for slot in slots if slot.id is not None and slot.number % every == 0]
        return any(found.right for found in self._compare_quietly(placed, spots))

    def look(self, placed: Placed, meter: Meter) -> Marks:
        """Read what is on the target and keep what matches; gives it, with what :meth:`trust` was told."""
        volume, count = placed.volume.id, placed.chunks(self.chunk)
        self._looked.add(volume)
        kept = self._kept.setdefault(volume, Marks(count))
        seen = self._seen.setdefault(volume, Marks(count))
        buffers = self._back.buffers()
        for found in self._back.compare(placed, self._unknown(placed, kept, seen), meter, buffers):
            for slot in found.right:
                kept.add(slot.number)
                if slot.number % SAMPLE:
                    seen.add(slot.number)
        return kept

    def kept(self, volume: str) -> Marks:
        """The chunks of a volume that will not be written."""
        return self._kept.get(volume, Marks(0))

    def restore(
        self,
        placed: Placed,
        meter: Meter,
        back: Meter | None = None,
        note: Callable[[Sequence[Slot]], None] | None = None,
    ) -> StreamCount:
        """Write a volume, without what is kept.

        Args:
            back: read back meanwhile what was written, where that pays, and count it here.
            note: told from time to time of chunks that lie on the target for good.

        Raises:
            DamagedError: a chunk is missing or damaged; names recovery point, volume and LBA range.
                It was not written.
            DeviceError: the target failed, or does not give back what was written.
        """
        if self.resume and placed.volume.id not in self._looked:
            self.look(placed, Meter(ignore, Stage.COMPARE, 0))
        ground = Ground(self._route, placed)
        count = StreamCount()
        trail = self._trail(placed, back) if back is not None else None
        notes = Notes(self.target, note)
        try:
            with Pipeline[Moved]((FETCHING, self._threads, WRITING), self._buffers()) as pipeline:
                fetches = self._fetches(placed, ground)
                for done in pipeline.run(partial(Transfer, self._route, placed, fetch, meter) for fetch in fetches):
                    count += StreamCount(written=done.written)
                    notes.written(done.chunks)
                    if trail is not None:
                        trail.written([slot for slot in done.chunks if slot.number % SAMPLE])
        except BaseException:
            # What stopped the writing is told, not what the trail met meanwhile.
            if trail is not None:
                trail.abandon()
            raise
        if trail is not None:
            self._seen.setdefault(placed.volume.id, Marks(placed.chunks(self.chunk))).join(trail.end())
        notes.finish()
        meter.advance(ground.kept)
        return count + ground.finish()

    def verify(self, placed: Placed, meter: Meter) -> Proof:
        """Read back what was not read back yet and compare each chunk with its id; mend what is wrong.

        Raises:
            DeviceError: what is on the target is not what was written, though it was written twice; names the LBA
                ranges.
        """
        seen = self._seen.pop(placed.volume.id, Marks(0))
        last = placed.chunks(self.chunk) - 1
        verified = len(seen) * self.chunk
        if last in seen:
            verified -= self.chunk - placed.length(last, self.chunk)
        slots = self.repository.slots(placed.volume, placed.where)
        left = (slot for slot in slots if slot.number not in seen)
        wrong: list[Slot] = []
        for found in self._back.compare(placed, left, meter, self._back.buffers()):
            verified += found.size
            wrong += found.wrong
            # What somebody only said was there may be wrong without the disk being to blame.
            if len(wrong) > MENDED + self._trusted:
                raise self._wrong(placed, wrong, found.reason)
        self._proven.append(placed)
        return Proof(verified, self._mend(placed, wrong) if wrong else 0)

    def recheck(self, meter: Meter) -> None:
        """Read everything again on a disk where something was mended: mending one place must not damage another.

        Raises:
            DeviceError: something is wrong now that was right before: the disk lies about its size, or fails.
        """
        if not self._mended:
            return
        self.target.flush()
        for placed in self._proven:
            slots = self.repository.slots(placed.volume, placed.where)
            for found in self._back.compare(placed, slots, meter, self._back.buffers()):
                if found.wrong:
                    raise self._wrong(placed, found.wrong, found.reason)

    def _mend(self, placed: Placed, wrong: Sequence[Slot]) -> int:
        """Write chunks that read back wrong once more, from a fresh fetch, and read them again. Gives the bytes."""
        self._mended = True
        for slot in wrong:
            self._route.halt()
            offset = placed.offset + slot.number * self.chunk
            if slot.id is None:
                self.target.write_zeros(offset, placed.length(slot.number, self.chunk))
            else:
                self.target.write_at(offset, self.repository.read_chunk(slot.id, placed.name(slot.number, self.chunk)))
        self.target.flush()
        for found in self._compare_quietly(placed, wrong):
            if found.wrong:
                raise self._wrong(placed, found.wrong, found.reason)
        return sum(placed.length(slot.number, self.chunk) for slot in wrong)

    def _compare_quietly(self, placed: Placed, slots: Iterable[Slot]) -> Iterator[Compared]:
        """Without counting."""
        return self._back.compare(placed, slots, Meter(ignore, Stage.VERIFY, 0), self._back.buffers())

    def _wrong(self, placed: Placed, wrong: Sequence[Slot], reason: str) -> DeviceError:
        shown = "; ".join(self._lbas(placed, slot) for slot in wrong[:5])
        shown += f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        because = f" ({reason.rstrip('.')})" if reason else ""
        return DeviceError(
            f"{placed.where}: what {self.target.node} holds is not what was written: {shown}{because}.",
            hint="The disk is failing, or something else wrote to it. Do not trust it.",
        )

    def _lbas(self, placed: Placed, slot: Slot) -> str:
        """The sectors of the target that a chunk takes, inclusive as people say them."""
        start, size = placed.offset + slot.number * self.chunk, self.target.sector_size
        return f"LBA {start // size} to {(start + placed.length(slot.number, self.chunk)) // size - 1}"

    def _trail(self, placed: Placed, meter: Meter) -> Trail:
        # Lent to every window in turn: new ones for each would stay until the garbage collector comes round.
        buffers = self._back.buffers()
        wrong: list[Slot] = []

        def read_back(slots: Sequence[Slot]) -> Sequence[int]:
            right: list[int] = []
            for found in self._back.compare(placed, slots, meter, buffers):
                right += [slot.number for slot in found.right]
                wrong.extend(found.wrong)
                if len(wrong) > MENDED:
                    raise self._wrong(placed, wrong, found.reason)
            return right

        return Trail(self.target.flush, read_back, self.chunk, placed.chunks(self.chunk))

    def _buffers(self) -> Buffers:
        """As many as there are threads, in bounded memory; each holds a batch, or one chunk if that is more."""
        size = max(self._batch, self.chunk)
        return Buffers(max(FETCHING, min(FETCHING + self._threads + WRITING, self._under_way // size)), size)

    def _unknown(self, placed: Placed, kept: Marks, seen: Marks) -> Iterator[Slot]:
        """What has to be read to know whether it matches: a hole of an image file holds zeros."""
        for slot in self.repository.slots(placed.volume, placed.where):
            if slot.number in kept:
                continue
            if slot.id is None and self.target.is_hole(
                placed.offset + slot.number * self.chunk, placed.length(slot.number, self.chunk)
            ):
                kept.add(slot.number)
                seen.add(slot.number)
                continue
            yield slot

    def _fetches(self, placed: Placed, ground: Ground) -> Iterator[Fetch]:
        """Gather neighbours; runs of zero chunks, which a volume can have millions of, and gaps go to ``ground``."""
        group: list[Wanted] = []
        kept = self.kept(placed.volume.id)
        for slot in self.repository.slots(placed.volume, placed.where):
            ground.meet(slot, slot.number in kept)
            if slot.id is None or slot.number in kept:
                continue
            place = self.repository.locate(slot.id)
            if place is None:
                raise self.repository.missing(slot.id, placed.name(slot.number, self.chunk))
            wanted = Wanted(slot.number, slot.id, place)
            if group and not joins(group, wanted, max(1, self._batch // self.chunk)):
                yield Fetch(tuple(group))
                group = []
            group.append(wanted)
        if group:
            yield Fetch(tuple(group))
