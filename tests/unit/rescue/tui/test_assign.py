"""Several disks in the wizard: matched, shown with the reasons, changed by hand, restored."""

import asyncio
import subprocess
from pathlib import Path

import msgspec
import pytest

from core.events import ignore
from core.process import SystemRunner
from images.model.layout import DiskIdentity
from images.model.machine import MachineDisk
from rescue.jobs.capture import capture_disks
from tests.unit.rescue.tui.driving import Driver, wizard
from tests.unit.rescue.tui.fakes import FileJobs, disk
from tests.unit.rescue.tui.test_screens import check

MIB = 1 << 20
SECOND = 48 * MIB


def named(path: Path, size: int, serial: str) -> MachineDisk:
    with path.open("wb") as stream:
        stream.truncate(size)
    return msgspec.structs.replace(disk(str(path), size), identity=DiskIdentity(model="QEMU HARDDISK", serial=serial))


@pytest.fixture(scope="session")
def two_disks(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one recovery point of two disks, of 64 and 48 MiB."""
    folder = tmp_path_factory.mktemp("two")
    second = folder / "data.img"
    with second.open("wb") as stream:
        stream.truncate(SECOND)
    subprocess.run(["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-L", "data", str(second)], check=True)
    capture_disks([source, second], str(folder / "backups"), name="web01", runner=SystemRunner(), sink=ignore)
    return folder / "backups"


@pytest.fixture
def jobs(two_disks: Path, tmp_path: Path) -> FileJobs:
    """A machine with four disks: one of each size, one that is in use, and one that is too small for anything."""
    first = named(tmp_path / "vda.img", 64 * MIB, "A")
    jobs = FileJobs(two_disks, tmp_path / "vda.img", disk("/dev/sda", 1 << 40, "/dev/sda1 is mounted on /srv"))
    tiny = named(tmp_path / "vdc.img", 8 * MIB, "C")
    machine = (*jobs.machine.disks[:1], named(tmp_path / "vdb.img", SECOND, "B"), tiny, first)
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=machine)
    return jobs


async def to_the_targets(driver: Driver) -> None:
    await driver.see("Rescue system", "of RAM")
    await driver.press("enter")
    await driver.see("1 recovery point on")
    await driver.press("enter")
    await driver.see("Choose a recovery point", "> 2")
    await driver.press("enter")
    await driver.see("Choose the target disks", "Go on with these targets")


def test_disks_go_where_they_match_and_nowhere_before_they_are_named(jobs: FileJobs, two_disks: Path) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_targets(driver)
            check(driver)
            rows = [line for line in driver.lines if "->" in line]
            assert [("disk0" in row, "vda.img" in row) for row in rows] == [(True, True), (False, False)]
            assert "vdb.img" in rows[1]
            await driver.see("same size +25")
            await driver.press("home", "enter")
            await driver.see("Check the plan", "To go on, type: erase vda.img vdb.img")
            check(driver)
            await driver.type("erase vda.img")
            await driver.press("enter")
            await driver.see("Nothing was done.")
            await driver.type(" vdb.img")
            await driver.press("enter")
            await driver.see("Restore finished", "web01 is on vda.img, vdb.img")

    asyncio.run(road())
    shown = subprocess.run(
        ["/usr/sbin/e2label", str(Path(jobs.machine.disks[1].node))], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "data"


def test_a_target_is_changed_and_a_disk_is_left_out(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_targets(driver)
            # disk1 onto the target of disk0: that one is undecided then.
            await driver.press("home", "down", "down", "enter")
            await driver.see("Where disk1 goes:", "/dev/sda1 is mounted on /srv", "Leave this disk out")
            check(driver)
            await driver.press("end", "up", "enter")
            await driver.see("not chosen yet")
            await driver.press("home", "enter")
            await driver.see("Choose a target for each disk first")
            # The smallest is too small for disk0, whatever its content shrinks to.
            await driver.press("home", "down", "enter")
            await driver.see("Where disk0 goes:", "not possible: too small")
            await driver.press("escape")
            await driver.see("Go on with these targets")
            await driver.press("home", "down", "enter", "end", "enter")
            await driver.see("left out")
            await driver.press("home", "enter")
            await driver.see("Check the plan", "disk0 of the recovery point is not restored")

    asyncio.run(road())
    assert jobs.calls[-1] == "plan grow=False verify=True"


def test_what_goes_where_is_kept_and_not_given_to_another_disk_of_that_name(jobs: FileJobs, tmp_path: Path) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_targets(driver)
            await driver.press("home", "down", "down", "enter")
            await driver.see("Where disk1 goes:")
            await driver.press("end", "enter")
            await driver.see("left out")
            await driver.burst("escape", "escape")
            await driver.see("Choose a repository", "1 recovery point on")
            await driver.press("enter")
            await driver.see("Choose a recovery point", "> 2")
            await driver.press("enter")
            await driver.see("Choose the target disks", "left out", "vda.img")
            # Onto vda, as it was matched; then there is another disk in its place.
            await driver.press("home", "down", "enter")
            await driver.see("Where disk0 goes:")
            await driver.press("end", "up", "enter")
            await driver.see("Go on with these targets")
            await driver.press("escape")
            await driver.see("Choose a recovery point", "> 2")
            other = named(tmp_path / "vda.img", 8 * MIB, "Z")
            jobs.machine = msgspec.structs.replace(jobs.machine, disks=(*jobs.machine.disks[:-1], other))
            await driver.press("enter")
            await driver.see("Choose the target disks", "left out", "not chosen yet")

    asyncio.run(road())


def test_a_target_that_was_chosen_and_is_gone_is_not_replaced_by_another_disk(jobs: FileJobs, tmp_path: Path) -> None:
    """vda is the same disk as vde but for its serial number: disk0 would go there, and disk1 to vdb."""
    *others, first = jobs.machine.disks
    twin = named(tmp_path / "vde.img", 64 * MIB, "E")
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=(*others, first, twin))

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_targets(driver)
            await driver.see("several assignments are equally good")
            await driver.press("home", "down", "enter")
            await driver.see("Where disk0 goes:")
            await driver.press("end", "up", "enter")
            await driver.see("Go on with these targets", "vde.img")
            await driver.press("escape")
            await driver.see("Choose a recovery point", "> 2")
            await driver.press("enter")
            # It is still there, and so is the doubt about the others.
            await driver.see("Choose the target disks", "vde.img", "several assignments are equally good")
            await driver.press("escape")
            await driver.see("Choose a recovery point", "> 2")
            jobs.machine = msgspec.structs.replace(jobs.machine, disks=(*others, first))
            await driver.press("enter")
            await driver.see("The target of disk0 is gone", "choose again", "not chosen yet", "vdb.img")
            check(driver)
            assert not [line for line in driver.lines if "disk0" in line and "vda.img" in line]
            await driver.press("home", "enter")
            await driver.see("Choose a target for each disk first")
            # Deciding about the other disk is no decision about this one.
            await driver.press("home", "down", "down", "enter")
            await driver.see("Where disk1 goes:")
            await driver.press("end", "enter")
            await driver.see("left out", "not chosen yet")
            await driver.press("escape")
            await driver.see("Choose a recovery point", "> 2")
            await driver.press("enter")
            await driver.see("The target of disk0 is gone", "left out", "not chosen yet")

    asyncio.run(road())
    assert not [call for call in jobs.calls if call.startswith("plan")]


def test_disks_that_cannot_be_told_apart_are_asked_for(jobs: FileJobs, tmp_path: Path) -> None:
    twins = tuple(named(tmp_path / f"twin{number}.img", 64 * MIB, f"T{number}") for number in range(2))
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=twins)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_targets(driver)
            await driver.see("several assignments are equally good", "not chosen yet")
            check(driver)

    asyncio.run(road())


def test_a_second_enter_of_a_burst_is_no_target(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_targets(driver)
            await driver.press("home", "down")
            await driver.burst("enter", "enter")
            await driver.see("Where disk0 goes:")
            # Nor is one that was refused there one of the list of disks.
            await driver.press("end")
            await driver.burst("enter", "up", "up", "enter")
            await driver.see("left out")
            assert "cannot be the target" not in driver.text
            await driver.press("home", "enter")
            await driver.see("Check the plan", "disk0 of the recovery point is not restored")

    asyncio.run(road())


def test_what_is_not_shown_is_not_switched(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_targets(driver)
            await driver.press("home", "down", "enter")
            await driver.see("Where disk0 goes:")
            await driver.press("g", "v", "c", "p", "escape")
            await driver.see("[ ] Grow", "[x] Read", "[ ] Clone", "[ ] Decide")
            await driver.press("g")
            await driver.see("[x] Grow")

    asyncio.run(road())
