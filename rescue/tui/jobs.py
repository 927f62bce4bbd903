"""What the wizard can have done: the jobs its screens call from worker threads.

A protocol, so that tests give other machines and disks. The production jobs load the heavy half of
liferaft (numpy, parted, requests) only when a screen needs it: the first screen of a machine that boots
from a CD must not wait for it.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from core.events import Sink
from core.process import Runner
from images.model.machine import Machine, MachineDisk
from images.probe import probe_machine
from rescue.tui.messages import Ending

if TYPE_CHECKING:
    from images.store.repository import PointSummary
    from rescue.jobs.repositories import AttachedRepositories, Findings
    from restore.plan import Plan
    from restore.report import Report

#: Job -> its module, imported when the job is first asked for; in the order in which a person comes to them.
LATER = {
    "repositories": "rescue.jobs.repositories",
    "points": "rescue.jobs.points",
    "restore": "rescue.jobs.restore",
}


class Jobs(Protocol):
    """Every method blocks and is called from a worker thread; errors are LiferaftErrors."""

    def probe(self) -> Machine:
        """This machine, as it is now."""
        ...

    def find_repositories(self) -> "Findings":
        """The repositories on attached disks; their filesystems stay mounted, read-only."""
        ...

    def points(self, repository: str) -> "tuple[PointSummary, ...]":
        """The recovery points of a repository, oldest first. It is now the chosen one: other mounts are let go."""
        ...

    def plan(self, repository: str, point: str, disk: MachineDisk, *, grow: bool, verify: bool) -> "Plan":
        """The plan for restoring a recovery point to a disk. Nothing is written."""
        ...

    def run(self, plan: "Plan", sink: Sink) -> "Report":
        """Carry out a plan that the person has confirmed."""
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

    def probe(self) -> Machine:
        return probe_machine(self._runner)

    def find_repositories(self) -> "Findings":
        if self._attached is None:
            attached: AttachedRepositories = _load("repositories").AttachedRepositories(self._runner)
            self._attached = attached
        return self._attached.find()

    def points(self, repository: str) -> "tuple[PointSummary, ...]":
        if self._attached is not None:
            self._attached.keep(repository)
        points: tuple[PointSummary, ...] = _load("points").list_points(repository)
        return points

    def plan(self, repository: str, point: str, disk: MachineDisk, *, grow: bool, verify: bool) -> "Plan":
        # The disk a point was taken from is the most common target of all: the plan names it, the person confirms.
        restore = _load("restore")
        choices = restore.RestoreChoices(grow=grow, verify=verify, onto_source=True)
        plan: Plan = restore.plan_restore_to_disk(repository, point, disk, choices, self._runner)
        self._typed[plan.repository] = repository
        return plan

    def run(self, plan: "Plan", sink: Sink) -> "Report":
        report: Report = _load("restore").run_plan(
            plan, plan.digest, self._runner, sink, repository=self._typed.get(plan.repository, "")
        )
        return report

    def end(self, ending: Ending) -> None:
        self._runner.run(["systemctl", "--no-block", ending.value], timeout=60)

    def close(self) -> None:
        if self._attached is not None:
            self._attached.close()


def _load(job: str) -> ModuleType:
    """The module of a job; what is taken from it is typed where it is used."""
    return importlib.import_module(LATER[job])
