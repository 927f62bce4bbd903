"""The check of a plan that somebody may have edited, and the documents it comes with: plans, recorded machines."""

from core.documents import decode_stored, decode_written
from core.errors import DamagedError, RefusedError
from core.events import Sink, Stage, Watch, ignore, watching
from core.process import Runner
from core.units import counted
from images.model.machine import Machine
from images.store.access import Access
from images.store.second_try import SecondTry
from images.store.watched import open_watched
from rescue.jobs.placing import recorded_candidate
from restore.plan.plan import PLAN_VERSION, Plan, TargetDisk
from restore.plan.review import review
from restore.target.candidates import Candidate, find_target, meant_disk

#: Bytes of the smallest sector there is.
_SECTOR = 512


def check_plan(
    plan: Plan,
    repository: str,
    runner: Runner,
    access: Access | None = None,
    *,
    machine: Machine | None = None,
    sink: Sink = ignore,
) -> tuple[str, ...]:
    """Look for everything that speaks against a plan, which somebody may have edited. Nothing is written.

    Damage is judged as a restore judges it: what its parity, or another copy, brings back is no reason against.

    Args:
        repository: where it is now; empty for where the plan says.
        machine: a recorded machine that the plan's targets are disks of, instead of this one.
        sink: is told when the repository does not answer.

    Returns:
        warnings: what is damaged, and can be restored all the same.

    Raises:
        RefusedError: with every reason.
    """
    address = repository or plan.repository

    def find(target: TargetDisk) -> Candidate:
        if machine is None:
            return find_target(target, address, runner)
        return recorded_candidate(meant_disk(target, machine.disks), address)

    watch = Watch(sink, Stage.PREFLIGHT, "Checking the plan")
    with watching(watch):
        opened = open_watched(address, access, watch, sink)
        second = opened.otherwise = SecondTry(opened)
        with watch.doing(f"Checking the plan against what {opened.backend.location} holds"):
            reasons = review(plan, opened, find, watch)
    if reasons:
        raise RefusedError(f"The plan cannot be carried out: {reasons[0]}.", reasons=tuple(reasons))
    if not second.warnings:
        return ()
    packs, chunks = counted(len(second.warnings), "damaged pack"), counted(second.count, "damaged chunk")
    return (f"A restore reads around {packs}; this check met {chunks} and read them so.", *second.warnings)


def read_machine(content: bytes, name: str) -> Machine:
    """A recorded machine, as ``liferaft probe --json`` prints it.

    Raises:
        DamagedError: it is none, naming the field.
    """
    machine = decode_stored(content, Machine, name=name)
    for number, disk in enumerate(machine.disks):
        if disk.size < 0 or disk.sector_size < _SECTOR or disk.sector_size & (disk.sector_size - 1):
            raise DamagedError(
                f"{name} is not a valid machine: no disk has {disk.size} bytes in sectors of {disk.sector_size} "
                f"- at `$.disks[{number}]`.",
                hint="liferaft probe --json makes one.",
            )
    return machine


def read_plan(content: bytes, name: str) -> Plan:
    """A plan from a file.

    Raises:
        UsageError: it is not a plan, naming the field. RefusedError: it needs a newer liferaft.
    """
    plan = decode_written(content, Plan, name=name)
    if plan.version > PLAN_VERSION:
        raise RefusedError(f"{name} needs plan version {plan.version}.", hint="Use a newer liferaft.")
    return plan
