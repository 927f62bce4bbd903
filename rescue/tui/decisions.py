"""What a person decided, kept while they go back and come forward again: two Esc in a burst cost nothing.

Decisions belong to a recovery point. A screen shows those that are there, so nothing is done that is not seen. Never
kept: passphrases, addresses with a password in them, and words that confirm a plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rescue.tui.messages import StickWish

if TYPE_CHECKING:
    from images.model.machine import MachineDisk
    from rescue.jobs.scratch_places import ScratchPlace
    from restore.planning.rules import PartitionRule


class Decisions(msgspec.Struct):
    """About one recovery point.

    Attributes:
        grow, verify, unique, each, degraded: the switches.
        assigned: by id of a disk, its target; None: it is left out.
        rules: by row of the screen that makes them.
        scratch: where scratch files go; None: where they go by themselves.
    """

    grow: bool = False
    verify: bool = True
    unique: bool = False
    each: bool = False
    degraded: bool = False
    assigned: dict[str, MachineDisk | None] = {}
    rules: dict[str, PartitionRule] = {}
    scratch: ScratchPlace | None = None


class Memory:
    """All decisions of a wizard's run.

    Attributes:
        address: of a repository, as it was typed last; without a password.
        stick: how another rescue stick is wanted.
        medium: the path that was typed last of a medium to be checked.
        unfinished: what a restore that did not come to its end left, as a sentence; empty when there is none.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], Decisions] = {}
        self._address = ""
        self.stick = StickWish()
        self.medium = ""
        self.unfinished = ""

    def about(self, repository: str, point: str) -> Decisions:
        """The decisions about a recovery point, by its id; those of one that nobody decided about are the defaults."""
        return self._of.setdefault((repository, point), Decisions())

    @property
    def address(self) -> str:
        """Of a repository, as it was typed last."""
        return self._address

    @address.setter
    def address(self, text: str) -> None:
        # What stands before an @ may be a password.
        self._address = "" if "@" in text else text

    def restored(self) -> None:
        """A restore came to its end: the next begins anew."""
        self._of.clear()
        self.unfinished = ""
