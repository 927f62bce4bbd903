"""The pipeline: order, failure, an end without waiting for ever; its buffers."""

import ctypes
import mmap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from restore.stream.buffers import Buffers
from restore.stream.pipeline import Pipeline


class _Job:
    """Adds its number to what each stage saw; may be slow, may fail."""

    def __init__(self, number: int, seen: list[tuple[int, int]], trouble: Callable[[int], None], _: memoryview) -> None:
        self.result = number
        self._seen = seen
        self._trouble = trouble
        self.stages = tuple(partial(self._stage, at) for at in range(3))

    def _stage(self, at: int) -> None:
        self._trouble(at)
        self._seen.append((self.result, at))


def _jobs(
    count: int, seen: list[tuple[int, int]], trouble: Callable[[int, int], None]
) -> Iterator[Callable[[memoryview], _Job]]:
    for number in range(count):
        yield partial(_Job, number, seen, partial(trouble, number))


def _later_ones_are_faster(number: int, stage: int) -> None:
    time.sleep(0.002 * (5 - number % 5))


def test_results_come_in_order_after_all_stages() -> None:
    seen: list[tuple[int, int]] = []
    with Pipeline[int]((3, 2, 4), Buffers(6, 4096)) as pipeline:
        assert list(pipeline.run(_jobs(40, seen, _later_ones_are_faster))) == list(range(40))
    for number in range(40):
        assert [stage for found, stage in seen if found == number] == [0, 1, 2]


def test_no_more_tasks_are_under_way_than_there_are_buffers() -> None:
    lock, most, now = threading.Lock(), 0, 0

    def count(number: int, stage: int) -> None:
        nonlocal most, now
        with lock:
            now += stage == 0
            most = max(most, now)
        time.sleep(0.001)
        with lock:
            now -= stage == 2

    with Pipeline[int]((8, 8, 8), Buffers(3, 4096)) as pipeline:
        assert len(list(pipeline.run(_jobs(30, [], count)))) == 30
    assert most == 3


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_failure_is_raised_and_ends_the_rest(stage: int) -> None:
    """More tasks are left than there are buffers: none is waited for for ever."""

    failing = threading.Event()

    def fail(number: int, at: int) -> None:
        if (number, at) == (7, stage):
            failing.set()
            raise OSError("the seventh")
        if (number, at) == (6, 2):
            # The one before it takes its time: it is what the results wait for.
            assert failing.wait(30)
            time.sleep(0.3)
        if number > 7 and at == 0:
            assert failing.wait(30)
            time.sleep(0.001)

    seen: list[tuple[int, int]] = []
    got: list[int] = []
    with pytest.raises(OSError, match="the seventh"), Pipeline[int]((2, 2, 2), Buffers(4, 4096)) as pipeline:
        for result in pipeline.run(_jobs(1000, seen, fail)):
            got.append(result)
    assert got == list(range(7))
    assert (7, stage) not in seen
    # Those that were under way, and what starts while the exception goes up in its thread.
    assert len({number for number, _ in seen}) < 100


def test_an_interrupt_outside_ends_it() -> None:
    with pytest.raises(KeyboardInterrupt), Pipeline[int]((2, 2, 2), Buffers(4, 4096)) as pipeline:
        for result in pipeline.run(_jobs(1000, [], _later_ones_are_faster)):
            if result == 3:
                raise KeyboardInterrupt


def test_buffers_are_on_page_boundaries_and_lent_once() -> None:
    buffers = Buffers(2, 3 * mmap.PAGESIZE)
    one, two = buffers.take(), buffers.take()
    one[:] = b"1" * len(one)
    two[:] = b"2" * len(two)
    assert len(one) == len(two) == buffers.size
    for buffer in (one, two):
        assert ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % mmap.PAGESIZE == 0
    assert bytes(one) == b"1" * len(one)
    threading.Timer(0.05, buffers.give, [one]).start()
    assert buffers.take() is one
