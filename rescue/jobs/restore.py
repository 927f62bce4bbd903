"""The restore jobs: make a plan, carry out a confirmed plan."""

import contextlib
import datetime
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from core.errors import LiferaftError, RefusedError
from core.events import Sink, Stage, Watch, ignore, watching
from core.process import Runner
from images.model.layout import Disk, Layout
from images.model.machine import Firmware, Machine, MachineDisk
from images.probe import block_devices, probe_machine
from images.stack.keys import Keys
from images.store.access import Access
from images.store.repository import Repository
from images.store.second_try import SecondTry
from images.store.watched import open_watched
from rescue.jobs.placing import (
    Ask,
    Assigned,
    TargetRule,
    live_name,
    matched,
    place_assigned,
    place_matched,
    place_named,
    recorded_candidate,
    recorded_disk,
    target_disk,
    wanted_disks,
)
from rescue.jobs.records import failure, keep_record
from restore.execute import execute
from restore.fit.fitting import smallest_target
from restore.fit.wishes import Wishes
from restore.perform.work import Conduct
from restore.plan.forecast import remember, with_estimate
from restore.plan.plan import Plan
from restore.plan.rates import book_path, read_book
from restore.planning.contents import Contents
from restore.planning.draft import Draft, draft
from restore.planning.matching import Matching, Pair
from restore.planning.placement import PlanOptions, place
from restore.planning.planner import make_plan
from restore.planning.rules import Growth, PartitionRule, TableChoice
from restore.planning.surveyed import of_steps
from restore.report import Report
from restore.target.candidates import Candidate, disk_candidate, name_target

_LOOKING = "Looking at the disks of this machine"
_RECORDED = "Made for a recorded machine: what is on its disks, and whether they are free, is looked at again then."


class BootChoice(StrEnum):
    """Whether the boot loader is repaired: for this machine's firmware, for a named one, or not."""

    AUTO = "auto"
    BIOS = "bios"
    UEFI = "uefi"
    NO = "no"


class RestoreChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What a user chooses for a restore.

    Attributes:
        grow: the last data filesystem that can takes the space a larger disk has.
        grow_all: all of them share it, by their sizes.
        rules: for single partitions; they decide before the two.
        skip: ids of disks that are not restored.
        match: targets that nobody named are found by what the disks are.
        degraded: arrays come back without the members that are left out, as far as their redundancy allows.
        estimate: measure, in under a second, how long it may take; nobody waits for that who does not read the plan.
    """

    grow: bool = False
    grow_all: bool = False
    rules: tuple[PartitionRule, ...] = ()
    table: TableChoice = TableChoice.KEEP
    verify: bool = True
    boot: BootChoice = BootChoice.AUTO
    onto_source: bool = False
    unique: bool = False
    skip: tuple[str, ...] = ()
    match: bool = False
    degraded: bool = False
    estimate: bool = True

    @property
    def growth(self) -> Growth:
        """Who takes the space that is left."""
        if self.grow_all:
            return Growth.ALL
        return Growth.LAST if self.grow else Growth.NONE


def plan_restore(
    repository: str,
    point: str,
    targets: Sequence[Path | str],
    choices: RestoreChoices,
    runner: Runner,
    access: Access | None = None,
    *,
    machine: Machine | None = None,
    ask: Ask | None = None,
    sink: Sink = ignore,
) -> Plan:
    """The plan for restoring a recovery point to disks or files.

    Args:
        targets: paths, or serial numbers or WWNs of disks; ``disk0=`` before one says what goes there. With
            ``choices.match`` there may be none.
        machine: a recorded machine that the targets are disks of, instead of this one.
        ask: whether a person takes an assignment that is not clear; None when nobody can be asked.
        sink: is told when the repository, or a disk, does not answer.

    Raises:
        UsageError, RefusedError, DamagedError, UnreachableError: with every reason. Nothing is written.
    """
    with _planning(repository, point, choices, runner, access, sink, machine) as planning:
        names = [str(target) for target in targets]
        patient = planning.patient(ask)
        if choices.match and not names:
            free = planning.all_candidates()
            return planning.plan(place_matched(planning.manifest, planning.disks, free, planning.least, patient))
        return planning.plan(
            place_named(planning.manifest, planning.disks, names, planning.find, planning.least, patient)
        )


def plan_restore_assigned(
    repository: str,
    point: str,
    assigned: Sequence[Assigned],
    choices: RestoreChoices,
    runner: Runner,
    access: Access | None = None,
) -> Plan:
    """The same for disks that a person assigned, as the wizard does; the others are left out."""
    with _planning(repository, point, choices, runner, access) as planning:
        return planning.plan(place_assigned(planning.disks, assigned, planning.candidate))


def draft_restore(
    repository: str,
    point: str,
    assigned: Sequence[Assigned],
    choices: RestoreChoices,
    runner: Runner,
    access: Access | None = None,
) -> Draft:
    """What would become of each partition of disks that a person assigned: no chunk is looked for, no fault raises."""
    with _planning(repository, point, choices, runner, access) as planning:
        return planning.draft(place_assigned(planning.disks, assigned, planning.candidate))


def plan_restore_by_rules(
    repository: str,
    point: str,
    rules: Sequence[TargetRule],
    choices: RestoreChoices,
    runner: Runner,
    access: Access | None = None,
    sink: Sink = ignore,
) -> Plan:
    """The same by a job's rules. What they leave open is matched, if ``choices.match`` allows it and it is clear."""
    # The targets first: a machine in which they are missing need not fetch a passphrase or a manifest.
    machine = probe_machine(runner)
    assigned = [Assigned(disk=rule.disk, target=target_disk(machine, rule)) for rule in rules]
    with _planning(repository, point, choices, runner, access, sink) as planning:
        pairs = place_assigned(planning.disks, assigned, planning.candidate)
        ruled = {pair.disk for pair in pairs}
        left = [disk for disk in planning.disks if disk.id not in ruled]
        if left and not choices.match:
            names = ", ".join(disk.id for disk in left)
            raise RefusedError(
                f"The job does not say where {names} of the recovery point goes.",
                hint='Name a target for each in "targets", leave disks out with "skip", or allow "match".',
            )
        if left:
            taken = {pair.candidate.node for pair in pairs}
            free = [candidate for candidate in planning.all_candidates() if candidate.node not in taken]
            pairs = (*pairs, *place_matched(planning.manifest, left, free, planning.least, None))
        return planning.plan(pairs)


