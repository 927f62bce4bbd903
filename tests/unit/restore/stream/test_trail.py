"""The trail: what it reads back and when, that it gives up, fails and ends as it should, and how much it remembers."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence

import pytest

from core.errors import DeviceError, StoppedError
from core.units import GIB, MIB
from images.store.pages import Slot
from restore.stream import trail
from restore.stream.trail import Trail

#: So large that one chunk is a window, and eight of them are what is written alone.
CHUNK = trail.WINDOW
ALONE = trail.ALONE // CHUNK
COUNT = 1 << 20
CHUNKS_OF_TRIAL = trail.TRIAL // CHUNK


class Device:
    """Records what the trail does, holds it up where the test says so, and owns the time."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.read: list[list[int]] = []
        self.now = 0.0
        self.may_read = threading.Semaphore(0)
        self.has_read = threading.Semaphore(0)
        self.seconds = 0.0
        self.wrong: set[int] = set()
        self.failure: BaseException | None = None

    def flush(self) -> None:
        self.log.append("flush")

    def read_back(self, slots: Sequence[Slot]) -> Sequence[int]:
        self.may_read.acquire()
        self.log.append("read")
        self.read.append([slot.number for slot in slots])
        self.now += self.seconds
        self.has_read.release()
        if self.failure is not None:
            raise self.failure
        return [slot.number for slot in slots if slot.number not in self.wrong]

    def let_read(self, times: int = 1) -> None:
        """Let it read so often, and wait until it has."""
        for _ in range(times):
            self.may_read.release()
            assert self.has_read.acquire(timeout=60), "nothing was read"


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def start(device: Device) -> Iterator[Callable[[], Trail]]:
    """Starts trails; in the end no thread of theirs is left."""
    before = set(threading.enumerate())
    yield lambda: Trail(device.flush, device.read_back, CHUNK, COUNT, clock=lambda: device.now)
    assert set(threading.enumerate()) <= before


def slots(*numbers: int) -> list[Slot]:
    return [Slot(number, number.to_bytes(32)) for number in numbers]


def test_what_was_written_is_flushed_and_then_read_in_order(device: Device, start: Callable[[], Trail]) -> None:
    found = start()
    found.written(slots(5, 3, 4, *range(10, 10 + ALONE - 3)))
    device.let_read(2)
    seen = found.end()
    assert device.log == ["flush", "read"] * 2
    # No more at once than the largest window holds; within it in the order of the disk.
    assert trail.LARGEST == 4 * CHUNK
    assert device.read == [[3, 4, 5, 10], [11, 12, 13, 14]]
    assert [number for number in range(20) if number in seen] == [3, 4, 5, 10, 11, 12, 13, 14]
    assert len(seen) == ALONE


def test_nothing_is_read_before_it_is_known_how_fast_writing_is(device: Device, start: Callable[[], Trail]) -> None:
    device.may_read.release(100)
    found = start()
    for number in range(ALONE - 1):
        found.written(slots(number))
    assert len(found.end()) == 0
    assert device.log == []


def test_what_is_not_right_is_not_among_what_was_seen(device: Device, start: Callable[[], Trail]) -> None:
    device.wrong = {2}
    found = start()
    found.written(slots(*range(ALONE)))
    device.let_read(2)
    seen = found.end()
    assert 2 not in seen
    assert len(seen) == ALONE - 1


@pytest.mark.parametrize("failure", [DeviceError("unreadable"), StoppedError("stop"), KeyboardInterrupt()], ids=repr)
def test_a_failure_is_raised_to_the_writer_and_at_the_end(
    device: Device, start: Callable[[], Trail], failure: BaseException
) -> None:
    device.failure = failure
    found = start()
    found.written(slots(*range(ALONE)))
    device.let_read()
    found._thread.join(60)
    with pytest.raises(type(failure)) as raised:
        found.written(slots(100))
    assert raised.value is failure
    with pytest.raises(type(failure)) as raised:
        found.end()
    assert raised.value is failure
    assert len(device.read) == 1


