"""A rescue stick made in the wizard, from the first screen to a stick that sfdisk and sgdisk find sound."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from core.errors import DeviceError
from core.events import Event, Sink, Stage
from core.units import GIB, MIB
from images.model.machine import MachineDisk
from images.store.passphrase import Passphrase
from rescue.jobs.attached_media import AttachedMedium
from rescue.jobs.repositories import Findings, FoundRepository
from rescue.jobs.stick_repository import StickRepository
from rescue.jobs.write_usb import StickPlan
from rescue.tui.messages import StickWish
from tests.flow.disks import need, run
from tests.flow.servers import serving
from tests.flow.small import make
from tests.flow.sticks import small_iso
from tests.unit.rescue.tui.driving import Driver, wizard
from tests.unit.rescue.tui.fakes import FileJobs, disk
from tests.unit.rescue.tui.test_screens import check


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("xorriso", "mkfs.fat", "mkfs.exfat", "sfdisk", "sgdisk")
    return small_iso(tmp_path_factory.mktemp("small") / "iso")


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    return empty(tmp_path / "stick.img", 32 * MIB)


@pytest.fixture
def jobs(iso: Path, stick: Path, tmp_path: Path) -> FileJobs:
    """A machine with a disk of its own, one stick, and the medium in a drive."""
    made = FileJobs(tmp_path / "none", stick, disk("/dev/sda", 1 << 40, contents=("partition 1 ext4 1.00 TiB",)))
    made.machine = msgspec.structs.replace(made.machine, disks=(made.machine.disks[0], usb(stick)))
    made.attached = (AttachedMedium(node=str(iso), name="This rescue medium, sr0"),)
    return made


def empty(path: Path, size: int) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def usb(path: Path) -> MachineDisk:
    return msgspec.structs.replace(disk(str(path), path.stat().st_size), removable=True)


async def to_the_sticks(driver: Driver) -> None:
    await driver.see("Rescue system", "of RAM")
    await driver.press("home", "down", "down", "down", "enter")
    await driver.see("Make another rescue stick", "> stick.img")


def test_a_stick_is_made_from_the_medium_that_runs(jobs: FileJobs, iso: Path, stick: Path) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_sticks(driver)
            await driver.see(
                "not possible: it does not say that it is removable", "W: written from: This rescue medium"
            )
            check(driver)
            await driver.press("up", "enter")
            await driver.see("It cannot be the stick")
            await driver.press("down", "enter")
            await driver.see("Check what is written", "sound", "To go on, type: erase stick.img")
            check(driver)
            for words in ("", "erase", "erase sda"):
                await driver.press("ctrl+u")
                await driver.type(words)
                await driver.press("enter")
                await driver.see("Nothing was done. Type exactly: erase stick.img")
            assert not any(stick.read_bytes())
            await driver.press("ctrl+u")
            await driver.type("erase stick.img")
            await driver.burst("enter", "enter")
            await driver.see("The stick is ready", "read back and compared", "can be taken out")
            check(driver)
            await driver.press("enter")
            await driver.see("Rescue system")

    asyncio.run(road())
    assert jobs.calls.count("write stick") == 1
    assert "No errors detected" in run("sfdisk", "--verify", stick)
    assert "No problems found" in run("sgdisk", "--verify", stick)
    assert stick.read_bytes()[32768 : iso.stat().st_size] == iso.read_bytes()[32768:]


def test_an_iso_file_is_typed_and_switches_reach_the_plan(
    jobs: FileJobs, iso: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(iso.parent)
    large = empty(tmp_path / "large.img", GIB + 96 * MIB)
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=(jobs.machine.disks[0], usb(large)))
    jobs.attached = ()

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("home", "down", "down", "down", "enter")
            await driver.see("> large.img", "W: written from: nothing yet")
            await driver.press("enter")
            await driver.see("No rescue medium is attached. W: type the path")
            await driver.press("w")
            await driver.see("What is written onto the stick", "> An ISO file")
            check(driver)
            await driver.press("enter")
            await driver.see("Type the path of the ISO file")
            check(driver)
            await driver.type("./none.iso")
            await driver.press("enter")
            await driver.see("W: written from: ./none.iso", "Enter: go on")
            await driver.press("d", "home", "down", "enter")
            await driver.see("That did not work", "does not exist")
            await driver.press("escape")
            await driver.see("Make another rescue stick", "[x] D: a new partition", "> large.img")
            await driver.press("w", "end", "enter")
            await driver.see("Type the path of the ISO file")
            await driver.type("rescue.iso")
            await driver.press("enter")
            await driver.see("W: written from: rescue.iso")
            # Of the two partitions for data one at most.
            await driver.press("k")
            await driver.see("[ ] D: a new partition", "[x] K: keep")
            await driver.press("d")
            await driver.see("[x] D: a new partition", "[ ] K: keep")
            # Going back and coming forward again loses nothing.
            await driver.burst("escape", "escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("enter")
            await driver.see("> large.img", "[x] D: a new partition")
            await driver.press("enter")
            await driver.see("A partition for data (exfat, 95.00 MiB) is made behind it.", "type: erase large.img")
            check(driver)
            await driver.type("erase large.img")
            await driver.press("enter")
            await driver.see("The stick is ready", "Its partition for data has 95.00 MiB")

    asyncio.run(road())
    assert "LIFERAFT-DATA" in run("sfdisk", "--dump", large)


def test_a_disk_with_a_repository_is_no_stick(
    jobs: FileJobs, stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes before the stick that is free, and nothing of it is mounted when it is looked at."""
    backups, old = (usb(empty(tmp_path / f"{name}.img", GIB)) for name in ("backups", "old"))
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=(backups, old, usb(stick)))

    def on(node: str, points: int, partition: str = "") -> FoundRepository:
        return FoundRepository(
            path=f"{node}/backups", device="/dev/sdx1", node=node, disk="x", points=points, partition=partition
        )

    jobs.held = (on(backups.node, 3), on(old.node, 1, "LIFERAFT-DATA"))

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_sticks(driver)
            await driver.see("holds a repository with 3 recovery points", "holds a repository with 1 recovery point")
            await driver.press("home", "enter")
            await driver.see(
                "It cannot be the stick: ", "holds a repository with 3 recovery points", "liferaft write-usb"
            )
            check(driver)
            # Where the partition with the repository stays, nothing of it is lost.
            await driver.press("k", "home", "down")
            await driver.see("> old.img", "[x] K: keep")
            assert "1 recovery point." not in driver.text and "with 1 recovery point" not in driver.text
            assert "with 3 recovery points" in driver.text
            await driver.press("k")
            await driver.see("[ ] K: keep", "with 1 recovery point")
            # A search that runs for the copy may know of one more.
            more = on(str(stick), 7)
            found = Findings(repositories=(*jobs.held, more), notes=())
            monkeypatch.setattr(jobs, "find_repositories", lambda: found)
            await driver.press("r")
            await driver.see("Recovery points on the stick", "All of: 7 recovery points on x")
            await driver.press("escape")
            await driver.see("holds a repository with 7 recovery points", "No stick is attached that may be written")

    asyncio.run(road())
    assert not [call for call in jobs.calls if call.startswith("plan stick")]


