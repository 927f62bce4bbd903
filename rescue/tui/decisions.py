"""What a person decided, kept while they go back and come forward again: two Esc in a burst cost nothing.

Decisions belong to a recovery point. A screen shows those that are there, so nothing is done that is not seen. Never
kept: passphrases, addresses with a password in them, and words that confirm a plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rescue.tui.messages import StickWish

if TYPE_CHECKING:
    from collections.abc import Iterable

    from images.model.layout import DiskIdentity
    from images.model.machine import MachineDisk
    from rescue.jobs.scratch_places import ScratchPlace
    from restore.planning.rules import PartitionRule
    from restore.target.candidates import Candidate


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


class _Known(msgspec.Struct, frozen=True):
    """What a disk is known by while the wizard runs: its node only where it has neither WWN nor serial number."""

    identity: DiskIdentity
    size: int
    node: str


class Memory:
    """All decisions of a wizard's run.

    Attributes:
        address: of a repository, as it was typed last; without a password.
        stick: how another rescue stick is wanted.
        medium: the path that was typed last of a medium to be checked.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], Decisions] = {}
        self._address = ""
        self.stick = StickWish()
        self.medium = ""
        self._unfinished: dict[_Known, str] = {}

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

    @property
    def unfinished(self) -> tuple[str, ...]:
        """A sentence for each job that did not come to its end, as long as no other has finished its disks."""
        return tuple(dict.fromkeys(self._unfinished.values()))

    def broke_off(self, disks: Iterable[MachineDisk | Candidate], sentence: str) -> None:
        """A job that wrote these disks did not come to its end; ``sentence`` says so when the machine is to go down."""
        self._unfinished |= dict.fromkeys(map(_known, disks), sentence)

    def finished(self, disks: Iterable[MachineDisk | Candidate]) -> None:
        """A job that wrote these disks came to its end."""
        for disk in disks:
            self._unfinished.pop(_known(disk), None)

    def restored(self, disks: Iterable[MachineDisk | Candidate]) -> None:
        """So did a restore: the next begins anew."""
        self._of.clear()
        self.finished(disks)


def _known(disk: MachineDisk | Candidate) -> _Known:
    named = disk.identity.wwn or disk.identity.serial
    return _Known(disk.identity, disk.size, "" if named else disk.node)
