"""Notes for a journal: chunks of a volume that lie on the target for good, told now and then. It keeps no file."""

import time
from collections.abc import Callable, Sequence

from images.store.pages import Slot
from restore.target.target import Target

#: Seconds between two flushes for the journal.
INTERVAL = 15.0


class Notes:
    """Tells a journal of chunks when they lie on the target for good: after a flush, now and then."""

    def __init__(self, target: Target, note: Callable[[Sequence[Slot]], None] | None) -> None:
        self._target = target
        self._note = note
        self._waiting: list[Slot] = []
        self._since = time.monotonic()

    def written(self, slots: Sequence[Slot]) -> None:
        """Chunks that are on their way to the device."""
        if self._note is None:
            return
        self._waiting += slots
        if time.monotonic() - self._since > INTERVAL:
            self.finish()

    def finish(self) -> None:
        """Tell what was not told yet."""
        if self._note is not None and self._waiting:
            self._target.flush()
            self._note(self._waiting)
            self._waiting = []
        self._since = time.monotonic()
