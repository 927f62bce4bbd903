"""Progress as facts: what the engine emits and faces render (DESIGN §4 "events").

The engine calls a :class:`Sink`. A terminal, the wizard, the JSON-lines writer and the job
runner are sinks. Numbers are bytes that are really done; the rate is measured over the last
seconds and the ETA follows from it; a stage that has made no progress for a while is named.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Protocol

import msgspec

from core.errors import StoppedError
from core.units import format_duration


class Stage(StrEnum):
    """Where in a job an event comes from."""

    PROBE = "probe"
    CAPTURE = "capture"
    COMMIT = "commit"
    PREFLIGHT = "preflight"
    LAYOUT = "layout"
    STREAM = "stream"
    VERIFY = "verify"
    GROW = "grow"
    UNIQUE = "unique"
    BOOT = "boot"
    HOOK = "hook"
    BUILD = "build"
    CHECK = "check"
    PRUNE = "prune"
    COPY = "copy"
    STICK = "stick"
    EXTRACT = "extract"
    EXPORT = "export"
    COMPARE = "compare"
    DONE = "done"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fact about a running job.

    Attributes:
        stage: where it comes from.
        message: a sentence for people; empty for a pure count.
        done: bytes really done in this stage.
        total: bytes to do in this stage; 0 when unknown.
        rate: bytes per second over the last seconds; 0 when not measured yet.
        eta: seconds left by that rate; None when it cannot be said.
        stalled: seconds without progress, when that is long enough to say.
        warning: the message is something the person must know afterwards.
    """

    stage: Stage
    message: str = ""
    done: int = 0
    total: int = 0
    rate: float = 0.0
    eta: float | None = None
    stalled: float = 0.0
    warning: bool = False


class Sink(Protocol):
    """Takes events. Called from worker threads; must not block for long."""

    def __call__(self, event: Event, /) -> None: ...


def ignore(event: Event) -> None:
    """A sink for those who do not look."""


class WarningsKept:
    """A sink that passes everything on and keeps the warnings, so that a job can end with them (DESIGN §3.12)."""

    def __init__(self, inner: Sink) -> None:
        self._inner = inner
        self._said: list[str] = []

    @property
    def warnings(self) -> tuple[str, ...]:
        """What has been warned of so far, each once, in the order in which it was said."""
        return tuple(dict.fromkeys(self._said))

    def __call__(self, event: Event, /) -> None:
        if event.warning:
            self._said.append(event.message)
        self._inner(event)


class Meter:
    """Counts bytes of one stage and tells a sink, at most every ``interval`` seconds. Safe from several threads.

    Args:
        total: bytes to do; 0 when unknown.
        clock: seconds, monotonic; a parameter so that tests own the time.
    """

    WINDOW = 10.0
    STALL = 10.0
    #: Seconds below which a rate is noise and no ETA is given.
    SPAN = 0.5

    def __init__(
        self,
        sink: Sink,
        stage: Stage,
        total: int,
        *,
        message: str = "",
        interval: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._stage = stage
        self._total = total
        self._message = message
        self._interval = interval
        self._clock = clock
        now = clock()
        self._done = 0
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])
        self._told = now - interval
        self._moved = now
        self._lock = threading.Lock()

    @property
    def done(self) -> int:
        """Bytes counted so far."""
        return self._done

    @property
    def total(self) -> int:
        """Bytes to do; 0 when unknown."""
        return self._total

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes as done."""
        with self._lock:
            self._done += count
            now = self._clock()
            if count:
                self._moved = now
            if now - self._told < self._interval:
                return
            event = self._event(now)
        self._sink(event)

    def resume(self) -> None:
        """Measure the rate from now on: what the job did meanwhile is not this stage's slowness."""
        with self._lock:
            self._moved = self._clock()
            self._samples = deque([(self._moved, self._done)])

    def tell(self) -> None:
        """Say where the stage stands, though nothing moved: the last state, or a stall."""
        with self._lock:
            event = self._event(self._clock())
        self._sink(event)

    def _event(self, now: float) -> Event:
        self._told = now
        self._samples.append((now, self._done))
        while len(self._samples) > 2 and now - self._samples[0][0] > self.WINDOW:
            self._samples.popleft()
        first_time, first_done = self._samples[0]
        span = now - first_time
        rate = (self._done - first_done) / span if span >= self.SPAN else 0.0
        left = max(self._total - self._done, 0)
        eta = left / rate if rate > 0 and self._total else None
        idle = now - self._moved
        return Event(
            stage=self._stage,
            message=self._message,
            done=self._done,
            total=self._total,
            rate=rate,
            eta=eta,
            stalled=idle if idle >= self.STALL else 0.0,
        )


