"""The whole wizard, driven by keys, with a real repository and a real restore to an image file."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from core.errors import LiferaftError, RefusedError
from core.events import Event, Sink, Stage
from core.units import MIB
from images.model.machine import Machine
from images.stack.keys import AskKey
from images.store.catalogue import PointSummary
from images.store.passphrase import Passphrase, PassphraseNeededError
from rescue.jobs.scratch_places import ScratchPlace
from rescue.jobs.support_places import SupportPlace
from rescue.tui.messages import Ending
from restore.plan.plan import Plan
from restore.report import Report
from tests.unit.rescue.tui.driving import Driver, wizard
from tests.unit.rescue.tui.fakes import FileJobs, disk
from tests.unit.rescue.tui.test_screens import check

PARTITION = slice(MIB, 51 * MIB)


@pytest.fixture
def jobs(repository: Path, target: Path) -> FileJobs:
    busy = disk("/dev/sda", 14 << 30, "/dev/sda1 is mounted on /run/liferaft/7/sda1")
    return FileJobs(repository, target, busy)


async def to_the_plan(driver: Driver) -> None:
    """From the first screen: first repository, newest point, first free disk."""
    await driver.see("Rescue system", "of RAM")
    await driver.press("enter")
    await driver.see("Choose a repository", "2 recovery points on")
    await driver.press("enter")
    await driver.see("Choose a recovery point", "> 2")
    await driver.press("enter")
    await driver.see("Choose the target disk", "> target")
    await driver.press("enter")
    await driver.see("Check the plan", "To go on, type: erase target.img")


def test_one_restore_runs_however_often_enter_comes(jobs: FileJobs) -> None:
    go_on = threading.Event()

    def hold(event: Event) -> None:
        assert go_on.wait(30)

    jobs.watch = hold

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            await driver.type("erase target.img")
            await driver.burst("enter", "enter")
            await driver.see("liferaft - Restoring")
            try:
                assert jobs.calls.count("run") == 1
            finally:
                go_on.set()
            await driver.see("Restore finished")

    asyncio.run(road())
    assert jobs.calls.count("run") == 1


def test_a_person_restores_a_machine(jobs: FileJobs, source: Path, target: Path) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore finished", "read back and equal")
            assert jobs.endings == []
            await driver.press("enter")
            await driver.see("Reboot this machine now?")
            assert jobs.endings == []
            await driver.press("enter")
            await driver.see("going down")

    asyncio.run(road())
    assert jobs.endings == [Ending.REBOOT]
    assert "plan grow=False verify=True" in jobs.calls
    assert target.read_bytes()[PARTITION] == source.read_bytes()[PARTITION]


def test_nothing_is_written_until_the_exact_words_are_typed(jobs: FileJobs, target: Path) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            for words in ("", "erase", "erase sda", "erase target.im"):
                await driver.press("ctrl+u")
                await driver.type(words)
                await driver.press("enter")
                await driver.see("Nothing was done. Type exactly: erase target.img")
            await driver.press("escape")
            await driver.see("Choose the target disk")

    asyncio.run(road())
    assert "run" not in jobs.calls
    assert target.read_bytes() == bytes(target.stat().st_size)


def test_escape_walks_back_to_the_start(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            for title in ("Choose the target disk", "Choose a recovery point", "Choose a repository", "Rescue system"):
                await driver.press("escape")
                await driver.see(title)
            await driver.press("escape")
            await driver.see("Rescue system")

    asyncio.run(road())


def test_options_reach_the_plan(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            await driver.press("escape")
            await driver.see("Choose the target disk", "[ ] Grow", "[x] Read everything back")
            await driver.press("g", "v")
            await driver.see("[x] Grow", "[ ] Read everything back")
            await driver.press("enter")
            await driver.see("Check the plan", "will not be read back")

    asyncio.run(road())
    assert jobs.calls[-1] == "plan grow=True verify=False"


def test_a_clone_gets_identities_of_its_own(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            assert "machine-id" not in driver.text
            await driver.press("escape")
            await driver.see("Choose the target disk", "[ ] Clone")
            await driver.press("c")
            await driver.see("[x] Clone")
            await driver.press("enter")
            await driver.see("Check the plan", "machine-id, SSH host")

    asyncio.run(road())


def test_a_disk_with_an_obstacle_cannot_be_chosen(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            await driver.press("escape")
            await driver.see("> target", "not possible: /dev/sda1 is mounted on")
            await driver.press("up", "enter")
            await driver.see("/dev/sda cannot be the target: /dev/sda1 is mounted on /run/liferaft/7/sda1.")

    asyncio.run(road())
    assert sum("plan" in call for call in jobs.calls) == 1


def test_a_stopped_restore_goes_on_when_it_is_run_again(jobs: FileJobs, source: Path, target: Path) -> None:
    reached, asked = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        if event.stage is Stage.VERIFY:
            reached.set()
            assert asked.wait(30)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            await driver.type("erase target.img")
            jobs.watch = hold
            await driver.press("enter")
            await driver.see("Restoring", "[>] Write the data")
            assert await asyncio.to_thread(reached.wait, 30)
            await driver.press("escape")
            await driver.see("Stop the restore?", "Esc: go on restoring")
            await driver.press("escape")
            await driver.see("Esc: stop")
            await driver.press("escape", "enter")
            await driver.see("Stopping")
            asked.set()
            await driver.see("Restore stopped", "Running the same restore again goes on")
            jobs.watch = lambda event: None
            await driver.press("escape")
            await to_the_plan(driver)
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore finished", "matched already")

    asyncio.run(road())
    assert target.read_bytes()[PARTITION] == source.read_bytes()[PARTITION]


def test_an_address_that_is_no_repository_is_explained(jobs: FileJobs, tmp_path: Path) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("enter")
            await driver.see("Choose a repository")
            await driver.press("a")
            await driver.see("Type the address of a repository")
            await driver.press("enter")
            await driver.see("Type an address first.")
            await driver.type("/nowhere/at/all")
            await driver.press("enter")
            await driver.see("That did not work", "the folder does not exist", "What to do:")
            await driver.press("escape")
            await driver.see("Type the address of a repository", "/nowhere/at/all")
            # Nor does going back further lose it, unless a password may stand in it.
            await driver.press("escape")
            await driver.see("Choose a repository")
            await driver.press("a")
            await driver.see("Type the address of a repository", "/nowhere/at/all")
            await driver.press("ctrl+u")
            await driver.type("http://me:secret@server/r")
            await driver.press("escape")
            await driver.see("Choose a repository")
            await driver.press("a")
            await driver.see("Type the address of a repository")
            assert "secret" not in driver.text

    asyncio.run(road())


def test_a_password_in_an_address_is_not_shown_after_it_was_typed(
    jobs: FileJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a serial console shows may be recorded."""

    def points(repository: str, passphrase: Passphrase | None = None) -> tuple[PointSummary, ...]:
        assert repository == "http://me:secret@server/r"
        if passphrase is None:
            raise PassphraseNeededError("It is encrypted.")
        return ()

    monkeypatch.setattr(jobs, "points", points)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("enter")
            await driver.see("Choose a repository")
            await driver.press("a")
            await driver.see("Type the address of a repository")
            await driver.type("http://me:secret@server/r")
            await driver.press("enter")
            await driver.see("Type the passphrase", "Repository: http://server/r")
            assert "secret" not in driver.text
            await driver.type("words")
            await driver.press("enter")
            await driver.see("http://server/r holds no recovery points.")
            assert "secret" not in driver.text

    asyncio.run(road())


