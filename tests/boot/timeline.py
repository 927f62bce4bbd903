"""What happened when: one line per fact, seconds since the start, for people who watch and for failure reports."""

import time


class Timeline:
    """Prints facts as they happen and keeps them."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.facts: list[tuple[float, str]] = []

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, fact: str) -> None:
        """Note that ``fact`` is true now."""
        now = self.now
        self.facts.append((now, fact))
        print(f"[{now:7.1f} s] {fact}", flush=True)
