"""Work on several disks at once: a thread for each; the first failure ends all of it, and is the one that is told."""

import threading
from collections.abc import Callable, Mapping

from core.errors import LiferaftError, StoppedError


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

    def run(name: str, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - it is raised again where all are waited for
            failures.append((name, error))
            halt.set()

    threads = [threading.Thread(target=run, args=one, name=f"disk {one[0]}") for one in jobs.items()]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        halt.set()
        for thread in threads:
            thread.join()
        raise
    if failures:
        raise _named(*failures[0])


def _named(name: str, error: BaseException) -> BaseException:
    """The same error, saying on which disk it happened."""
    if isinstance(error, LiferaftError) and not isinstance(error, StoppedError):
        error.message = f"{name}: {error.message}"
        error.args = (error.message,)
        error.hint = f"{error.hint} The other disks were stopped, too.".lstrip()
    return error