class Watch:
    """Looks after work that has no bytes to count: says when nothing was heard of it for long, and when it goes on.

    A call of it is a sign of life. Safe from several threads.

    Args:
        message: what is being done.
    """

    def __init__(self, sink: Sink, stage: Stage, message: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._stage = stage
        self._message = message
        self._clock = clock
        self._lock = threading.Lock()
        #: Held while something is told: what is chosen first is heard first, whichever thread it comes from.
        self._telling = threading.RLock()
        self._heard = clock()
        self._stalled = False
        #: Seconds that the stall lasted which was told and whose end was not told yet.
        self._over: float | None = None
        self._asking = 0

    def __call__(self, count: int = 0) -> None:
        """Something moved, whatever it was."""
        now = self._clock()
        with self._lock:
            if self._stalled and self._over is None:
                self._over = now - self._heard
            self._heard = now

    @contextlib.contextmanager
    def doing(self, message: str) -> Iterator[None]:
        """Something of its own is done in the block; before and after it, what was done before."""
        self._move()
        before, self._message = self._message, message
        try:
            yield
            self._move()
        finally:
            self._message = before

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """A person is asked in the block: that they think about it is no stall."""
        self._move()
        with self._lock:
            self._asking += 1
        try:
            yield
        finally:
            self()
            with self._lock:
                self._asking -= 1

    def tell(self) -> None:
        """Name a stall, or its end; nothing while all is well."""
        with self._telling:
            event = self._due()
            if event is not None:
                self._sink(event)

    def _due(self) -> Event | None:
        """What is to be told now, taken as told."""
        with self._lock:
            idle = self._clock() - self._heard
            if idle >= Meter.STALL and not self._asking:
                self._stalled, self._over = True, None
                return Event(stage=self._stage, message=self._message, stalled=idle)
            if self._over is None:
                return None
            text = f"{self._message}: it goes on after {format_duration(self._over)}"
            self._stalled, self._over = False, None
            return Event(stage=self._stage, message=text)

    def _move(self) -> None:
        """A sign of life, with the end of a stall told at once, while what was done is still known."""
        self()
        self.tell()


@contextlib.contextmanager
def watching(watch: Watch, interval: float = 5.0) -> Iterator[None]:
    """Let a watch look every ``interval`` seconds during the block."""
    watch()
    with _every(interval, watch.tell):
        yield
    watch()
    watch.tell()


@contextlib.contextmanager
def ticking(meter: Meter, interval: float = 5.0) -> Iterator[None]:
    """Let a meter speak every ``interval`` seconds during the block, so that a stall is named while it lasts.

    At the end of the block the meter tells its last state.
    """
    meter.resume()
    with _every(interval, meter.tell):
        yield
    meter.tell()


@contextlib.contextmanager
def _every(interval: float, tell: Callable[[], None]) -> Iterator[None]:
    ended = threading.Event()

    def tick() -> None:
        # A sink may raise StoppedError to stop the work; the worker that counts next hears it too.
        with contextlib.suppress(StoppedError):
            while not ended.wait(interval):
                tell()

    ticker = threading.Thread(target=tick, name="ticker", daemon=True)
    ticker.start()
    try:
        yield
    finally:
        ended.set()
        ticker.join()