def test_what_is_stopped_starts_nothing_and_can_be_written_again(jobs: FileJobs, stick: Path) -> None:
    reached, asked = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        if event.stage is Stage.VERIFY:
            reached.set()
            assert asked.wait(30)

    jobs.watch = hold

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_sticks(driver)
            await driver.press("enter")
            await driver.see("type: erase stick.img")
            await driver.type("erase stick.img")
            await driver.press("enter")
            await driver.see("Writing the stick", "[>] Write the medium", "Do not pull out stick.img.")
            check(driver)
            assert await asyncio.to_thread(reached.wait, 30)
            await driver.press("escape")
            await driver.see("Stop? The stick starts nothing then")
            await driver.press("enter")
            await driver.see("Stopping")
            asked.set()
            await driver.see("Writing the stick was stopped", "is no rescue stick.")
            check(driver)
            assert not any(stick.read_bytes()[:512])
            jobs.watch = lambda event: None
            await driver.press("escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("end", "enter")
            await driver.see("The stick stick.img is unfinished: it starts nothing.", "> No")
            await driver.press("escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("home", "down", "down", "down", "enter")
            await driver.see("Make another rescue stick", "> stick.img")
            await driver.press("enter")
            await driver.see("type: erase stick.img")
            await driver.type("erase stick.img")
            await driver.press("enter")
            await driver.see("The stick is ready")
            await driver.press("escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("end", "enter")
            await driver.see("nothing is lost")

    asyncio.run(road())
    assert "No errors detected" in run("sfdisk", "--verify", stick)


def test_stopping_before_anything_is_written_says_so(jobs: FileJobs, stick: Path) -> None:
    reached, asked = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        if event.stage is Stage.CHECK:
            reached.set()
            assert asked.wait(30)

    jobs.watch = hold

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_sticks(driver)
            await driver.press("enter")
            await driver.see("type: erase stick.img")
            await driver.type("erase stick.img")
            await driver.press("enter")
            assert await asyncio.to_thread(reached.wait, 30)
            await driver.press("escape")
            await driver.see("Stop? Nothing is written yet: the stick stays as it is.")
            await driver.press("enter")
            await driver.see("Stopping")
            asked.set()
            await driver.see("Writing the stick was stopped", "Nothing was written to stick.img.")
            check(driver)
            await driver.press("escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("end", "enter")
            await driver.see("nothing is lost")

    asyncio.run(road())
    assert not any(stick.read_bytes())


@pytest.mark.parametrize("when", ["before the copy", "in the copy"])
def test_a_stick_that_starts_is_said_to_start(
    when: str, jobs: FileJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while its first MiB is written, or when its recovery points are copied."""
    jobs.repository = make(tmp_path / "open")
    large = empty(tmp_path / "large.img", GIB + 96 * MIB)
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=(usb(large),))
    monkeypatch.setattr("rescue.jobs.stick_repository.os.geteuid", lambda: 0)
    reached, asked = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert asked.wait(30)

    def hold(event: Event) -> None:
        # It is not told before this returns.
        if event.stage is Stage.COPY and when == "before the copy":
            wait()

    def fill(planned: object, node: str, part: object, runner: object, sink: Sink) -> StickRepository:
        assert when == "in the copy"
        wait()
        sink(Event(stage=Stage.COPY, message="Copying"))
        raise AssertionError("it was stopped")

    jobs.watch = hold
    monkeypatch.setattr("rescue.jobs.write_usb.fill_repository", fill)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("home", "down", "down", "down", "enter")
            await driver.see("> large.img", "R: recovery points on it: none")
            await driver.press("r")
            await driver.see("Recovery points on the stick", "An empty repository")
            await driver.press("home", "down", "enter")
            await driver.see("R: recovery points on it: an empty repository")
            await driver.press("home", "enter")
            await driver.see("Check what is written", "An empty repository is made on it.")
            await driver.type("erase large.img")
            await driver.press("enter")
            assert await asyncio.to_thread(reached.wait, 60)
            await driver.press("escape")
            starts = "The stick starts already" if when == "in the copy" else "The stick starts nothing then"
            await driver.see(f"Stop? {starts}")
            check(driver)
            await driver.press("enter")
            await driver.see("Stopping")
            asked.set()
            await driver.see("Writing the stick was stopped", "starts the rescue system, but its repository is not")
            check(driver)
            await driver.press("escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("end", "enter")
            await driver.see("The stick large.img is unfinished: its repository is not complete.", "> No")

    asyncio.run(road())
    assert "No errors detected" in run("sfdisk", "--verify", large)


def test_the_passphrase_of_a_repository_that_is_to_be_copied_is_asked_for(
    jobs: FileJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is copied here: a partition of an image file is mounted by root alone (tests/disk)."""
    jobs.repository = make(tmp_path / "sealed", encrypted=True)
    large = empty(tmp_path / "large.img", GIB + 96 * MIB)
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=(usb(large),))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rescue.jobs.stick_repository.os.geteuid", lambda: 0)

    def refuse(*words: object) -> None:
        raise DeviceError("The data partition cannot be mounted.")

    monkeypatch.setattr("rescue.jobs.write_usb.fill_repository", refuse)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("home", "down", "down", "down", "enter")
            await driver.see("> large.img", "R: recovery points on it: none")
            await driver.press("r")
            await driver.see(
                "Recovery points on the stick", "> None", "An empty repository", "All of a repository elsewhere"
            )
            check(driver)
            await driver.press("end", "enter")
            await driver.see("Type where the repository is")
            await driver.type("./sealed")
            await driver.press("enter")
            # It needs a partition for data, and has one now.
            await driver.see("R: recovery points on it: all of ./sealed", "[x] D: a new partition")
            await driver.press("home", "enter")
            await driver.see("The repository is encrypted. Type its passphrase")
            check(driver)
            await driver.type("wrong")
            await driver.see("*****")
            await driver.press("enter")
            await driver.see("That passphrase does not open it.")
            await driver.type("correct horse battery staple")
            await driver.press("enter")
            await driver.see("Check what is written", "are copied to it, encrypted.")
            assert "horse" not in driver.text
            await driver.type("erase large.img")
            await driver.press("enter")
            # The stick is made, and says so, whatever becomes of its repository.
            await driver.see(
                "Writing the stick failed", "starts the rescue system, but its repository is not complete."
            )
            check(driver)

    asyncio.run(road())


def test_a_password_in_the_address_of_a_repository_is_not_shown_nor_kept(
    jobs: FileJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = empty(tmp_path / "large.img", GIB + 96 * MIB)
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=(usb(large),))
    monkeypatch.setattr("rescue.jobs.stick_repository.os.geteuid", lambda: 0)

    async def road(address: str) -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("home", "down", "down", "down", "enter")
            await driver.see("> large.img")
            await driver.press("r")
            await driver.see("Recovery points on the stick", "All of a repository elsewhere")
            await driver.press("end", "enter")
            await driver.see("Type where the repository is")
            await driver.type(address.replace("://", "://me:horse@"))
            await driver.press("enter")
            await driver.see(f"R: recovery points on it: all of {address}")
            await driver.press("home", "enter")
            await driver.see("Check what is written", f"0 recovery points of {address}")
            assert "horse" not in driver.text
            # It is there for as long as it is to be seen.
            await driver.press("escape")
            await driver.see(f"R: recovery points on it: all of {address}")
            await driver.press("escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("enter")
            await driver.see("> large.img", "[x] D: a new partition", "R: recovery points on it: none")

    jobs.repository = make(tmp_path / "open")
    with serving(jobs.repository) as server:
        asyncio.run(road(server.url))


def test_another_disk_with_the_name_of_the_stick_is_not_taken_for_it(
    jobs: FileJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pulled out and replaced between the list and Enter."""
    real, serial = jobs.plan_stick, ["other"]

    def plan(wish: StickWish, node: str, passphrase: Passphrase | None, sink: Sink) -> StickPlan:
        made = real(wish, node, passphrase, sink)
        known = next(disk for disk in jobs.machine.disks if disk.node == node).identity
        identity = msgspec.structs.replace(known, serial=serial[0] or known.serial)
        return msgspec.structs.replace(made, stick=msgspec.structs.replace(made.stick, file="", identity=identity))

    monkeypatch.setattr(jobs, "plan_stick", plan)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_sticks(driver)
            await driver.press("enter")
            await driver.see("Make another rescue stick", "stick.img is another disk now")
            check(driver)
            serial[0] = ""
            await driver.press("enter")
            await driver.see("Check what is written", "type: erase stick.img")

    asyncio.run(road())
