"""The stream to a target and its read-back: every chunk, the short last one and the zeros, and every failure."""

import mmap
import random
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import DamagedError, DeviceError, StoppedError
from core.events import Event, Meter, Stage, ignore
from core.units import GIB, MIB
from images.model.layout import DiskIdentity
from images.model.manifest import CaptureMode, Volume, VolumeRole
from images.store.pages import Slot
from images.store.repository import Repository
from restore.stream.placed import Placed
from restore.stream.stream import Proof, Streamer
from restore.stream.trail import Trail
from restore.target.candidates import Candidate
from restore.target.target import Target, open_target
from tests.flow.small import CHUNK, START, make, opened, take

#: 81 chunks, of which the last has 7 sectors.
SIZE = 80 * CHUNK + 7 * 512
ZEROS = (3, 4, 5, 40, 79)
#: Seconds until a thread that ought to act is given up; a busy machine keeps one waiting for more than ten.
PATIENCE = 60


@pytest.fixture(scope="module")
def content() -> bytes:
    """What the partition holds."""
    noise = bytearray(random.Random(7).randbytes(SIZE))
    for number in ZEROS:
        noise[number * CHUNK : (number + 1) * CHUNK] = bytes(CHUNK)
    return bytes(noise)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> tuple[Path, Placed]:
    """A repository with the partition, and where its volume is to go: 512 bytes further than a page's border."""
    folder = tmp_path_factory.mktemp("stream")
    table = bytearray(START)
    struct.pack_into("<B3xB3xII", table, 446, 0, 0x83, START // 512, SIZE // 512)
    table[510:512] = b"\x55\xaa"
    disk = folder / "disk.img"
    disk.write_bytes(bytes(table) + content)
    point = take(make(folder / "repository"), disk)
    manifest = opened(folder / "repository").manifest(point)
    volume = next(volume for volume in manifest.volumes if volume.partition)
    return folder / "repository", Placed(volume, START + 512, "here", 512)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """A file that ends with the volume, full of something else."""
    file = tmp_path / "target.img"
    size = START + 512 + SIZE
    file.write_bytes(b"\xa5" * size)
    candidate = Candidate(
        node=str(file), file=str(file), identity=DiskIdentity(), size=size, sector_size=512, contents=(), obstacles=()
    )
    with open_target(candidate) as found:
        yield found


def meter() -> Meter:
    return Meter(ignore, Stage.STREAM, 0)


@pytest.mark.parametrize("threads", [1, 5])
def test_a_volume_is_written_whole_and_nothing_else(
    stored: tuple[Path, Placed], target: Target, content: bytes, threads: int
) -> None:
    repository, placed = stored
    streamer = Streamer(opened(repository), target, threads=threads)
    count = streamer.restore(placed, meter())
    assert (count.written, count.zeroed) == (SIZE - len(ZEROS) * CHUNK, len(ZEROS) * CHUNK)
    target.flush()
    assert streamer.verify(placed, meter()) == Proof(SIZE)
    assert Path(target.node).read_bytes() == b"\xa5" * placed.offset + content


@pytest.mark.parametrize("number", [0, 3, 40, 41, 63, 64, 79, 80])
@pytest.mark.parametrize("last", [False, True], ids=["first byte", "last byte"])
def test_one_turned_bit_anywhere_is_found_and_mended(
    stored: tuple[Path, Placed], target: Target, content: bytes, number: int, last: bool
) -> None:
    repository, placed = stored
    streamer = Streamer(opened(repository), target)
    streamer.restore(placed, meter())
    target.flush()
    end = min((number + 1) * CHUNK, SIZE)
    with Path(target.node).open("r+b") as stream:
        at = end - 1 if last else number * CHUNK
        stream.seek(placed.offset + at)
        stream.write(bytes([content[at] ^ 1]))
    assert streamer.verify(placed, meter()) == Proof(SIZE, rewritten=end - number * CHUNK)
    streamer.recheck(meter())
    assert Path(target.node).read_bytes() == b"\xa5" * placed.offset + content


@pytest.mark.parametrize("number", [0, 3, 40, 80])
def test_a_place_that_never_reads_back_right_is_named(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    repository, placed = stored
    real = Target.read_into

    def read_into(self: Target, offset: int, view: memoryview) -> None:
        real(self, offset, view)
        at = placed.offset + number * CHUNK + 100 - offset
        if 0 <= at < len(view):
            view[at] ^= 1

    monkeypatch.setattr(Target, "read_into", read_into)
    streamer = Streamer(opened(repository), target)
    streamer.restore(placed, meter())
    target.flush()
    # The sectors of the target, where the volume lies one sector further on than on the source.
    first, end = placed.offset + number * CHUNK, placed.offset + min((number + 1) * CHUNK, SIZE)
    with pytest.raises(DeviceError, match=rf"not what was written: LBA {first // 512} to {end // 512 - 1}\.$"):
        streamer.verify(placed, meter())


def test_a_disk_on_which_mending_one_place_damages_another_is_found(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of half the size it says: chunk 41 and chunk 1 are the same place."""
    repository, placed = stored
    real_read, real_write = Target.read_into, Target.write_from
    shift = 40 * CHUNK

    def read_into(self: Target, offset: int, view: memoryview) -> None:
        for at in range(0, len(view), CHUNK):
            place = offset + at
            place -= shift if place >= placed.offset + shift else 0
            real_read(self, place, view[at : at + CHUNK])

    def write_from(self: Target, offset: int, aligned: memoryview) -> None:
        for at in range(0, len(aligned), CHUNK):
            place = offset + at
            place -= shift if place >= placed.offset + shift else 0
            real_write(self, place, aligned[at : at + CHUNK])

    monkeypatch.setattr(Target, "read_into", read_into)
    monkeypatch.setattr(Target, "write_from", write_from)
    monkeypatch.setattr(Target, "write_at", lambda self, offset, data: write_from(self, offset, _page_aligned(data)))
    monkeypatch.setattr(
        Target, "zero", lambda self, offset, length: write_from(self, offset, _page_aligned(bytes(length)))
    )
    monkeypatch.setattr(Target, "write_zeros", Target.zero)
    streamer = Streamer(opened(repository), target)
    streamer.restore(placed, meter())
    target.flush()
    with pytest.raises(DeviceError, match="not what was written"):
        streamer.verify(placed, meter())
        streamer.recheck(meter())


def _page_aligned(data: bytes) -> memoryview:
    buffer = memoryview(mmap.mmap(-1, len(data)))
    buffer[:] = data
    return buffer


def test_what_nobody_needs_is_discarded_unless_that_is_switched_off(
    stored: tuple[Path, Placed], target: Target, content: bytes
) -> None:
    """Chunks that the volume does not have: the old data in them must not be there any more."""
    repository, placed = stored
    thin = _Thinned(opened(repository), without=(7, 8, 80))
    count = Streamer(thin, target, discard=False).restore(placed, meter())
    assert count.discarded == 0
    left = Path(target.node).read_bytes()[placed.offset :]
    assert left[7 * CHUNK : 9 * CHUNK] == b"\xa5" * 2 * CHUNK
    count = Streamer(thin, target).restore(placed, meter())
    assert count.discarded == 2 * CHUNK + 7 * 512
    left = Path(target.node).read_bytes()[placed.offset :]
    assert left[7 * CHUNK : 9 * CHUNK] == bytes(2 * CHUNK)
    assert left[: 7 * CHUNK] == content[: 7 * CHUNK]
    assert left[9 * CHUNK : 80 * CHUNK] == content[9 * CHUNK : 80 * CHUNK]


class _Thinned(Repository):
    """The same repository, with some chunks of the volume not allocated."""

    def __init__(self, found: Repository, without: tuple[int, ...]) -> None:
        super().__init__(found.backend)
        self._without = without

    def slots(self, volume: Volume, where: str) -> Iterator[Slot]:
        return (slot for slot in super().slots(volume, where) if slot.number not in self._without)


def test_a_second_try_writes_what_does_not_match_and_no_more(
    stored: tuple[Path, Placed], target: Target, content: bytes
) -> None:
    repository, placed = stored
    Streamer(opened(repository), target).restore(placed, meter())
    target.flush()
    with Path(target.node).open("r+b") as stream:
        for number in (4, 10, 80):
            stream.seek(placed.offset + number * CHUNK + 3000)
            stream.write(b"stale")
    count = Streamer(opened(repository), target, resume=True).restore(placed, meter())
    target.flush()
    assert count.written == CHUNK + 7 * 512
    assert count.zeroed == CHUNK
    assert count.kept == SIZE - 2 * CHUNK - 7 * 512
    assert Path(target.node).read_bytes()[placed.offset :] == content


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_a_write_that_fails_is_said_and_nothing_is_written_afterwards(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    repository, placed = stored
    real, lock, calls = Target.write_from, threading.Lock(), list[bool]()
    over = threading.Event()

    def write_from(self: Target, offset: int, aligned: memoryview) -> None:
        assert not over.is_set(), "written after the error was raised"
        with lock:
            calls.append(len(calls) == fails)
            failing = calls[-1]
        if failing:
            raise DeviceError("it failed")
        real(self, offset, aligned)

    monkeypatch.setattr(Target, "write_from", write_from)
    monkeypatch.setattr("restore.stream.stream.BATCH", 8 * CHUNK)
    before = set(threading.enumerate())
    with pytest.raises(DeviceError, match="it failed"):
        Streamer(opened(repository), target).restore(placed, meter())
    over.set()
    assert set(threading.enumerate()) <= before
    assert calls.count(True) == 1


def test_a_read_back_that_fails_is_no_match(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, placed = stored
    streamer = Streamer(opened(repository), target)
    streamer.restore(placed, meter())
    target.flush()
    real = Target.read_into

    def read_into(self: Target, offset: int, view: memoryview) -> None:
        if offset + len(view) == self.size:
            raise DeviceError("unreadable")
        real(self, offset, view)

    monkeypatch.setattr(Target, "read_into", read_into)
    with pytest.raises(DeviceError, match="unreadable"):
        streamer.verify(placed, meter())


def test_a_damaged_chunk_is_not_written(stored: tuple[Path, Placed], target: Target, tmp_path: Path) -> None:
    repository, placed = stored
    found = opened(repository)
    slot = next(slot for slot in found.slots(placed.volume, "here") if slot.number == 20)
    assert slot.id is not None
    place = found.locate(slot.id)
    assert place is not None
    pack = next(repository.rglob(f"{place.pack.hex()}.pack"))
    sound = pack.read_bytes()
    damaged = bytearray(sound)
    damaged[place.offset + 80 + place.payload_length // 2] ^= 1
    pack.write_bytes(damaged)
    try:
        with pytest.raises(DamagedError, match=f"LBA {(START + 20 * CHUNK) // 512} to"):
            Streamer(found, target).restore(placed, meter())
    finally:
        pack.write_bytes(sound)
    start = placed.offset + 20 * CHUNK
    assert Path(target.node).read_bytes()[start : start + CHUNK] == b"\xa5" * CHUNK


def test_zeros_of_a_large_volume_take_no_memory(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk that is captured whole may hold little but zeros: 16 Mi chunks of them in 16 TiB.
    chunks, repository = 200_000, opened(stored[0])
    volume = Volume(
        id="disk0-part1",
        disk="disk0",
        role=VolumeRole.PARTITION,
        offset=0,
        size=chunks * CHUNK - 512,
        root=None,
        height=0,
        allocated=0,
        mode=CaptureMode.WHOLE,
    )
    zeroed: list[tuple[int, int]] = []
    monkeypatch.setattr(Repository, "slots", lambda *_: (Slot(number, None) for number in range(chunks)))
    monkeypatch.setattr(Target, "zero", lambda _, offset, length: zeroed.append((offset, length)))
    streamer = Streamer(repository, target)
    tracemalloc.start()
    try:
        count = streamer.restore(Placed(volume, MIB, "here", 512), meter())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count.zeroed == volume.size
    assert [offset for offset, _ in zeroed] == [MIB + number * GIB for number in range(len(zeroed))]
    assert sum(length for _, length in zeroed) == volume.size
    assert peak < MIB


@pytest.mark.parametrize("what", ["zero", "discard"])
def test_whoever_stops_the_work_while_it_is_zeroed_or_discarded_is_heard(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The kernel does not hear of it before it has done what it was told to: so it is told a part at a time."""
    repository, placed = stored
    monkeypatch.setattr("restore.stream.route.AT_ONCE", CHUNK)
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(Target, what, lambda _, offset, length: done.append((offset, length)))

    def halt() -> None:
        if len(done) == 2:
            raise StoppedError("stopped")

    thin = _Thinned(opened(repository), without=(20, 21, 22, 23))
    with pytest.raises(StoppedError):
        Streamer(thin, target, halt=halt).restore(placed, meter())
    first = 3 if what == "zero" else 20
    assert done == [(placed.offset + number * CHUNK, CHUNK) for number in (first, first + 1)]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trail that follows a small volume, and fetches that are small, so that there is something to follow."""
    monkeypatch.setattr("restore.stream.trail.ALONE", 4 * CHUNK)
    monkeypatch.setattr("restore.stream.trail.WINDOW", 2 * CHUNK)
    monkeypatch.setattr("restore.stream.stream.BATCH", 2 * CHUNK)
    monkeypatch.setattr("restore.stream.transfer.WRITTEN", 2 * CHUNK)


class Reads:
    """Counts which chunks of the target are read, and can turn a bit on the way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, placed: Placed) -> None:
        self.chunks: list[int] = []
        self.read = threading.Event()
        self.failure: Exception | None = None
        real = Target.read_into

        def read_into(target: Target, offset: int, view: memoryview) -> None:
            if self.failure is not None:
                raise self.failure
            first = (offset - placed.offset) // CHUNK
            self.chunks += range(first, first + -(-len(view) // CHUNK))
            real(target, offset, view)
            self.read.set()

        monkeypatch.setattr(Target, "read_into", read_into)


@pytest.mark.usefixtures("eager")
def test_every_chunk_is_read_back_once_behind_the_writing_or_at_the_end(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, placed = stored
    reads = Reads(monkeypatch, placed)
    real = Target.write_from

    def write_from(self: Target, offset: int, aligned: memoryview) -> None:
        # The last chunk waits for the trail to have read some. One writer may wait, the others bring what it reads.
        if offset == placed.offset + 80 * CHUNK:
            assert reads.read.wait(PATIENCE)
        real(self, offset, aligned)

    monkeypatch.setattr(Target, "write_from", write_from)
    streamer = Streamer(opened(repository), target)
    streamer.restore(placed, meter(), meter())
    behind = list(reads.chunks)
    assert behind
    assert not {0, 64} & set(behind), "the sample is left to the end"
    target.flush()
    assert streamer.verify(placed, meter()) == Proof(SIZE)
    assert sorted(reads.chunks) == list(range(81)), "one read of each chunk, no more"


@pytest.mark.usefixtures("eager")
def test_a_disk_that_lies_about_its_size_is_found_by_the_sample(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After everything was read back and found right, later writes come down on the first chunks."""
    repository, placed = stored
    reads = Reads(monkeypatch, placed)
    real = Target.write_from

    def write_from(self: Target, offset: int, aligned: memoryview) -> None:
        if offset == placed.offset + 80 * CHUNK:
            assert reads.read.wait(PATIENCE)
            real(self, placed.offset, aligned)
        real(self, offset, aligned)

    monkeypatch.setattr(Target, "write_from", write_from)
    streamer = Streamer(opened(repository), target)
    streamer.restore(placed, meter(), meter())
    target.flush()
    assert streamer.verify(placed, meter()).rewritten == CHUNK


@pytest.mark.usefixtures("eager")
def test_an_error_of_the_trail_ends_the_writing(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, placed = stored
    Reads(monkeypatch, placed).failure = DeviceError("it cannot be read")
    monkeypatch.setattr("restore.stream.stream.MENDED", 1)
    before = set(threading.enumerate())
    with pytest.raises(DeviceError, match="it cannot be read"):
        Streamer(opened(repository), target).restore(placed, meter(), meter())
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("failure", [DeviceError("no more writes"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_stops_the_writer_is_told_though_the_trail_failed_too(
    stored: tuple[Path, Placed], target: Target, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    repository, placed = stored
    reading, abandoned = threading.Event(), threading.Event()
    real_write, real_abandon = Target.write_from, Trail.abandon

    def write_from(self: Target, offset: int, aligned: memoryview) -> None:
        if offset == placed.offset + 80 * CHUNK:
            assert reading.wait(PATIENCE)
            raise failure
        real_write(self, offset, aligned)

    def read_into(self: Target, offset: int, view: memoryview) -> None:
        reading.set()
        assert abandoned.wait(PATIENCE)
        raise DeviceError("it cannot be read")

    def abandon(self: Trail) -> None:
        abandoned.set()
        real_abandon(self)

    monkeypatch.setattr(Target, "write_from", write_from)
    monkeypatch.setattr(Target, "read_into", read_into)
    monkeypatch.setattr(Trail, "abandon", abandon)
    before = set(threading.enumerate())
    with pytest.raises(type(failure)) as raised:
        Streamer(opened(repository), target).restore(placed, meter(), meter())
    assert raised.value is failure
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("eager")
def test_whoever_stops_the_work_while_reading_back_is_heard(stored: tuple[Path, Placed], target: Target) -> None:
    repository, placed = stored

    def stop(event: Event) -> None:
        raise StoppedError("stopped by the user")

    back = Meter(stop, Stage.VERIFY, 0, interval=0)
    before = set(threading.enumerate())
    streamer = Streamer(opened(repository), target)
    with pytest.raises(StoppedError, match="stopped by the user"):
        streamer.restore(placed, meter(), back)
    assert set(threading.enumerate()) <= before