def match_disks(
    repository: str, point: str, machine: Machine, runner: Runner, access: Access | None = None
) -> tuple[Layout, Matching]:
    """The layout of a recovery point, and how well the free disks of this machine suit its disks."""
    with _planning(repository, point, RestoreChoices(), runner, access) as planning:
        candidates = [planning.candidate(disk) for disk in machine.disks]
        return planning.manifest.layout, matched(planning.manifest, planning.disks, candidates, planning.least)


@contextlib.contextmanager
def _planning(
    repository: str,
    point: str,
    choices: RestoreChoices,
    runner: Runner,
    access: Access | None,
    sink: Sink = ignore,
    recorded: Machine | None = None,
) -> Iterator["_Planning"]:
    """A plan in the making, under a watch: whoever looks at ``sink`` is told what is waited for."""
    watch = Watch(sink, Stage.PREFLIGHT, "Making the plan")
    with watching(watch):
        opened = open_watched(repository, access, watch, sink)
        with watch.doing(f"Reading the recovery points of {opened.backend.location}"):
            planning = _Planning(opened, repository, point, choices, runner, recorded, watch)
        yield planning


class _Planning:
    """One plan in the making: what the repository holds, and the machine that the targets are disks of."""

    def __init__(
        self,
        opened: Repository,
        address: str,
        point: str,
        choices: RestoreChoices,
        runner: Runner,
        recorded: Machine | None,
        watch: Watch,
    ) -> None:
        self._watch = watch
        self._opened = opened
        # A pack that its parity brings back is no reason against a restore; it is said in the plan.
        self._second = opened.otherwise = SecondTry(opened)
        self._address = address
        self._point = opened.resolve(point)
        self._choices = choices
        self._runner = runner
        self._recorded = recorded
        self.manifest = opened.manifest(self._point)
        self.disks = wanted_disks(self.manifest, choices.skip)

    def find(self, name: str) -> Candidate:
        """The target that a person named."""
        if self._recorded is not None:
            return self.candidate(recorded_disk(self._recorded, name))
        with self._watch.doing(_LOOKING):
            return name_target(live_name(name, lambda: probe_machine(self._runner)), self._address, self._runner)

    def all_candidates(self) -> list[Candidate]:
        """Every disk of the machine."""
        with self._watch.doing(_LOOKING):
            machine = self._recorded or probe_machine(self._runner)
            return [self.candidate(disk) for disk in machine.disks]

    def candidate(self, disk: MachineDisk) -> Candidate:
        """A disk of the machine. What spoke against one of a recorded machine was true then, and is asked again when
        the plan is carried out."""
        if self._recorded is not None:
            return recorded_candidate(disk, self._address)
        return disk_candidate(disk, self._address, block_devices(self._runner))

    def patient(self, ask: Ask | None) -> Ask | None:
        """Who is asked about an assignment; while a person thinks about it, nothing is missed."""
        if ask is None:
            return None

        def answer(found: Matching) -> bool:
            with self._watch.asking():
                return ask(found)

        return answer

    def least(self, disk: Disk) -> int:
        """Bytes of the smallest target that takes a disk, by its rules, read from the image as the fit does."""
        contents = Contents(self._opened, self._point, self.manifest, disk)
        rules = tuple(rule for rule in self._choices.rules if rule.partition and rule.disk in ("", disk.id))
        return smallest_target(disk, Wishes(rules=rules, table=self._choices.table, least=contents.bare_least))

    def draft(self, pairs: Sequence[Pair]) -> Draft:
        """What would become of each partition."""
        return draft(place(self._opened, self._point, pairs, self._options(pairs)))

    def _options(self, pairs: Sequence[Pair]) -> PlanOptions:
        choices = self._choices
        return PlanOptions(
            growth=choices.growth,
            rules=choices.rules,
            table=choices.table,
            verify=choices.verify,
            firmware=self._firmware(pairs),
            onto_source=choices.onto_source,
            unique=choices.unique,
            degraded=choices.degraded,
        )

    def plan(self, pairs: Sequence[Pair]) -> Plan:
        """The plan, with an estimate."""
        choices, location = self._choices, self._opened.backend.location
        with self._watch.doing(f"Making the plan from what {location} holds"):
            plan = make_plan(self._opened, self._point, pairs, self._options(pairs), self._watch)
        plan = msgspec.structs.replace(plan, notes=(*plan.notes, *self._second.warnings))
        if self._recorded is not None:
            nodes = {pair.candidate.node for pair in pairs}
            notes = [_RECORDED, *(f"When it was recorded, {why}." for why in _obstacles(self._recorded, nodes))]
            plan = msgspec.structs.replace(plan, notes=(*plan.notes, *notes))
        if not choices.estimate:
            return plan
        restored = of_steps(plan, self.manifest)
        here = self._recorded is None
        with self._watch.doing(f"Measuring how fast {location} and the targets are read"):
            return with_estimate(plan, self._opened, restored, pairs, read_book(book_path()), here=here)

    def _firmware(self, pairs: Sequence[Pair]) -> Firmware | None:
        """An image file is not the disk of this machine: its boot loader is left alone unless asked for."""
        choice = self._choices.boot
        if choice is BootChoice.AUTO:
            if any(pair.candidate.file for pair in pairs):
                return None
            return (self._recorded or probe_machine(self._runner)).firmware
        return None if choice is BootChoice.NO else Firmware(choice.value)