def test_every_reason_against_a_plan_is_shown(jobs: FileJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = tuple(f"reason number {number}" for number in range(3))

    def refuse(*words: object, **options: object) -> Plan:
        raise RefusedError("It cannot be restored there.", hint="Take another disk.", reasons=reasons)

    monkeypatch.setattr(jobs, "plan", refuse)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("enter")
            await driver.see("2 recovery points on")
            await driver.press("enter")
            await driver.see("> 2")
            await driver.press("enter")
            await driver.see("> target")
            await driver.press("enter")
            await driver.see("That did not work", "It cannot be restored there.", *reasons, "Take another disk.")
            await driver.press("down", "enter")
            await driver.see("Rescue system")

    asyncio.run(road())


@pytest.mark.parametrize("error", [LiferaftError("The disk broke.", hint="Take another."), ZeroDivisionError("oops")])
def test_a_restore_that_fails_says_what_state_the_disk_is_in(
    jobs: FileJobs, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(plan: Plan, sink: object, ask: object, scratch: object) -> None:
        assert callable(sink)
        sink(Event(stage=Stage.STREAM, message="Writing"))
        raise error

    monkeypatch.setattr(jobs, "run", fail)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore failed", str(error), "target.img is not complete")

    asyncio.run(road())


def test_a_probe_that_fails_leaves_a_usable_first_screen(jobs: FileJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Machine:
        raise LiferaftError("lsblk failed with exit code 1: no /sys")

    monkeypatch.setattr(jobs, "probe", fail)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("This machine could not be looked at", "no /sys", "> Restore a machine")

    asyncio.run(road())


def test_leaving_is_by_the_menu_only(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs, shell_behind=True) as driver:
            await driver.see("of RAM")
            await driver.press("ctrl+q", "ctrl+c")
            await driver.see("To leave, go back to the start screen")
            assert driver.app.is_running
            await driver.press("down", "down", "down", "down", "down", "enter")
            await driver.ended()

    asyncio.run(road())


def test_a_terminal_that_cannot_be_lent_says_so_and_the_wizard_stays(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            for keys in (("f2",), ("down", "down", "down", "down", "down", "enter")):
                await driver.press(*keys)
                await driver.see("There is no shell on this terminal", "Rescue system")

    asyncio.run(road())


def test_a_support_bundle_is_saved_on_the_chosen_stick(jobs: FileJobs) -> None:
    jobs.places = (
        SupportPlace(name="STICK 14.32 GiB on USB DISK", device="/dev/sdb1", kind="vfat"),
        SupportPlace(name="/mnt, ext4 on /dev/sdc1", folder="/mnt"),
        SupportPlace(name="LIFERAFT 13.90 GiB on Ultra", device="/dev/sdd3", kind="exfat", stays=True),
    )

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("down", "down", "enter")
            await driver.see("> STICK 14.32 GiB", "/mnt, ext4", "Passphrases")
            await driver.press("enter")
            await driver.see("Saved liferaft-support-20261121T093000Z.zip.", "can be taken out")
            await driver.press("down", "enter")
            await driver.see("It is in /mnt.")
            await driver.press("down", "enter")
            await driver.see("Leave the stick in: the rescue", "system runs from it.")
            await driver.press("escape")
            await driver.see("Rescue system")

    asyncio.run(road())
    assert [call for call in jobs.calls if call.startswith("save")] == [
        "save /dev/sdb1",
        "save /mnt",
        "save /dev/sdd3",
    ]


def test_powering_off_is_asked_first(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("end", "enter")
            await driver.see("Power this machine off now?", "nothing is lost", "> Yes, power off")
            await driver.press("up", "enter")
            await driver.see("Rescue system", "of RAM")
            assert jobs.endings == []
            await driver.press("enter")
            await driver.see("Power this machine off now?", "> Yes, power off")
            await driver.press("enter")
            await driver.see("going down")

    asyncio.run(road())
    assert jobs.endings == [Ending.POWEROFF]


def test_what_would_be_cut_off_is_named_and_the_cursor_is_on_no(jobs: FileJobs) -> None:
    jobs.others = ("restoring db01 to QEMU HARDDISK serial QM00002 (process 812)",)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("end", "up", "enter")
            await driver.see("Reboot this machine now?", "It would cut off: restoring db01 to QEMU HARDDISK", "> No")
            check(driver)
            await driver.press("enter")
            await driver.see("Rescue system", "of RAM")
            assert jobs.endings == []
            jobs.others = ()
            await driver.press("enter")
            await driver.see("Reboot this machine now?", "nothing is lost", "> Yes, reboot")
            await driver.press("enter")
            await driver.see("going down")

    asyncio.run(road())
    assert jobs.endings == [Ending.REBOOT]


def test_a_restore_that_is_unfinished_is_asked_about_until_it_is_done(
    jobs: FileJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = jobs.run

    def fail(plan: Plan, sink: Sink, ask: AskKey, scratch: ScratchPlace | None = None) -> Report:
        sink(Event(stage=Stage.STREAM, message="Writing"))
        raise LiferaftError("The disk broke.")

    monkeypatch.setattr(jobs, "run", fail)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore failed")
            await driver.press("down", "enter")
            await driver.see("The restore to target.img did not come to its end.", "support bundle", "> No")
            check(driver)
            await driver.press("enter")
            await driver.see("Restore failed")
            await driver.press("escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("end", "enter")
            await driver.see("did not come to its end", "> No")
            await driver.press("escape")
            await driver.see("Rescue system", "of RAM")
            monkeypatch.setattr(jobs, "run", real)
            await driver.press("home")
            await to_the_plan(driver)
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore finished")
            await driver.press("enter")
            await driver.see("nothing is lost", "> Yes, reboot")

    asyncio.run(road())


def test_a_restore_to_another_disk_does_not_finish_the_one_that_failed(
    jobs: FileJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = jobs.run
    other = tmp_path / "other.img"
    with other.open("wb") as stream:
        stream.truncate(96 * MIB)
    named = disk(str(other), 96 * MIB)
    named = msgspec.structs.replace(named, identity=msgspec.structs.replace(named.identity, serial="QM00002"))
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=(*jobs.machine.disks, named))

    def fail(plan: Plan, sink: Sink, ask: AskKey, scratch: ScratchPlace | None = None) -> Report:
        sink(Event(stage=Stage.STREAM, message="Writing"))
        raise LiferaftError("The disk broke.")

    monkeypatch.setattr(jobs, "run", fail)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_plan(driver)
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore failed")
            monkeypatch.setattr(jobs, "run", real)
            await driver.press("escape")
            await to_the_plan(driver)
            await driver.press("escape")
            await driver.see("Choose the target disk", "> target")
            await driver.press("down", "enter")
            await driver.see("Check the plan", "To go on, type: erase other.img")
            await driver.type("erase other.img")
            await driver.press("enter")
            await driver.see("Restore finished")
            await driver.press("enter")
            await driver.see("The restore to target.img did not come to its end.", "> No")
            check(driver)

    asyncio.run(road())


def test_a_machine_without_a_free_disk_says_so(repository: Path, target: Path) -> None:
    jobs = FileJobs(repository, target)
    busy = disk("/dev/sda", 1 << 30, "/dev/sda is read-only")
    jobs.machine = msgspec.structs.replace(jobs.machine, disks=(busy,))

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("enter")
            await driver.see("2 recovery points on")
            await driver.press("enter")
            await driver.see("> 2")
            await driver.press("enter")
            await driver.see("No disk of this machine can be the target.", "not possible: /dev/sda is read-only")

    asyncio.run(road())
