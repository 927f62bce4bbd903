"""Choosing a recovery point, newest first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from builder.archive.mirror import without_user
from core.errors import LiferaftError, RefusedError
from core.units import format_size
from images.store.passphrase import PassphraseNeededError
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToPassphrase, ToPoints, ToTarget
from rescue.tui.screen import WizardScreen
from rescue.tui.text import columns, cut
from rescue.tui.widgets.picker import Picker, Row

if TYPE_CHECKING:  # the screen stands before the job is loaded
    from images.store.catalogue import PointSummary

_WIDTHS = (16, 22, -11, -11, 12)


class PointsScreen(WizardScreen):
    """The table of recovery points."""

    HEADLINE = "Choose a recovery point"

    class Listed(Message):
        """The repository was read. Oldest first."""

        def __init__(self, points: tuple[PointSummary, ...]) -> None:
            super().__init__()
            self.points = points

    def __init__(self, jobs: Jobs, to: ToPoints) -> None:
        super().__init__(jobs)
        self._repository = to.repository
        self._known = to.points
        self._points: dict[str, PointSummary] = {}

    def body(self) -> Iterable[Widget]:
        yield Static(cut(f"Repository: {without_user(self._repository)}", 78), classes="text", markup=False)
        yield Picker()

    def on_mount(self) -> None:
        if self._known is not None:
            self.post_message(self.Listed(self._known))
        else:
            self.start(lambda: self.Listed(self.jobs.points(self._repository)), "Reading the repository")

    def failed(self, error: LiferaftError) -> None:
        if isinstance(error, PassphraseNeededError):
            self.post_message(Go(ToPassphrase(self._repository), replace=True))
        else:
            super().failed(error)

    def on_points_screen_listed(self, message: Listed) -> None:
        self.finished()
        if not message.points:
            error = RefusedError(
                f"{without_user(self._repository)} holds no recovery points.",
                hint="Is it the right repository? liferaft capture puts a recovery point into one.",
            )
            self.failed(error)
            return
        newest_first = message.points[::-1]
        self._points = {point.id: point for point in newest_first}
        header = columns(("Taken (UTC)", "Name", "Disk size", "In use", "From"), _WIDTHS)
        self.query_one(Picker).show([_row(point) for point in newest_first], header=header)

    def chosen(self, key: str) -> None:
        self.post_message(Go(ToTarget(self._repository, self._points[key])))


def _row(point: PointSummary) -> Row:
    taken = point.created[:16].replace("T", " ")
    cells = (taken, point.name, format_size(point.disk_size), format_size(point.allocated), point.origin)
    return Row(point.id, (columns(cells, _WIDTHS),))
