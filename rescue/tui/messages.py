"""What screens say to the app: where to go. A destination carries what its screen needs, typed.

Importing this loads no job: the types are for the checker only. Structs, for the first screen waits for this module:
two dozen data classes take a tenth of a second on a slow machine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from textual.message import Message

if TYPE_CHECKING:
    from core.errors import LiferaftError
    from images.model.layout import Layout
    from images.model.machine import Machine, MachineDisk
    from images.store.catalogue import PointSummary
    from rescue.jobs.preflight import JudgedHere
    from rescue.jobs.scratch_places import ScratchPlace
    from rescue.jobs.write_usb import StickPlan, StickReport
    from restore.plan.plan import Plan
    from restore.planning.matching import Matching
    from restore.planning.rules import PartitionRule
    from restore.report import Report
    from restore.target.candidates import Candidate


class Ending(StrEnum):
    """What becomes of the machine; the words are systemctl's."""

    REBOOT = "reboot"
    POWEROFF = "poweroff"


class Destination(msgspec.Struct, frozen=True):
    """A screen and what it is given."""


class ToMachine(Destination, frozen=True):
    """Everything about this machine."""

    machine: Machine


class ToRepository(Destination, frozen=True):
    """Choose among the repositories on attached disks. ``network`` is a line about the network interfaces."""

    network: str


class ToAddress(Destination, frozen=True):
    """Type a URL or a path."""

    network: str


class ToPassphrase(Destination, frozen=True):
    """Type the passphrase of an encrypted repository."""

    repository: str


class ToPoints(Destination, frozen=True):
    """Choose a recovery point. ``points``: when they have been read already, oldest first."""

    repository: str
    points: tuple[PointSummary, ...] | None = None


class ToTarget(Destination, frozen=True):
    """Choose a disk for the recovery point."""

    repository: str
    point: PointSummary


class Placed(msgspec.Struct, frozen=True):
    """A disk of the recovery point, by its id, and its target; empty when the point has one disk."""

    source: str
    target: MachineDisk


class ToAssign(Destination, frozen=True):
    """Choose a target for each disk of ``layout``. The machine as it was looked at, and what matching proposes."""

    repository: str
    point: PointSummary
    machine: Machine
    layout: Layout
    matching: Matching


class Wanted(msgspec.Struct, frozen=True):
    """How a person wants it restored.

    Attributes:
        grow: the last filesystem that can takes the space of a larger disk, where no rule says otherwise.
        verify: everything is read back.
        unique: it is a clone, with identities of its own.
        rules: for single partitions.
        degraded: arrays come back without the members that are left out.
    """

    grow: bool = False
    verify: bool = True
    unique: bool = False
    rules: tuple[PartitionRule, ...] = ()
    degraded: bool = False


class ToPartitions(Destination, frozen=True):
    """Decide about single partitions."""

    repository: str
    point: PointSummary
    placed: tuple[Placed, ...]
    wanted: Wanted


class ToPlan(Destination, frozen=True):
    """Make the plan, show it, have it confirmed. ``scratch``: as chosen; None for where it goes by itself."""

    repository: str
    point: PointSummary
    placed: tuple[Placed, ...]
    wanted: Wanted
    scratch: ScratchPlace | None = None


class ToScratch(Destination, frozen=True):
    """Choose where scratch files go, for the plan that is gone back to. ``why``: what is wrong with where they went."""

    back: ToPlan
    plan: Plan
    why: str = ""


class ToRestoring(Destination, frozen=True):
    """Carry out a confirmed plan. ``disk`` is the target's short name, for showing; ``targets``: what is written.
    ``scratch`` as in ToPlan."""

    plan: Plan
    disk: str
    targets: tuple[MachineDisk, ...]
    scratch: ScratchPlace | None = None


class ToResult(Destination, frozen=True):
    """How the restore ended. ``disk``, ``targets`` as above; ``begun`` when something may have been written there."""

    outcome: Report | LiferaftError
    disk: str
    targets: tuple[MachineDisk, ...]
    begun: bool = True


class ToProblem(Destination, frozen=True):
    """An error, before anything was written."""

    error: LiferaftError


class ToSupport(Destination, frozen=True):
    """Save the support bundle to a stick."""


class ToPreflight(Destination, frozen=True):
    """Choose a rescue medium, and have it judged for this machine."""


class ToPreflightResult(Destination, frozen=True):
    """What a medium cannot drive here. ``name``: the medium, for people."""

    name: str
    judged: JudgedHere


class ToSaveMachine(Destination, frozen=True):
    """Save a machine's document to a stick."""

    machine: Machine


class StickWish(msgspec.Struct, frozen=True):
    """A rescue stick as a person wants it.

    Attributes:
        iso: the file, or the node of the medium, that is written; empty: not chosen yet.
        data: a new partition for data. keep: the one that is there stays.
        repository: whose recovery points are copied there; empty for none. empty: a new repository instead.
    """

    iso: str = ""
    data: bool = False
    keep: bool = False
    repository: str = ""
    empty: bool = False


class ToStick(Destination, frozen=True):
    """Make another rescue stick: what is written, and onto which."""


class ToStickPlan(Destination, frozen=True):
    """Confirm what is written, and what is lost for it."""

    plan: StickPlan


class ToStickWriting(Destination, frozen=True):
    """Write the stick that was confirmed."""

    plan: StickPlan


class ToStickResult(Destination, frozen=True):
    """How that ended. ``begun`` when something may have been written; ``starts`` when all of the medium is there."""

    outcome: StickReport | LiferaftError
    stick: Candidate
    begun: bool = True
    starts: bool = False


class ToEnding(Destination, frozen=True):
    """Ask before the machine is restarted or switched off. ``loses``: what would be lost, in a sentence, or empty."""

    ending: Ending
    loses: str = ""


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
