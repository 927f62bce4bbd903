"""Work on several disks at once: a thread for each; the first failure ends all of it, and is the one that is told."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

from core.errors import LiferaftError, StoppedError

#: Each with what it sets when its work is over.
_Threads = Sequence[tuple[threading.Thread, threading.Event]]


class Halt:
    """Whether work is to end. Safe from several threads."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def set(self) -> None:
        """End it, at the next point where somebody asks."""
        self._ended.set()

    def check(self) -> None:
        """Raises StoppedError when it is to end."""
        if self._ended.is_set():
            raise StoppedError("The work was stopped because other work failed.")


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

    def run(name: str, job: Callable[[], None], ended: threading.Event) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - it is raised again where all are waited for
            failures.append((name, error))
            halt.set()
        finally:
            ended.set()

    threads: list[tuple[threading.Thread, threading.Event]] = []
    try:
        for name, job in jobs.items():
            ended = threading.Event()
            thread = threading.Thread(target=run, args=(name, job, ended), name=f"disk {name}")
            thread.start()
            threads.append((thread, ended))
        _wait(threads)
    except BaseException:
        halt.set()
        _outlive(threads)
        raise
    if failures:
        raise _named(*failures[0])


def _wait(threads: _Threads) -> None:
    # Not Thread.join() first: interrupted, it takes a thread that is still at work for one that has ended (CPython
    # 3.11, Thread._wait_for_tstate_lock), and would never wait for it again.
    for _, ended in threads:
        ended.wait()
    for thread, _ in threads:
        thread.join()


def _outlive(threads: _Threads) -> None:
    """Wait for all of them, however often somebody interrupts: what closes the disks must not run while they write."""
    while not all(ended.is_set() for _, ended in threads):
        with contextlib.suppress(KeyboardInterrupt):
            _wait(threads)


def _named(name: str, error: BaseException) -> BaseException:
    """The same error, saying on which disk it happened."""
    if isinstance(error, LiferaftError) and not isinstance(error, StoppedError):
        error.message = f"{name}: {error.message}"
        error.args = (error.message,)
        error.hint = f"{error.hint} The other disks were stopped, too.".lstrip()
    return error
