"""Jobs for the wizard's tests: a made-up machine whose only disk is an image file, real repositories and plans."""

from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import RefusedError
from core.events import Event, Sink
from core.process import SystemRunner
from images.model.layout import Disk, DiskIdentity
from images.model.machine import Firmware, Machine, MachineDisk, Nic, SecureBoot
from images.stack.keys import AskKey, Keys
from images.store.access import Access
from images.store.connect import open_repository
from images.store.passphrase import Passphrase
from images.store.repository import PointSummary
from rescue.jobs.access import access_from
from rescue.jobs.points import list_points
from rescue.jobs.repositories import Findings, FoundRepository
from rescue.jobs.restore import RestoreChoices, match_disks, plan_restore, run_plan
from rescue.jobs.support_places import SupportPlace
from rescue.tui.messages import Ending, Placed
from restore.matching import Matching
from restore.plan import Plan
from restore.report import Report
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


class FileJobs:
    """Restores to a plain file in earnest; everything else of the machine is made up."""

    def __init__(self, repository: Path, target: Path, *busy: MachineDisk) -> None:
        self.machine = machine(*busy, disk(str(target), target.stat().st_size))
        self.repository = repository
        self.notes: tuple[str, ...] = ()
        self.calls: list[str] = []
        self.endings: list[Ending] = []
        self.places: tuple[SupportPlace, ...] = ()
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

    def match(self, repository: str, point: str, machine: Machine) -> tuple[tuple[Disk, ...], Matching]:
        return match_disks(repository, point, machine, SystemRunner(), self.access)

    def plan(self, repository: str, point: str, placed: Sequence[Placed], *, grow: bool, verify: bool) -> Plan:
        self.calls.append(f"plan grow={grow} verify={verify}")
        opened = open_repository(repository, self.access)
        manifest = opened.manifest(opened.resolve(point))
        known = [disk.id for disk in manifest.layout.disks]
        skip = tuple(disk for disk in known if len(known) > 1 and disk not in {one.source for one in placed})
        choices = RestoreChoices(grow=grow, verify=verify, skip=skip)
        targets = [f"{one.source or known[0]}={one.target.node}" for one in placed]
        return plan_restore(repository, point, targets, choices, SystemRunner(), self.access)

    def run(self, plan: Plan, sink: Sink, ask: AskKey) -> Report:
        self.calls.append("run")

        def watched(event: Event) -> None:
            self.watch(event)
            sink(event)

        return run_plan(plan, plan.digest, SystemRunner(), watched, access=self.access, keys=Keys(ask=ask))

    def support_places(self) -> tuple[SupportPlace, ...]:
        return self.places

    def save_support(self, place: SupportPlace, sink: Sink) -> str:
        self.calls.append(f"save {place.device or place.folder}")
        return "liferaft-support-20261121T093000Z.zip"

    def end(self, ending: Ending) -> None:
        self.endings.append(ending)

    def close(self) -> None:
        self.calls.append("close")

    def _count(self) -> int:
        try:
            return len(list_points(str(self.repository)))
        except RefusedError:
            return 0
