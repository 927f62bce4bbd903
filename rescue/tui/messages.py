"""What screens say to the app: where to go. A destination carries what its screen needs, typed.

Importing this loads no job: the types are for the checker only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from core.errors import LiferaftError
    from images.model.layout import Disk
    from images.model.machine import Machine, MachineDisk
    from images.store.catalogue import PointSummary
    from rescue.jobs.scratch_places import ScratchPlace
    from restore.plan.plan import Plan
    from restore.planning.matching import Matching
    from restore.planning.rules import PartitionRule
    from restore.report import Report


class Ending(StrEnum):
    """What becomes of the machine; the words are systemctl's."""

    REBOOT = "reboot"
    POWEROFF = "poweroff"


@dataclass(frozen=True)
class Destination:
    """A screen and what it is given."""


@dataclass(frozen=True)
class ToMachine(Destination):
    """Everything about this machine."""

    machine: Machine


@dataclass(frozen=True)
class ToRepository(Destination):
    """Choose among the repositories on attached disks. ``network`` is a line about the network interfaces."""

    network: str


@dataclass(frozen=True)
class ToAddress(Destination):
    """Type a URL or a path."""

    network: str


@dataclass(frozen=True)
class ToPassphrase(Destination):
    """Type the passphrase of an encrypted repository."""

    repository: str


@dataclass(frozen=True)
class ToPoints(Destination):
    """Choose a recovery point. ``points``: when they have been read already, oldest first."""

    repository: str
    points: tuple[PointSummary, ...] | None = None


@dataclass(frozen=True)
class ToTarget(Destination):
    """Choose a disk for the recovery point."""

    repository: str
    point: PointSummary


@dataclass(frozen=True)
class Placed:
    """A disk of the recovery point, by its id, and its target; empty when the point has one disk."""

    source: str
    target: MachineDisk


@dataclass(frozen=True)
class ToAssign(Destination):
    """Choose a target for each of several disks. The machine as it was looked at, and what matching proposes."""

    repository: str
    point: PointSummary
    machine: Machine
    disks: tuple[Disk, ...]
    matching: Matching


@dataclass(frozen=True)
class Wanted:
    """How a person wants it restored.

    Attributes:
        grow: the last filesystem that can takes the space of a larger disk, where no rule says otherwise.
        verify: everything is read back.
        rules: for single partitions.
    """

    grow: bool = False
    verify: bool = True
    rules: tuple[PartitionRule, ...] = ()


@dataclass(frozen=True)
class ToPartitions(Destination):
    """Decide about single partitions."""

    repository: str
    point: PointSummary
    placed: tuple[Placed, ...]
    wanted: Wanted


@dataclass(frozen=True)
class ToPlan(Destination):
    """Make the plan, show it, have it confirmed. ``scratch``: as chosen; None for where it goes by itself."""

    repository: str
    point: PointSummary
    placed: tuple[Placed, ...]
    wanted: Wanted
    scratch: ScratchPlace | None = None


@dataclass(frozen=True)
class ToScratch(Destination):
    """Choose where scratch files go, for the plan that is gone back to. ``why``: what is wrong with where they went."""

    back: ToPlan
    plan: Plan
    why: str = ""


@dataclass(frozen=True)
class ToRestoring(Destination):
    """Carry out a confirmed plan. ``disk`` is the target's short name, for showing. ``scratch`` as in ToPlan."""

    plan: Plan
    disk: str
    scratch: ScratchPlace | None = None


@dataclass(frozen=True)
class ToResult(Destination):
    """How the restore ended. ``disk`` as above; ``begun`` when something may have been written to it."""

    outcome: Report | LiferaftError
    disk: str
    begun: bool = True


@dataclass(frozen=True)
class ToProblem(Destination):
    """An error, before anything was written."""

    error: LiferaftError


@dataclass(frozen=True)
class ToSupport(Destination):
    """Save the support bundle to a stick."""


@dataclass(frozen=True)
class ToEnding(Destination):
    """Ask before the machine is restarted or switched off."""

    ending: Ending


class Go(Message):
    """Show that screen, above the present one or in its place."""

    def __init__(self, to: Destination, *, replace: bool = False) -> None:
        super().__init__()
        self.to = to
        self.replace = replace


class Back(Message):
    """Leave the present screen."""


class Home(Message):
    """Leave all screens but the first."""


class WantShell(Message):
    """A shell on this terminal; the wizard waits, where it is, until the shell ends.

    Args:
        leave: end the wizard instead where a shell is behind it already.
    """

    def __init__(self, *, leave: bool = False) -> None:
        super().__init__()
        self.leave = leave


class Failed(Message):
    """A worker's job ended in an error."""

    def __init__(self, error: LiferaftError) -> None:
        super().__init__()
        self.error = error
