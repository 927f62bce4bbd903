"""The restore jobs: make a plan, carry out a confirmed plan."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from core.documents import decode_written
from core.errors import RefusedError
from core.events import Sink
from core.process import Runner
from images.model.machine import Firmware, Machine, MachineDisk
from images.probe import block_devices, probe_machine
from images.store.access import Access
from images.store.connect import open_repository
from images.store.repository import Repository
from restore.execute import execute
from restore.matching import Pair
from restore.plan import PLAN_VERSION, Plan
from restore.planner import PlanOptions, make_plan
from restore.report import Report
from restore.rules import Growth, PartitionRule, TableChoice
from restore.targets import Candidate, disk_candidate, name_target


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
    """

    grow: bool = False
    grow_all: bool = False
    rules: tuple[PartitionRule, ...] = ()
    table: TableChoice = TableChoice.KEEP
    verify: bool = True
    boot: BootChoice = BootChoice.AUTO
    onto_source: bool = False
    unique: bool = False

    @property
    def growth(self) -> Growth:
        """Who takes the space that is left."""
        if self.grow_all:
            return Growth.ALL
        return Growth.LAST if self.grow else Growth.NONE


def plan_restore(
    repository: str,
    point: str,
    targets: Sequence[Path],
    choices: RestoreChoices,
    runner: Runner,
    access: Access | None = None,
) -> Plan:
    """The plan for restoring a recovery point to disks or files named by path.

    Raises:
        UsageError, RefusedError, DamagedError, UnreachableError: with every reason. Nothing is written.
    """
    opened = open_repository(repository, access)
    candidates = [name_target(path, repository, runner) for path in targets]
    return _plan(opened, point, candidates, choices, runner)


def plan_restore_to_disk(
    repository: str,
    point: str,
    disk: MachineDisk,
    choices: RestoreChoices,
    runner: Runner,
    access: Access | None = None,
) -> Plan:
    """The same for a disk of the probed machine, as the wizard and the unattended job name it."""
    opened = open_repository(repository, access)
    candidate = disk_candidate(disk, repository, block_devices(runner))
    return _plan(opened, point, [candidate], choices, runner)


def _plan(
    repository: Repository, point: str, candidates: Sequence[Candidate], choices: RestoreChoices, runner: Runner
) -> Plan:
    options = PlanOptions(
        growth=choices.growth,
        rules=choices.rules,
        table=choices.table,
        verify=choices.verify,
        firmware=_firmware(choices.boot, candidates, runner),
        onto_source=choices.onto_source,
        unique=choices.unique,
    )
    found = repository.resolve(point)
    disks = repository.manifest(found).layout.disks
    if len(disks) != len(candidates):
        raise RefusedError(
            f"Recovery point {found[:12]} has {len(disks)} disks, and {len(candidates)} targets are named.",
            hint="Name a target for each.",
        )
    pairs = [Pair(disk=disk.id, candidate=candidate) for disk, candidate in zip(disks, candidates, strict=True)]
    return make_plan(repository, found, pairs, options)


def _firmware(choice: BootChoice, candidates: Sequence[Candidate], runner: Runner) -> Firmware | None:
    """An image file is not the disk of this machine: its boot loader is left alone unless asked for."""
    if choice is BootChoice.AUTO:
        if any(candidate.file for candidate in candidates):
            return None
        return probe_machine(runner).firmware
    return None if choice is BootChoice.NO else Firmware(choice.value)


def read_plan(content: bytes, name: str) -> Plan:
    """A plan from a file.

    Raises:
        UsageError: it is not a plan, naming the field. RefusedError: it needs a newer liferaft.
    """
    plan = decode_written(content, Plan, name=name)
    if plan.version > PLAN_VERSION:
        raise RefusedError(f"{name} needs plan version {plan.version}.", hint="Use a newer liferaft.")
    return plan


def run_plan(
    plan: Plan,
    confirm: str,
    runner: Runner,
    sink: Sink,
    *,
    repository: str = "",
    hooks: Path | None = None,
    access: Access | None = None,
) -> Report:
    """Carry out a plan whose digest is given back.

    Args:
        repository: where the repository is now, when it is not where the plan says.
        hooks: the site's hooks folder.
    """
    opened = open_repository(repository or plan.repository, access)
    return execute(plan, confirm, opened, runner, sink, hooks=hooks)


def target_disk(machine: Machine, wanted: "TargetRule") -> MachineDisk:
    """The one disk a rule means.

    Raises:
        RefusedError: none or several match: unattended, a guess is no answer.
    """
    free = [disk for disk in machine.disks if not disk.obstacles]
    if wanted.only:
        matches = free
        rule = "the only free disk"
    else:
        rule = f"WWN {wanted.wwn}" if wanted.wwn else f"serial {wanted.serial}"
        matches = [
            disk
            for disk in machine.disks
            if (wanted.wwn and disk.identity.wwn == wanted.wwn)
            or (wanted.serial and disk.identity.serial == wanted.serial)
        ]
    if len(matches) == 1:
        return matches[0]
    shown = [f"{disk.node} {disk.identity.model} serial {disk.identity.serial or 'unknown'}" for disk in machine.disks]
    found = "no disk matches" if not matches else f"{len(matches)} disks match"
    raise RefusedError(
        f"The job's target is {rule}, and {found}.",
        hint=f"This machine has: {'; '.join(shown) or 'no disks'}.",
    )


class TargetRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which disk an unattended restore goes to: exactly one of the three."""

    wwn: str = ""
    serial: str = ""
    only: bool = False

    def __post_init__(self) -> None:
        if sum((bool(self.wwn), bool(self.serial), self.only)) != 1:
            raise ValueError("target takes exactly one of wwn, serial and only")
