"""Being told to stop: Ctrl-C, ``kill`` and a terminal that went away end the work in the same way.

The first of these signals raises KeyboardInterrupt in the main thread, and on the way out every context puts away what
it has begun. Further ones are heard meanwhile and end nothing: timeout(1) sends two, systemd can send a hangup behind
its termination, and a person presses Ctrl-C twice. Only a third Ctrl-C interrupts the putting away itself.

What is ignored when the program starts stays ignored: nohup(1), or a shell's job in the background (POSIX, Shell
Command Language, 2.11). It does not reach other threads; they are ended by whoever waits for them. Only the command
line installs it: elsewhere everything here is as good as not there.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
#: What tells a program to stop: from the keyboard, from kill(1) and systemd, and from the terminal's end.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The Ctrl-C that is not put off any more.
_ENOUGH = 3
_WAITING = b"\nStopping: what was begun is being put away. A third Ctrl-C does not wait for that.\n"
#: What wakes the main thread from a wait. Nobody sends it: sockets do that ask for it (fcntl(2), F_SETOWN).
_NUDGE = signal.SIGURG
#: Seconds in which a thread begins, however busy the machine is, and between two looks at it.
_BEGINNING, _LOOK = 10.0, 0.01
#: Seconds after which an interruption that was swallowed is sent again.
_AGAIN = 0.05
#: How many blocks of :func:`undisturbed` each thread is in.
_blocks = threading.local()


class _Stopper:
    """The handler of :data:`SIGNALS`. Called in the main thread, between two steps of whatever that does.

    Attributes:
        stopping: one has come.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._presses = 0
        self._held = 0
        self._due = False
        self._tell: Callable[[], None] | None = None
        self._last: int = signal.SIGINT

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A signal has come."""
        self._last = number
        self._presses += number == signal.SIGINT
        if self._presses >= _ENOUGH and self.stopping:
            raise KeyboardInterrupt
        if self._presses == _ENOUGH - 1 and self._tell is None:
            _say(_WAITING)
        if self.stopping:
            return
        self.stopping = True
        if self._tell is not None:
            self._tell()
        elif self._held:
            self._due = True
        else:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """From now on an interruption waits."""
        self._held += 1

    def release(self) -> None:
        """Raises KeyboardInterrupt when one has waited, and nobody else holds it."""
        self._held -= 1
        if self._due and not self._held:
            self._due = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """In the block, ``tell`` is called in the place of an interruption."""
        before, self._tell = self._tell, tell
        try:
            yield
        finally:
            self._tell = before

    def over(self) -> bool:
        """There is nothing left to stop. Returns whether a signal has come before."""
        stopped, self.stopping = self.stopping, True
        return stopped

    def swallowed(self, what: "sys.UnraisableHookArgs") -> bool:
        """Whether Python has just let one of our interruptions fall: it comes again.

        An exception in a finalizer goes nowhere (Python's data model, ``object.__del__``), and so the work would go on.
        """
        if not (self.stopping and issubclass(what.exc_type, KeyboardInterrupt)):
            return False
        self.stopping = False
        self._presses -= self._last == signal.SIGINT
        threading.Timer(_AGAIN, os.kill, (os.getpid(), self._last)).start()
        return True


def _say(text: bytes) -> None:
    """To stderr, and not through Python's stream, in whose middle this may be."""
    with contextlib.suppress(OSError, ValueError):
        # Where it was closed from the start, its number may be that of a file which is being written.
        if sys.stderr is not None:
            os.write(sys.stderr.fileno(), text)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """In the block, :data:`SIGNALS` end the work as the module says. For the main thread of the command line.

    Afterwards they are what they were; but when one has come, this process has only its end before it, and further ones
    are lost until then: whoever sends two would else have it die of the second.
    """
    stopper = _Stopper()
    hook = sys.unraisablehook
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number in SIGNALS if before[number] not in (signal.SIG_IGN, None)]

    def unraisable(what: "sys.UnraisableHookArgs", /) -> None:
        if not stopper.swallowed(what):
            hook(what)

    try:
        for number in ours:
            signal.signal(number, stopper)
        sys.unraisablehook = unraisable
        with _awake():
            yield
    finally:
        if stopper.over():
            _await_beginners()
            # When the last thread has ended, and before the interpreter takes its handlers away (Py_FinalizeEx).
            atexit.register(_ignore, ours)
        else:
            for number in ours:
                signal.signal(number, before[number])
        sys.unraisablehook = hook


