"""A mirror that comes back on one disk: the plan is made, and its estimate measures what the plan reads.

The recovery point of two plain disks is told to be that of a mirror: to make one takes a kernel with md and root.
"""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.model.filesystem import Filesystem, FilesystemKind
from images.model.layout import DiskIdentity
from images.model.manifest import Manifest, VolumeRole
from images.model.stack import Array, ArrayMember
from images.store.repository import Repository
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore
from restore.plan import forecast
from restore.plan.estimate import Rate
from restore.plan.rates import fetch_rate
from restore.plan.steps import CreateArray, RestoreVolume, WriteHead
from tests.flow.disks import MIB, need, put_ext, run
from tests.unit.rescue.tui.driving import Driver, wizard
from tests.unit.rescue.tui.fakes import FileJobs
from tests.unit.rescue.tui.fakes import disk as made_up_disk
from tests.unit.rescue.tui.test_screens import check

SIZE = 24 * MIB


def _empty(path: Path) -> Path:
    with path.open("wb") as stream:
        stream.truncate(SIZE + 2 * MIB)
    return path


def _disk(path: Path, tree: Path) -> Path:
    disk = _empty(path)
    run("sfdisk", "-q", disk, stdin=f"label: gpt\nstart=1MiB,size={SIZE // MIB}MiB\n")
    put_ext(disk, MIB, SIZE, tree)
    return disk


