"""One part of a build while another goes on: most of what a build starts keeps a single processor busy."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from core.process import end_programs_of
from core.stopping import undisturbed

T = TypeVar("T")
#: Seconds between two looks at what a thread has started meanwhile.
_LOOK = 0.2


class _Work(threading.Thread, Generic[T]):
    """A piece of work in its thread.

    Attributes:
        ended: it is over.
        unwanted: nobody will ask for its result.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(name="beside")
        self.ended = False
        self.unwanted = False
        self._work = work
        self._made: list[T] = []
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Called in the thread."""
        try:
            self._made.append(self._work())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is asked for
            self._failure = error
        finally:
            self.ended = True

    def result(self) -> T:
        """Wait for its end.

        Raises:
            what the work has raised.
        """
        # Not join(): interrupted, it takes a thread that is still at work for one that has ended (CPython 3.11).
        while not self.ended:
            time.sleep(_LOOK)
        if self._failure is not None:
            raise self._failure
        return self._made[0]


@contextlib.contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Do ``work`` in a thread of its own; what is given waits for its end and returns or raises what it did.

    When the body fails or is interrupted, the programs that the work has started are ended, and with them the work: it
    must let the error of a program that was ended through, and where it waits for something else ask
    :func:`is_unwanted`. When the work fails, the body goes on until it asks: what it makes is kept for the next build.
    """
    thread = _Work(work)
    try:
        with undisturbed():
            thread.start()
        yield thread.result
    except BaseException:
        thread.unwanted = True
        # One that never began has no number, and never ends.
        while thread.ident is not None and not thread.ended:
            end_programs_of(thread)
            time.sleep(_LOOK)
        raise


def is_unwanted() -> bool:
    """Whether this is asked in work whose body has failed, and which had better end."""
    thread = threading.current_thread()
    return isinstance(thread, _Work) and thread.unwanted