def _await_beginners() -> None:
    """Wait for threads that begin just now.

    An interruption of their start leaves them to nobody: they come to life while the interpreter is taken down, and
    Python 3.11 then reads what it has freed (thread_run, _PyThreadState_SetCurrent). On a busy machine that took place.
    """
    until = time.monotonic() + _BEGINNING
    while any(thread.ident is None for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(_LOOK)


@contextlib.contextmanager
def _awake() -> Iterator[None]:
    """In the block, a signal reaches the main thread while that waits, whichever thread the kernel gives it to.

    Handlers run in the main thread alone (Python's signal module, "Signals and threads"). Of two signals that come
    together another thread may take both, and the main one's wait for a program goes on as if nothing had come: until
    the program ends. So whoever takes one says so through a pipe, and a thread passes that on.
    """
    heard, said = os.pipe()
    os.set_blocking(said, False)
    own = threading.main_thread().ident
    before = signal.signal(_NUDGE, lambda number, frame: None)
    wakes = signal.set_wakeup_fd(said, warn_on_full_buffer=False)

    def pass_on() -> None:
        while numbers := os.read(heard, 64):
            # Being woken is heard here, too.
            if set(numbers) - {_NUDGE} and own is not None:
                signal.pthread_kill(own, _NUDGE)

    thread = threading.Thread(target=pass_on, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakes)
        os.close(said)
        thread.join()
        os.close(heard)
        signal.signal(_NUDGE, before)


def _ignore(numbers: list[signal.Signals]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A block that an interruption does not cut in two: it comes at the block's end. For what takes a moment.

    In other threads, which no interruption reaches, it keeps the programs that are started in it from being ended.
    """
    stopper = _installed()
    if stopper is not None:
        stopper.hold()
    try:
        _blocks.count = getattr(_blocks, "count", 0) + 1
        try:
            yield
        finally:
            _blocks.count -= 1
    finally:
        if stopper is not None:
            stopper.release()


def is_undisturbed() -> bool:
    """Whether this thread is in such a block."""
    return getattr(_blocks, "count", 0) > 0


@contextlib.contextmanager
def lasting(begin: Callable[[], T], end: Callable[[T], object]) -> Iterator[T]:
    """Something that outlives this process if nobody ends it, for the length of a block: a mount, a loop device.

    An interruption cuts neither its beginning nor its end in two: what was begun is known, and is ended.

    Args:
        begin: begins it, and gives what ``end`` needs.
    """
    with contextlib.ExitStack() as stack:
        with undisturbed():
            begun = begin()
            stack.callback(_end_undisturbed, end, begun)
        yield begun


def _end_undisturbed(end: Callable[[T], object], begun: T) -> None:
    with undisturbed():
        end(begun)


@contextlib.contextmanager
def told_to_stop(tell: Callable[[], None]) -> Iterator[None]:
    """For work that an exception in its middle would not end well, such as an event loop's: call ``tell`` instead."""
    stopper = _installed()
    with stopper.telling(tell) if stopper is not None else contextlib.nullcontext():
        yield


def is_stopping() -> bool:
    """Whether this program has been told to stop: nobody in any thread of it need try again what failed."""
    stopper = _handler()
    return stopper is not None and stopper.stopping


def _installed() -> _Stopper | None:
    """The handler of this process; None where there is none, and in a thread that it does not reach."""
    return _handler() if threading.current_thread() is threading.main_thread() else None


def _handler() -> _Stopper | None:
    found = (signal.getsignal(number) for number in SIGNALS)
    return next((handler for handler in found if isinstance(handler, _Stopper)), None)
