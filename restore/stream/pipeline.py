"""The pipeline: tasks that pass through stages, each stage with threads of its own.

So a server, the cores and a device are busy at the same time, and none waits because another does.
It knows nothing of chunks or disks. The number of buffers bounds memory and the tasks under way.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from restore.stream.buffers import Buffers

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Task(Protocol[T_co]):
    """A piece of work with a buffer of its own while it is under way."""

    @property
    def stages(self) -> Sequence[Callable[[], None]]:
        """What is to be done, in order; each may leave things in the task for the next."""
        ...

    @property
    def result(self) -> T_co:
        """What came of it, after the last stage."""
        ...


class Pipeline(Generic[T]):
    """Carries tasks through their stages. A context: leaving it waits for what is running and drops the rest.

    Args:
        threads: of each stage.
        buffers: one is lent to each task from its start to its end.
    """

    def __init__(self, threads: Sequence[int], buffers: Buffers) -> None:
        self._pools = [ThreadPoolExecutor(count, thread_name_prefix=f"stage{at}") for at, count in enumerate(threads)]
        self._buffers = buffers
        self._stopped = False
        self._failed = False

    def __enter__(self) -> "Pipeline[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        # In order: a running task of one stage still hands itself to the next one, which then declines it.
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def run(self, makers: Iterable[Callable[[memoryview], Task[T]]]) -> Iterator[T]:
        """Make a task of each maker, with a buffer, and give the results in order; the first failure is raised.

        Args:
            makers: consumed as buffers become free; not any more after a failure.
        """
        under_way: deque[Future[T]] = deque()
        for make in makers:
            buffer = self._buffers.take()
            if self._failed:
                # Those before the one that failed still end, and are given.
                self._buffers.give(buffer)
                break
            future: Future[T] = Future()
            under_way.append(future)
            self._pools[0].submit(self._advance, make(buffer), buffer, 0, future)
            while under_way and under_way[0].done():
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _advance(self, task: Task[T], buffer: memoryview, stage: int, future: Future[T]) -> None:
        """One stage; then on to the next, or the end."""
        try:
            if self._stopped:
                future.cancel()
            else:
                task.stages[stage]()
                if stage + 1 < len(self._pools):
                    self._pools[stage + 1].submit(self._advance, task, buffer, stage + 1, future)
                    return
                future.set_result(task.result)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the results are taken
            self._failed = True
            future.set_exception(error)
        self._buffers.give(buffer)
