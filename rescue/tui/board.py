"""The state of a running job, made of its events: what the progress screen draws. No widget in it."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from core.events import Event, Stage
from core.units import format_duration, format_size
from rescue.tui.text import cut

#: What each stage of a restore is called on the screen, in the order in which they come.
NAMES = {
    Stage.PREFLIGHT: "Check the recovery point and the disk",
    Stage.LAYOUT: "Partition table and boot area",
    Stage.STREAM: "Write the data",
    Stage.VERIFY: "Read back and compare",
    Stage.GROW: "Grow the filesystem",
    Stage.BOOT: "Make it boot on this machine",
}
#: The same of a rescue stick that is written.
STICK_NAMES = {
    Stage.CHECK: "Read the medium and check it",
    Stage.PREFLIGHT: "Clear the stick, and put marks on it",
    Stage.STICK: "Write the medium",
    Stage.VERIFY: "Read back and compare",
    Stage.LAYOUT: "Make the partition for data",
    Stage.COPY: "Copy the recovery points",
}
_BAR = 40
_KEPT = 200


class Board:
    """Takes events, gives lines.

    Args:
        stages: those that are known to come; others are shown when they come.
        names: of all that a job of this kind may have, in their order; in the first nothing is written yet.
        clock: seconds, monotonic; a parameter so that tests own the time.
    """

    #: Seconds without any event after which the screen says so.
    SILENCE = 10.0

    def __init__(
        self,
        stages: Iterable[Stage],
        *,
        names: Mapping[Stage, str] = NAMES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        wanted = set(stages)
        self._names = names
        self._order = [stage for stage in names if stage in wanted]
        self._clock = clock
        self._current: Stage | None = None
        self._spent = dict.fromkeys(names, 0.0)
        self._counts: dict[Stage, Event] = {}
        self._log: deque[str] = deque(maxlen=_KEPT)
        self._last = clock()
        self._ended = False

    def take(self, event: Event) -> None:
        """One event, in the order of their coming."""
        now = self._clock()
        self._pass_time(now)
        if event.stage is Stage.DONE:
            self._ended = True
        elif event.stage in self._names:
            self._current = event.stage
            if event.stage not in self._order:
                # What the plan has no step of its own for: a filesystem that is made smaller is read back, too.
                self._order = [stage for stage in self._names if stage in {*self._order, event.stage}]
        if event.total or event.done or event.stalled:
            self._counts[event.stage] = event
            return
        # A stage without figures has only its stall to show, and that is over.
        count = self._counts.get(event.stage)
        if count is not None and not (count.total or count.done):
            del self._counts[event.stage]
        if event.message and (not self._log or self._log[-1] != event.message):
            self._log.append(f"warning: {event.message}" if event.warning else event.message)

    def stages(self, width: int) -> list[str]:
        """A line for each stage, and under the one that counts bytes its bar and figures."""
        lines = []
        for stage in self._order:
            mark = "[>]" if stage is self._current and not self._ended else "[x]" if self._is_done(stage) else "[ ]"
            spent = f"  {format_duration(self._spent[stage])}" if self._spent[stage] >= 1 else ""
            lines.append(cut(f"{mark} {self._names[stage]}{spent}", width))
            if stage is self._current and not self._ended and stage in self._counts:
                lines += [cut(f"    {line}", width) for line in _figures(self._counts[stage])]
        return lines

    def has_come_to(self, stage: Stage) -> bool:
        """Whether that stage, or a later one, is the present one."""
        places = list(self._names)
        return self._current is not None and places.index(self._current) >= places.index(stage)

    @property
    def begun(self) -> bool:
        """Whether something may have been written: a stage after the checks has spoken."""
        return self._current not in (None, next(iter(self._names)))

    def silence(self) -> str:
        """A sentence when nothing was heard for long, naming the stage; empty otherwise."""
        quiet = self._clock() - self._last
        if self._ended or self._current is None or quiet < self.SILENCE:
            return ""
        return f"No news for {format_duration(quiet)} from: {self._names[self._current]}."

    def log(self, count: int) -> list[str]:
        """The last messages."""
        return list(self._log)[-count:] if count > 0 else []

    def _pass_time(self, now: float) -> None:
        if self._current is not None:
            self._spent[self._current] += now - self._last
        self._last = now

    def _is_done(self, stage: Stage) -> bool:
        if self._ended:
            return True
        if self._current is None or self._order.index(stage) >= self._order.index(self._current):
            return False
        count = self._counts.get(stage)
        return count is None or count.done >= count.total


def _figures(event: Event) -> list[str]:
    part = min(event.done / event.total, 1.0) if event.total else 0.0
    filled = int(part * _BAR)
    lines = [f"[{'#' * filled}{'-' * (_BAR - filled)}] {int(part * 100):3} %"] if event.total else []
    words = [f"{format_size(event.done)} of {format_size(event.total)}"] if event.total else []
    if event.done and not event.total:
        words.append(format_size(event.done))
    if event.rate:
        words.append(f"{format_size(int(event.rate))}/s")
    if event.stalled:
        waiting = f": {event.message}" if event.message and not event.total and not event.done else ""
        words.append(f"NO PROGRESS for {format_duration(event.stalled)}{waiting}")
    elif event.eta is not None and event.done < event.total:
        words.append(f"{format_duration(event.eta)} left")
    return [*lines, "   ".join(words)]
