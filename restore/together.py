"""Work on several disks at once: a thread for each; the first failure ends all of it, and is the one that is told."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from core.errors import LiferaftError, StoppedError

#: Seconds after which whoever waits looks again by itself.
_LOOK = 1.0


class Halt:
    """Whether work is to end. Safe from several threads, and wherever an interruption strikes: it has no lock."""

    def __init__(self) -> None:
        self._ended = False

    def set(self) -> None:
        """End it, at the next point where somebody asks."""
        self._ended = True

    def check(self) -> None:
        """Raises StoppedError when it is to end."""
        if self._ended:
            raise StoppedError("The work was stopped because other work failed.")


class _Worker(threading.Thread):
    """One job in its thread.

    Attributes:
        entered: it is at work, or has been; one that enters after the halt was set touches nothing.
        ended: its work is over.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=f"disk {name}")
        self.entered = self.ended = False
        self._work = work
        self._over = threading.Lock()
        self._over.acquire()

    def run(self) -> None:
        """Called in the thread."""
        self.entered = True
        try:
            self._work()
        finally:
            self.ended = True
            self._over.release()

    def wait(self) -> None:
        """Until its work is over.

        Not Thread.join() first: interrupted, it takes a thread that is still at work for one that has ended (CPython
        3.11, Thread._wait_for_tstate_lock), and would never wait for it again. Nor an Event: interrupted inside, its
        own lock may stay held, and the thread could never set it.
        """
        while not self.ended:
            self._over.acquire(timeout=_LOOK)
        self.join()


def together(jobs: Mapping[str, Callable[[], None]], halt: Halt) -> None:
    """Do all jobs at the same time; one alone is done in this thread.

    Args:
        jobs: by the name that an error begins with.
        halt: asked by the jobs between pieces of their work.

    Raises:
        the first failure. The other jobs were stopped, and have ended.
    """
    if len(jobs) <= 1:
        for job in jobs.values():
            job()
        return
    failures: list[tuple[str, BaseException]] = []

    def work(name: str, job: Callable[[], None]) -> None:
        try:
            halt.check()
            job()
        except BaseException as error:  # noqa: BLE001 - it is raised again where all are waited for
            failures.append((name, error))
            halt.set()

    # All are known before the first one starts: an interruption in between must not leave one that nobody waits for.
    workers = [_Worker(name, partial(work, name, job)) for name, job in jobs.items()]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait()
    except BaseException:
        _outlive(workers, halt)
        raise
    if failures:
        raise _named(*failures[0])


def _outlive(workers: Sequence[_Worker], halt: Halt) -> None:
    """Wait for all of them, however often somebody interrupts: what closes the disks must not run while they write.

    Who has not entered by now finds the halt set when it does: it need not be waited for, and may never have started.
    """
    over = False
    while not over:
        with contextlib.suppress(KeyboardInterrupt):
            halt.set()
            for worker in [worker for worker in workers if worker.entered]:
                worker.wait()
            over = True


def _named(name: str, error: BaseException) -> BaseException:
    """The same error, saying on which disk it happened."""
    if isinstance(error, LiferaftError) and not isinstance(error, StoppedError):
        error.within(name)
        error.hint = f"{error.hint} The other disks were stopped, too.".lstrip()
    return error
