"""What the wizard can have done: the jobs its screens call from worker threads.

A protocol, so that tests give other machines and disks. The production jobs load the heavy half of
liferaft (numpy, parted, requests) only when a screen needs it: the first screen of a machine that boots
from a CD must not wait for it.
"""

import datetime
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import msgspec

from core.events import Sink
from core.process import Runner
from images.model.machine import Machine
from images.probe import probe_machine
from images.probe_hardware import read_devices
from images.stack.keys import AskKey, Keys
from images.store.passphrase import Passphrase
from rescue.tui.messages import Ending, Placed, StickWish, Wanted

if TYPE_CHECKING:
    from images.model.layout import Layout
    from images.store.access import Access
    from images.store.catalogue import PointSummary
    from rescue.jobs.attached_media import AttachedMedium
    from rescue.jobs.preflight import JudgedHere
    from rescue.jobs.repositories import AttachedRepositories, Findings, FoundRepository
    from rescue.jobs.restore import RestoreChoices
    from rescue.jobs.scratch_places import ScratchPlace
    from rescue.jobs.support_places import SupportPlace
    from rescue.jobs.write_usb import StickPlan, StickReport
    from restore.plan.plan import Plan
    from restore.planning.draft import Draft
    from restore.planning.matching import Matching
    from restore.report import Report

#: Job -> its module, imported when the job is first asked for; in the order in which a person comes to them.
LATER = {
    "repositories": "rescue.jobs.repositories",
    "access": "rescue.jobs.access",
    "points": "rescue.jobs.points",
    "restore": "rescue.jobs.restore",
    "scratch": "rescue.jobs.scratch_places",
    "support": "rescue.jobs.support_places",
    "site": "builder.site.document",
    "running": "rescue.jobs.running",
    "media": "rescue.jobs.attached_media",
    "preflight": "rescue.jobs.preflight",
    "machine document": "rescue.jobs.machine_document",
    "stick repository": "rescue.jobs.stick_repository",
    "stick": "rescue.jobs.write_usb",
}


class Jobs(Protocol):
    """Every method blocks and is called from a worker thread; errors are LiferaftErrors."""

    def probe(self) -> Machine:
        """This machine, as it is now; its disks hold the repositories that were found on them, too."""
        ...

    def find_repositories(self) -> "Findings":
        """The repositories on attached disks; their filesystems stay mounted, read-only."""
        ...

    def points(self, repository: str, passphrase: Passphrase | None = None) -> "tuple[PointSummary, ...]":
        """The recovery points of a repository, oldest first. It is now the chosen one: other mounts are let go.

        Args:
            passphrase: opens it; kept, when it is right, until repositories are looked for again.

        Raises:
            PassphraseNeededError: it is encrypted, and no passphrase is known. WrongPassphraseError.
        """
        ...

    def match(self, repository: str, point: str, machine: Machine) -> "tuple[Layout, Matching]":
        """The layout of a recovery point, and how well the disks of the machine suit its disks."""
        ...

    def draft(self, repository: str, point: str, placed: Sequence[Placed], wanted: Wanted) -> "Draft":
        """What would become of each partition; disks without a target are left out."""
        ...

    def plan(self, repository: str, point: str, placed: Sequence[Placed], wanted: Wanted) -> "Plan":
        """The plan for restoring a recovery point to disks; disks without a target are left out. Nothing is written."""
        ...

    def scratch_reason(self, plan: "Plan", scratch: "ScratchPlace | None", targets: Sequence[str]) -> str:
        """Why the plan's scratch files cannot lie there, as far as can be seen; empty when they can. ``targets``: as
        below."""
        ...

    def scratch_places(self, plan: "Plan", targets: Sequence[str]) -> "tuple[ScratchPlace, ...]":
        """Where the plan's scratch files can go. ``targets``: nodes of the disks that it writes."""
        ...

    def run(self, plan: "Plan", sink: Sink, ask: AskKey, scratch: "ScratchPlace | None" = None) -> "Report":
        """Carry out a plan that the person has confirmed. ``ask``: for the passphrase of an encrypted disk."""
        ...

    def support_places(self) -> "tuple[SupportPlace, ...]":
        """Where a support bundle can be saved: sticks, and what is mounted to write."""
        ...

    def save_support(self, place: "SupportPlace", sink: Sink) -> str:
        """Save the support bundle there, and let go of the stick; the name of the file."""
        ...

    def media(self, repository: str) -> "tuple[AttachedMedium, ...]":
        """The rescue media that are attached, the running one first. What a search for repositories has mounted is let
        go, but for what ``repository`` lies on.
        """
        ...

    def preflight(self, medium: Path, sink: Sink) -> "JudgedHere":
        """What a rescue medium cannot drive on this machine. ``medium``: a device, an ISO file or a netboot folder."""
        ...

    def save_machine(self, place: "SupportPlace", machine: Machine) -> str:
        """Save the machine's document there, and let go of the stick; the name of the file."""
        ...

    def held_by_sticks(self, repository: str) -> "tuple[FoundRepository, ...]":
        """The repositories on disks that can be taken out. What is mounted for looking is let go, as by ``media``."""
        ...

    def plan_stick(self, wish: StickWish, node: str, passphrase: Passphrase | None, sink: Sink) -> "StickPlan":
        """What writing a rescue stick would do. Nothing is written.

        Args:
            passphrase: of the repository that is to be copied; the copy gets the same.

        Raises:
            RefusedError: with every reason. PassphraseNeededError, WrongPassphraseError: of the repository.
        """
        ...

    def write_stick(self, plan: "StickPlan", sink: Sink) -> "StickReport":
        """Write the stick that the person has confirmed, and prove it."""
        ...

    def running(self) -> tuple[str, ...]:
        """A few words for each job that runs on this machine just now, of this wizard or of others."""
        ...

    def end(self, ending: Ending) -> None:
        """Restart the machine or switch it off."""
        ...

    def close(self) -> None:
        """Let go of what was mounted."""
        ...