def test_a_flush_that_fails_is_a_failure_too(
    device: Device, start: Callable[[], Trail], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush() -> None:
        raise DeviceError("flushing failed")

    monkeypatch.setattr(device, "flush", flush)
    found = start()
    found.written(slots(*range(ALONE)))
    found._thread.join(60)
    with pytest.raises(DeviceError, match="flushing failed"):
        found.end()
    assert device.read == []


def test_whoever_abandons_it_hears_nothing_of_its_failure(device: Device, start: Callable[[], Trail]) -> None:
    device.failure = DeviceError("unreadable")
    found = start()
    found.written(slots(*range(ALONE)))
    device.let_read()
    found.abandon()
    assert not found._thread.is_alive()


def test_the_end_does_not_wait_for_what_still_waits(device: Device, start: Callable[[], Trail]) -> None:
    found = start()
    found.written(slots(*range(1000)))
    # One window is under way and may end; the other 996 chunks are left to the end of the work.
    ender = threading.Thread(target=found.abandon)
    while not device.log:
        pass
    ender.start()
    while not found._closed:
        pass
    device.let_read()
    ender.join(60)
    assert not ender.is_alive()
    assert len(device.read) == 1


def _write_at(device: Device, rate: float, found: Trail, numbers: range) -> None:
    """The writer's chunks, one by one, at so many bytes a second."""
    for number in numbers:
        device.now += CHUNK / rate
        found.written(slots(number))


# Writing alone: 1 GiB/s. Then, in the time in which 1 GiB was read back, the device took as much in writes as is said:
# bytes moved in both directions must be 1.05 times what writing alone moves.
@pytest.mark.parametrize(("seconds", "goes_on"), [(1.0, True), (1.8, True), (1.95, False), (4.0, False)])
def test_it_stops_where_reading_costs_as_much_writing_as_it_brings(
    device: Device, start: Callable[[], Trail], seconds: float, goes_on: bool
) -> None:
    chunks = GIB // CHUNK
    found = start()
    _write_at(device, GIB, found, range(ALONE))
    # What the trail begins with was written alone; another GiB is written while it reads its trial.
    while not device.log:
        pass
    found.written(slots(*range(ALONE, ALONE + chunks)))
    rounds = trail.TRIAL // trail.LARGEST
    device.seconds = seconds / rounds
    device.let_read(rounds)
    if goes_on:
        device.let_read()
    else:
        found._thread.join(60)
        assert not found._thread.is_alive()
        found.written(slots(1000))
    device.may_read.release(10)
    seen = found.end()
    assert len(seen) == CHUNKS_OF_TRIAL if not goes_on else len(seen) > CHUNKS_OF_TRIAL
    assert 1000 not in seen


def test_a_short_hiccup_before_the_trial_is_over_stops_nothing(device: Device, start: Callable[[], Trail]) -> None:
    found = start()
    _write_at(device, GIB, found, range(100))
    device.seconds = 60.0
    device.let_read()
    device.seconds = 0.0
    device.let_read()
    device.may_read.release(100)
    found.end()
    assert len(device.read) >= 2


@pytest.mark.parametrize("ended", [False, True], ids=["reading hangs", "it gave up"])
def test_what_it_remembers_does_not_grow_with_the_volume(
    device: Device, start: Callable[[], Trail], ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "WAITING", 1000)
    found = start()
    if ended:
        device.seconds = 1e9
        found.written(slots(*range(1000)))
        device.let_read(CHUNKS_OF_TRIAL // (trail.LARGEST // CHUNK))
        found._thread.join(60)
    tracemalloc.start()
    try:
        for number in range(0, 200_000, 100):
            found.written(slots(*range(number, number + 100)))
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    device.may_read.release(1000)
    found.end()
    # A slot with its id and number takes about 200 bytes: all 200 000 would be 40 MB.
    assert now < MIB