def _mirrored(manifest: Manifest) -> Manifest:
    """With an array on the partition of both disks, and what lay on that of the first one on it."""
    member = Filesystem(kind=FilesystemKind.UNKNOWN, detail="linux_raid_member")
    disks, parts = [], []
    for disk in manifest.layout.disks:
        assert disk.table is not None
        (part,) = disk.table.partitions
        parts.append(part)
        table = msgspec.structs.replace(disk.table, partitions=(msgspec.structs.replace(part, filesystem=member),))
        disks.append(msgspec.structs.replace(disk, table=table))
    array = Array(
        id="md0",
        uuid="3aaa0122:29827cfa:5331ad66:ca767371",
        name="host:0",
        level=1,
        metadata="1.0",
        slots=2,
        members=tuple(ArrayMember(device=part.id, slot=slot) for slot, part in enumerate(parts)),
        size=SIZE,
        component_size=SIZE,
        filesystem=parts[0].filesystem,
    )
    return msgspec.structs.replace(
        manifest,
        layout=msgspec.structs.replace(manifest.layout, disks=tuple(disks), containers=(array,)),
        volumes=tuple(
            msgspec.structs.replace(volume, disk="md0", role=VolumeRole.DISK, partition="", offset=0)
            if volume.partition == parts[0].id
            else volume
            for volume in manifest.volumes
            if volume.partition != parts[1].id
        ),
    )


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository with the recovery point of a mirror."""
    need("mke2fs", "sfdisk")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(8 * MIB))
    disks = [_disk(tmp_path / f"disk{number}", tree) for number in range(2)]
    capture_disks(disks, str(tmp_path / "repo"), name="n", runner=SystemRunner(), sink=ignore)
    plain = Repository.manifest
    monkeypatch.setattr(Repository, "manifest", lambda self, point: _mirrored(plain(self, point)))
    return str(tmp_path / "repo")


def test_the_plan_of_a_degraded_mirror_is_made_and_estimated(
    repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _empty(tmp_path / "target")
    choices = RestoreChoices(boot=BootChoice.NO, skip=("disk1",))
    with pytest.raises(RefusedError, match="--degraded makes it without"):
        plan_restore(repo, "latest", [target], choices, SystemRunner())
    choices = msgspec.structs.replace(choices, degraded=True)
    measured: list[set[str]] = []

    def measure(repository: Repository, manifest: Manifest) -> Rate:
        measured.append({volume.id for volume in manifest.volumes})
        return fetch_rate(repository, manifest)

    monkeypatch.setattr(forecast, "fetch_rate", measure)
    plan = plan_restore(repo, "latest", [target], choices, SystemRunner())
    (made,) = (step.array for step in plan.steps if isinstance(step, CreateArray))
    assert (made.slots, made.lacking) == (2, 1)
    assert [step.disk for step in plan.steps if isinstance(step, RestoreVolume)] == ["md0"]
    assert any("has NO redundancy" in note for note in plan.notes)
    assert plan.estimate is not None
    assert measured == [{step.volume for step in plan.steps if isinstance(step, RestoreVolume | WriteHead)}]


_SWITCH = "D: let arrays do without what is left out"
_EFFECT = "host:0 comes back with NO redundancy"


@pytest.fixture
def jobs(repo: str, tmp_path: Path) -> FileJobs:
    """A machine with two disks for the mirror."""
    made = FileJobs(Path(repo), _empty(tmp_path / "vda"))
    second = made_up_disk(str(_empty(tmp_path / "vdb")), SIZE + 2 * MIB)
    second = msgspec.structs.replace(second, identity=DiskIdentity(model="QEMU HARDDISK", serial="QM00002"))
    made.machine = msgspec.structs.replace(made.machine, disks=(*made.machine.disks, second))
    return made


async def _to_the_targets(driver: Driver) -> None:
    """Each disk has a target that the person chose."""
    await driver.see("Rescue system", "of RAM")
    await driver.press("enter")
    await driver.see("1 recovery point on")
    await driver.press("home", "enter")
    await driver.see("Choose a recovery point", "> 2")
    await driver.press("enter")
    await driver.see("Choose the target disks", "Go on with these targets")
    for number, key in ((1, "home"), (2, "down")):
        await driver.press("home", *["down"] * number, "enter")
        await driver.see(f"Where disk{number - 1} goes:")
        await driver.press("home", *([key] if key == "down" else []), "enter")
        await driver.see("Go on with these targets")
    assert "not chosen yet" not in driver.text


def test_the_wizard_offers_it_where_a_member_is_left_out_with_its_disk(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await _to_the_targets(driver)
            # All members are there: nothing to be decided, and no key for it.
            assert _SWITCH not in driver.text
            await driver.press("d", "home", "down", "down", "enter")
            await driver.see("Where disk1 goes:")
            await driver.press("end", "enter")
            await driver.see("left out", f"[ ] {_SWITCH}", _EFFECT)
            check(driver)
            await driver.press("home", "enter")
            await driver.see("That did not work", "--degraded makes it without")
            await driver.press("escape")
            await driver.see("Choose the target disks", f"[ ] {_SWITCH}")
            await driver.press("d")
            await driver.see(f"[x] {_SWITCH}")
            await driver.press("home", "enter")
            await driver.see("Check the plan")
            text = driver.text
            while "NO redundancy" not in text:
                before = driver.text
                await driver.press("pagedown")
                assert driver.text != before, text
                text += driver.text
            # The decision is kept, and gone where it would change nothing.
            await driver.press("escape")
            await driver.see("Choose the target disks", f"[x] {_SWITCH}")
            await driver.press("home", "down", "down", "enter")
            await driver.see("Where disk1 goes:")
            await driver.press("home", "down", "enter")
            await driver.see("Go on with these targets")
            assert _SWITCH not in driver.text

    asyncio.run(road())


def test_the_wizard_offers_it_where_a_member_is_left_out_as_a_partition(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await _to_the_targets(driver)
            await driver.press("p", "home", "enter")
            await driver.see("Decide about each partition", "Go on with these partitions")
            assert _SWITCH not in driver.text
            await driver.press("end")
            await driver.see("> 1 ")
            await driver.press("enter")
            await driver.see("Partition 1 of disk1")
            await driver.press("end", "enter")
            await driver.see("leave out", f"[ ] {_SWITCH}", _EFFECT, "It cannot be so:")
            check(driver)
            await driver.press("d")
            await driver.see(f"[x] {_SWITCH}")
            await driver.see(f"[x] {_SWITCH}")
            for _ in range(600):
                if "(does not fit)" not in driver.text:
                    break
                await asyncio.sleep(0.05)
            await driver.press("home", "enter")
            await driver.see("Check the plan")

    asyncio.run(road())
