"""Choosing a repository: those on attached disks, or an address to type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToAddress, ToPoints, ToRepository
from rescue.tui.screen import WizardScreen
from rescue.tui.text import wrap
from rescue.tui.widgets.picker import Picker, Row

if TYPE_CHECKING:  # the screen stands before the job is loaded
    from builder.site.document import SiteRepository
    from rescue.jobs.repositories import Findings, FoundRepository

_ADDRESS = "address"
_AGAIN = "again"
_NOTES_SHOWN = 4


class RepositoryScreen(WizardScreen):
    """The list. It searches each time it is shown, because going on unmounts what was not chosen."""

    HEADLINE = "Choose a repository"
    KEYS = "Up/Down: choose   Enter: go on   A: type an address   Esc: back"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("a", "address", show=False)]

    class Searched(Message):
        """The disks were searched."""

        def __init__(self, findings: Findings) -> None:
            super().__init__()
            self.findings = findings

    def __init__(self, jobs: Jobs, to: ToRepository) -> None:
        super().__init__(jobs)
        self._to = to

    def body(self) -> Iterable[Widget]:
        yield Static("Where are the recovery points?", classes="text", markup=False)
        yield Picker(_rows((), ()))
        yield Static("", id="notes", classes="text warning", markup=False)

    def on_screen_resume(self) -> None:
        self._search()

    def on_repository_screen_searched(self, message: Searched) -> None:
        self.finished()
        found = message.findings.repositories
        offered = message.findings.offered
        self.query_one(Picker).show(_rows(found, offered))
        lines = [line for note in message.findings.notes for line in wrap(note, self.size.width - 2)]
        if len(lines) > _NOTES_SHOWN:
            lines = [*lines[: _NOTES_SHOWN - 1], f"... and {len(lines) - _NOTES_SHOWN + 1} more lines like these."]
        self.query_one("#notes", Static).update("\n".join(lines))
        if not found and not offered:
            self.say("No repository was found on the attached disks. Attach one and look again, or type an address.")

    def chosen(self, key: str) -> None:
        match key:
            case "address":
                self.action_address()
            case "again":
                self._search()
            case path:
                self.post_message(Go(ToPoints(path)))

    def refused(self, row: Row) -> None:
        self.say("This repository cannot be used: " + row.lines[-1].strip(), warning=True)

    def action_address(self) -> None:
        self.post_message(Go(ToAddress(self._to.network)))

    def _search(self) -> None:
        self.start(lambda: self.Searched(self.jobs.find_repositories()), "Looking for repositories on all disks")


def _rows(found: tuple[FoundRepository, ...], offered: tuple[SiteRepository, ...]) -> list[Row]:
    rows = []
    for repository in found:
        count = f"{repository.points} recovery points" if repository.points != 1 else "1 recovery point"
        if repository.encrypted:
            count = "Encrypted repository"
        where = f"{repository.device.removeprefix('/dev/')}  {repository.disk}"
        rows.append(
            Row(
                repository.path,
                (
                    f"{count} on {where}" if not repository.problem else where,
                    "  " + (repository.problem or repository.path),
                ),
                enabled=not repository.problem,
            )
        )
    # The site's own, whether or not they can be reached now.
    for one in offered:
        lines = (one.name, f"  {one.shown}") if one.name else (one.shown,)
        rows.append(Row(one.address, lines))
    return [
        *rows,
        Row(_ADDRESS, ("Type an address: http://server/folder, or a path",)),
        Row(_AGAIN, ("Look again (after attaching a disk)",)),
    ]
