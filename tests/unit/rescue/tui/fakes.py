"""Jobs for the wizard's tests: a made-up machine whose only disk is an image file, real repositories and plans."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from builder.finished.opened import open_medium
from builder.preflight.preflight import check_medium
from core.errors import RefusedError
from core.events import Event, Sink
from core.process import SystemRunner
from images.model.layout import DiskIdentity, Layout
from images.model.machine import Firmware, Machine, MachineDisk, Nic, SecureBoot
from images.stack.keys import AskKey, Keys
from images.store.access import Access
from images.store.catalogue import PointSummary
from images.store.connect import open_repository
from images.store.passphrase import Passphrase
from rescue.jobs.access import access_from
from rescue.jobs.attached_media import AttachedMedium
from rescue.jobs.placing import Assigned
from rescue.jobs.points import list_points
from rescue.jobs.preflight import THIS_MACHINE, JudgedHere
from rescue.jobs.repositories import Findings, FoundRepository
from rescue.jobs.restore import BootChoice, RestoreChoices, draft_restore, match_disks, plan_restore, run_plan
from rescue.jobs.scratch_places import ScratchPlace, scratch_reason
from rescue.jobs.stick_repository import plan_repository
from rescue.jobs.support_places import SupportPlace
from rescue.jobs.write_usb import StickChoices, StickPlan, StickReport, plan_stick, write_planned
from rescue.tui.messages import Ending, Placed, StickWish, Wanted
from restore.plan.plan import Plan
from restore.planning.draft import Draft
from restore.planning.matching import Matching
from restore.report import Report
from restore.shrink.room import scratch_of
from tests.samples import sample_machine


def machine(*disks: MachineDisk) -> Machine:
    """A BIOS machine with these disks."""
    return sample_machine(
        firmware=Firmware.BIOS,
        secure_boot=SecureBoot.UNKNOWN,
        product="Standard PC (Q35 + ICH9, 2009)",
        disks=disks,
        nics=(Nic(name="enp0s2", mac="52:54:00:12:34:56", driver="virtio_net", up=True),),
    )


def disk(node: str, size: int, *obstacles: str, contents: tuple[str, ...] = ()) -> MachineDisk:
    """A disk of the made-up machine."""
    return MachineDisk(
        node=node,
        identity=DiskIdentity(model="QEMU HARDDISK", serial="QM00001", transport="sata"),
        size=size,
        sector_size=512,
        physical_sector_size=512,
        contents=contents,
        obstacles=obstacles,
    )


def _rules(wanted: Wanted) -> str:
    return " ".join(
        f"{rule.volume or f'{rule.disk}:{rule.partition}'}={rule.rule}{f':{rule.size}' if rule.size else ''}"
        for rule in wanted.rules
    )


class FileJobs:
    """Restores to a plain file in earnest; everything else of the machine is made up."""

    def __init__(self, repository: Path, target: Path, *busy: MachineDisk) -> None:
        self.machine = machine(*busy, disk(str(target), target.stat().st_size))
        self.repository = repository
        self.notes: tuple[str, ...] = ()
        self.calls: list[str] = []
        self.endings: list[Ending] = []
        #: What other processes of the machine do.
        self.others: tuple[str, ...] = ()
        self.places: tuple[SupportPlace, ...] = ()
        self.attached: tuple[AttachedMedium, ...] = ()
        self.held: tuple[FoundRepository, ...] = ()
        self.scratch: tuple[ScratchPlace, ...] = ()
        #: What is said against the scratch of a plan where it goes by itself.
        self.cramped = ""
        #: Nodes of the disks of the last plan whose scratch was asked about.
        self.erased: tuple[str, ...] = ()
        self.access: Access | None = None
        self.watch: Callable[[Event], None] = lambda event: None

    def probe(self) -> Machine:
        return self.machine

    def find_repositories(self) -> Findings:
        found = FoundRepository(
            path=str(self.repository), device="/dev/sdb1", disk="USB DISK 3.0 14.32 GiB", points=self._count()
        )
        return Findings(repositories=(found,), notes=self.notes)

    def points(self, repository: str, passphrase: Passphrase | None = None) -> tuple[PointSummary, ...]:
        self.calls.append(f"points {repository}")
        self.access = access_from(passphrase)
        return list_points(repository, self.access)

    def match(self, repository: str, point: str, machine: Machine) -> tuple[Layout, Matching]:
        return match_disks(repository, point, machine, SystemRunner(), self.access)

    def draft(self, repository: str, point: str, placed: Sequence[Placed], wanted: Wanted) -> Draft:
        self.calls.append(f"draft {_rules(wanted)}".rstrip())
        return draft_restore(
            repository, point, self._assigned(placed), self._choices(wanted), SystemRunner(), self.access
        )

    def plan(self, repository: str, point: str, placed: Sequence[Placed], wanted: Wanted) -> Plan:
        self.calls.append(f"plan grow={wanted.grow} verify={wanted.verify} {_rules(wanted)}".rstrip())
        opened = open_repository(repository, self.access)
        manifest = opened.manifest(opened.resolve(point))
        known = [disk.id for disk in manifest.layout.disks]
        skip = tuple(disk for disk in known if len(known) > 1 and disk not in {one.source for one in placed})
        choices = msgspec.structs.replace(self._choices(wanted), skip=skip)
        targets = [f"{one.source or known[0]}={one.target.node}" for one in placed]
        return plan_restore(repository, point, targets, choices, SystemRunner(), self.access)

    def scratch_reason(self, plan: Plan, scratch: ScratchPlace | None, targets: Sequence[str]) -> str:
        self.erased = tuple(targets)
        if not scratch_of(plan):
            return scratch_reason(plan, scratch, targets, SystemRunner())
        if scratch is not None and scratch.device:
            known = {place.device for place in self.scratch}
            return "" if scratch.device in known else f"{scratch.device} is not there any more"
        return self.cramped if scratch is None else scratch_reason(plan, scratch, targets, SystemRunner())

    def scratch_places(self, plan: Plan, targets: Sequence[str]) -> tuple[ScratchPlace, ...]:
        return self.scratch

    def run(self, plan: Plan, sink: Sink, ask: AskKey, scratch: ScratchPlace | None = None) -> Report:
        self.calls.append(f"run {scratch.folder}" if scratch is not None else "run")

        def watched(event: Event) -> None:
            self.watch(event)
            sink(event)

        folder = Path(scratch.folder) if scratch is not None else None
        keys = Keys(ask=ask)
        return run_plan(plan, plan.digest, SystemRunner(), watched, access=self.access, keys=keys, scratch=folder)

    def support_places(self) -> tuple[SupportPlace, ...]:
        return self.places

    def save_support(self, place: SupportPlace, sink: Sink) -> str:
        self.calls.append(f"save {place.device or place.folder}")
        return "liferaft-support-20261121T093000Z.zip"

    def media(self, repository: str) -> tuple[AttachedMedium, ...]:
        return self.attached

    def preflight(self, medium: Path, sink: Sink) -> JudgedHere:
        self.calls.append(f"preflight {medium}")

        def watched(event: Event) -> None:
            self.watch(event)
            sink(event)

        with open_medium(medium) as opened:
            report = check_medium(opened, {THIS_MACHINE: self.machine}, SystemRunner(), watched)
        return JudgedHere(machine=self.machine, report=report)

    def save_machine(self, place: SupportPlace, machine: Machine) -> str:
        self.calls.append(f"save machine {machine.product} {place.device or place.folder}")
        return "liferaft-machine-q35-525400123456.json"

    def held_by_sticks(self, repository: str) -> tuple[FoundRepository, ...]:
        return self.held

    def plan_stick(self, wish: StickWish, node: str, passphrase: Passphrase | None, sink: Sink) -> StickPlan:
        self.calls.append(f"plan stick {Path(node).name} data={wish.data} keep={wish.keep}")
        runner, planned = SystemRunner(), None
        if wish.repository or wish.empty:

            def same() -> Passphrase:
                assert passphrase is not None
                return passphrase

            planned = plan_repository(wish.repository, access_from(passphrase), same, encrypt=False)
        choices = StickChoices(data=wish.data, keep_data=wish.keep, not_removable=True)
        return plan_stick(Path(wish.iso), Path(node), choices, runner, sink, repository=planned)

    def write_stick(self, plan: StickPlan, sink: Sink) -> StickReport:
        self.calls.append("write stick")

        def watched(event: Event) -> None:
            self.watch(event)
            sink(event)

        return write_planned(plan, SystemRunner(), watched)

    def running(self) -> tuple[str, ...]:
        return self.others

    def end(self, ending: Ending) -> None:
        self.endings.append(ending)

    def close(self) -> None:
        self.calls.append("close")

    def _assigned(self, placed: Sequence[Placed]) -> list[Assigned]:
        return [Assigned(disk=one.source, target=one.target) for one in placed]

    def _choices(self, wanted: Wanted) -> RestoreChoices:
        # The targets are files: this machine's firmware has nothing to do with them.
        return RestoreChoices(
            grow=wanted.grow,
            verify=wanted.verify,
            unique=wanted.unique,
            rules=wanted.rules,
            degraded=wanted.degraded,
            boot=BootChoice.NO,
        )

    def _count(self) -> int:
        try:
            return len(list_points(str(self.repository)))
        except RefusedError:
            return 0