class SystemJobs:
    """The jobs on this machine."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._attached: AttachedRepositories | None = None
        #: Where a plan's repository was typed: with the password that the plan does not hold.
        self._typed: dict[str, str] = {}
        #: Repository, as it was chosen -> its passphrase.
        self._passphrases: dict[str, Passphrase] = {}

    def probe(self) -> Machine:
        machine = msgspec.structs.replace(probe_machine(self._runner), devices=read_devices(Path("/")))
        known = self._attached.known if self._attached is not None else ()
        disks = [
            msgspec.structs.replace(
                disk, contents=(*disk.contents, *(one.shown for one in known if one.node == disk.node))
            )
            for disk in machine.disks
        ]
        return msgspec.structs.replace(machine, disks=tuple(disks))

    def find_repositories(self) -> "Findings":
        # Whoever is back at the choice of a repository has left the one whose passphrase was typed.
        self._passphrases.clear()
        return self._attached_repositories().find()

    def points(self, repository: str, passphrase: Passphrase | None = None) -> "tuple[PointSummary, ...]":
        if self._attached is not None:
            self._attached.keep(repository)
        access = self._access(repository, passphrase)
        points: tuple[PointSummary, ...] = _load("points").list_points(repository, access)
        if passphrase is not None:
            self._passphrases[repository] = passphrase
        return points

    def match(self, repository: str, point: str, machine: Machine) -> "tuple[Layout, Matching]":
        found: tuple[Layout, Matching] = _load("restore").match_disks(
            repository, point, machine, self._runner, self._access(repository)
        )
        return found

    def draft(self, repository: str, point: str, placed: Sequence[Placed], wanted: Wanted) -> "Draft":
        restore = _load("restore")
        assigned = [restore.Assigned(disk=one.source, target=one.target) for one in placed]
        access = self._access(repository)
        made: Draft = restore.draft_restore(repository, point, assigned, _choices(wanted), self._runner, access)
        return made

    def plan(self, repository: str, point: str, placed: Sequence[Placed], wanted: Wanted) -> "Plan":
        restore = _load("restore")
        access = self._access(repository)
        assigned = [restore.Assigned(disk=one.source, target=one.target) for one in placed]
        plan: Plan = restore.plan_restore_assigned(repository, point, assigned, _choices(wanted), self._runner, access)
        self._typed[plan.repository] = repository
        return plan

    def scratch_reason(self, plan: "Plan", scratch: "ScratchPlace | None", targets: Sequence[str]) -> str:
        reason: str = _load("scratch").scratch_reason(plan, scratch, targets, self._runner)
        return reason

    def scratch_places(self, plan: "Plan", targets: Sequence[str]) -> "tuple[ScratchPlace, ...]":
        found: tuple[ScratchPlace, ...] = _load("scratch").scratch_places(plan, targets, self._runner)
        return found

    def run(self, plan: "Plan", sink: Sink, ask: AskKey, scratch: "ScratchPlace | None" = None) -> "Report":
        repository = self._typed.get(plan.repository, plan.repository)
        said = f"restoring {plan.name} to {', '.join(target.shown for target in plan.targets)}"
        places = _load("scratch")
        place = places.place_of(plan, scratch)
        with _load("running").announced(said), places.scratch_in(place, self._runner) as folder:
            report: Report = _load("restore").run_plan(
                plan,
                plan.digest,
                self._runner,
                sink,
                hooks=_load("site").site_hooks(),
                repository=repository,
                access=self._access(repository),
                keys=Keys(ask=ask),
                scratch=folder,
            )
        return report

    def support_places(self) -> "tuple[SupportPlace, ...]":
        found: tuple[SupportPlace, ...] = _load("support").support_places(self._runner)
        return found

    def save_support(self, place: "SupportPlace", sink: Sink) -> str:
        with _load("running").announced("saving a support bundle"):
            name: str = _load("support").save_to_place(place, self._runner, sink)
        return name

    def media(self, repository: str) -> "tuple[AttachedMedium, ...]":
        if self._attached is not None:
            self._attached.keep(repository)
        found: tuple[AttachedMedium, ...] = _load("media").attached_media(self._runner)
        return found

    def preflight(self, medium: Path, sink: Sink) -> "JudgedHere":
        judged: JudgedHere = _load("preflight").preflight_here(medium, self._runner, sink)
        return judged

    def save_machine(self, place: "SupportPlace", machine: Machine) -> str:
        now = datetime.datetime.now(datetime.UTC)
        with _load("running").announced("saving this machine's document"):
            name: str = _load("machine document").save_machine(place, machine, self._runner, now)
        return name

    def held_by_sticks(self, repository: str) -> "tuple[FoundRepository, ...]":
        return self._attached_repositories().on_removable(repository)

    def plan_stick(self, wish: StickWish, node: str, passphrase: Passphrase | None, sink: Sink) -> "StickPlan":
        if self._attached is not None:
            # A search has mounted what the stick holds, too.
            self._attached.keep(wish.repository)
        planned = None
        if wish.repository or wish.empty:
            access = _load("access").access_from(passphrase)
            planned = _load("stick repository").plan_repository(
                wish.repository, access, lambda: passphrase, encrypt=False
            )
        stick = _load("stick")
        choices = stick.StickChoices(data=wish.data, keep_data=wish.keep)
        plan: StickPlan = stick.plan_stick(Path(wish.iso), Path(node), choices, self._runner, sink, repository=planned)
        return plan

    def write_stick(self, plan: "StickPlan", sink: Sink) -> "StickReport":
        with _load("running").announced(f"writing a rescue stick, {plan.stick.node}"):
            report: StickReport = _load("stick").write_planned(plan, self._runner, sink)
        return report

    def running(self) -> tuple[str, ...]:
        found: tuple[str, ...] = _load("running").running_jobs()
        return found

    def end(self, ending: Ending) -> None:
        self._runner.run(["systemctl", "--no-block", ending.value], timeout=60)

    def close(self) -> None:
        if self._attached is not None:
            self._attached.close()

    def _attached_repositories(self) -> "AttachedRepositories":
        if self._attached is None:
            attached: AttachedRepositories = _load("repositories").AttachedRepositories(self._runner)
            self._attached = attached
        return self._attached

    def _access(self, repository: str, passphrase: Passphrase | None = None) -> "Access":
        access: Access = _load("access").access_from(passphrase or self._passphrases.get(repository))
        return access


def _choices(wanted: Wanted) -> "RestoreChoices":
    """The disk a point was taken from is the most common target of all: the plan names it, the person confirms."""
    choices: RestoreChoices = _load("restore").RestoreChoices(
        grow=wanted.grow,
        verify=wanted.verify,
        unique=wanted.unique,
        rules=wanted.rules,
        degraded=wanted.degraded,
        onto_source=True,
    )
    return choices


def _load(job: str) -> ModuleType:
    """The module of a job; what is taken from it is typed where it is used."""
    return importlib.import_module(LATER[job])