def _obstacles(machine: Machine, nodes: Collection[str]) -> list[str]:
    return [why for disk in machine.disks if disk.node in nodes for why in disk.obstacles]


def run_plan(
    plan: Plan,
    confirm: str,
    runner: Runner,
    sink: Sink,
    *,
    repository: str = "",
    hooks: Path | None = None,
    access: Access | None = None,
    keys: Keys | None = None,
    journal: Path | None = None,
    discard: bool = True,
    scratch: Path | None = None,
) -> Report:
    """Carry out a plan whose digest is given back. On the rescue system plan and report, or failure, are kept.

    Args:
        repository: where the repository is now, when it is not where the plan says.
        hooks: the site's hooks folder.
        keys: of the encrypted disks in the recovery point.
        journal: the file that remembers what is done; None: beside what is remembered of earlier restores.
        discard: tell the targets which ranges nobody needs.
        scratch: the folder for scratch files, which making filesystems smaller takes; None: TMPDIR's.
    """
    watch = Watch(sink, Stage.PREFLIGHT, "Checking the plan")
    with watching(watch):
        opened = open_watched(repository or plan.repository, access, watch, sink)
    journal = journal or book_path().with_name(f"{plan.digest}.journal")
    conduct = Conduct(journal=journal, discard=discard, scratch=scratch)
    keep_record("plan", plan)
    try:
        report = execute(plan, confirm, opened, runner, sink, hooks=hooks, keys=keys, conduct=conduct)
    except LiferaftError as error:
        keep_record("failure", failure(error, plan.digest))
        raise
    keep_record("report", report)
    remember(plan, report, book_path(), today=datetime.datetime.now(datetime.UTC).date())
    return report
