"""Every screen fits 80x24 and draws only what a bare console can show."""

import asyncio
import threading
from pathlib import Path

import pytest

from core.errors import LiferaftError, ProcessError, RefusedError
from core.events import Event, Sink, Stage
from images.model.layout import DiskIdentity
from images.stack.keys import AskKey
from rescue.jobs.repositories import Findings, FoundRepository
from rescue.jobs.scratch_places import ScratchPlace
from rescue.jobs.support_places import SupportPlace
from rescue.tui import messages
from rescue.tui.app import SCREENS
from restore.plan.plan import Plan
from restore.report import Report
from tests.unit.rescue.tui.driving import DRAWN, HEIGHT, WIDTH, Driver, wizard
from tests.unit.rescue.tui.fakes import FileJobs, disk

NASTY = "Büro \x1b[31m\u202e’s “disk” 漢字 ▌✓ " + "x" * 200


@pytest.fixture
def jobs(repository: Path, target: Path) -> FileJobs:
    busy = disk(
        "/dev/nvme0n1",
        2 << 40,
        "/dev/nvme0n1p3 is mounted on /run/liferaft/1234/nvme0n1p3",
        "/dev/nvme0n1 carries the repository /run/liferaft/1234/nvme0n1p3/backups of the whole company",
        contents=("nvme0n1p1 vfat 512.00 MiB", "nvme0n1p2 ext4 40.00 GiB", "nvme0n1p3 ext4 1.90 TiB"),
    )
    jobs = FileJobs(repository, target, busy)
    jobs.notes = tuple(f"/dev/sdz{number} (ntfs) could not be mounted: {'because ' * 12}" for number in range(4))
    return jobs


def check(driver: Driver) -> None:
    """No widget reaches outside the screen, nothing scrolls, and the characters are plain."""
    screen = driver.app.screen
    assert screen.size == (WIDTH, HEIGHT)
    for widget in screen.query("*"):
        if widget.display and widget.region.area:
            assert screen.region.contains_region(widget.region), f"{widget} {widget.region}\n{driver.text}"
    assert screen.max_scroll_y == 0, f"the screen is too low\n{driver.text}"
    assert len(driver.lines) == HEIGHT
    odd = {character for line in driver.lines for character in line} - DRAWN
    assert not odd, f"{odd}\n{driver.text}"
    assert driver.lines[0].startswith(" liferaft - ")
    assert ":" in driver.lines[-1], "the last line says what the keys do"


def test_all_screens_of_the_road(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            check(driver)
            await driver.press("down", "enter")
            await driver.see("This machine", "not a target")
            check(driver)
            await driver.press("pagedown", "down", "up", "escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("up", "enter")
            await driver.see("2 recovery points on", "more lines like these")
            check(driver)
            await driver.press("a")
            await driver.see("Type the address")
            check(driver)
            await driver.press("escape")
            await driver.see("2 recovery points on")
            await driver.press("home", "enter")
            await driver.see("> 2")
            check(driver)
            await driver.press("enter")
            await driver.see("> target")
            check(driver)
            await driver.press("up", "enter")
            await driver.see("cannot be the target")
            check(driver)
            await driver.press("down", "enter")
            await driver.see("To go on, type")
            check(driver)
            await driver.press("pagedown", "enter")
            await driver.see("Nothing was done.")
            check(driver)
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore finished")
            check(driver)
            await driver.press("enter")
            await driver.see("Are you sure?")
            check(driver)

    asyncio.run(road())


def test_answers_that_come_late_are_drawn(jobs: FileJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list whose height is that of its rows, and that was drawn before it had any."""

    seen = threading.Event()

    def slow() -> tuple[str, ...]:
        assert seen.wait(30)
        return ()

    monkeypatch.setattr(jobs, "running", slow)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("end", "enter")
            await driver.see("Looking what runs")
            seen.set()
            await driver.see("No, go back", "> Yes, power off")
            check(driver)

    asyncio.run(road())


@pytest.mark.parametrize(
    "error",
    [
        LiferaftError("It broke."),
        RefusedError("Refused.", hint="Do this.", reasons=tuple(f"reason {number} " * 9 for number in range(20))),
        ProcessError(("mount", "-o", "ro"), 32, "line\n" * 40, hint="Look."),
        LiferaftError("Odd characters: \x1b[31m\u202e ’ “q” 漢字 ▌ ✓ … " + "y" * 300),
    ],
    ids=["plain", "refused", "process", "nasty"],
)
def test_error_screens(jobs: FileJobs, error: LiferaftError) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            driver.app.screen.post_message(messages.Go(messages.ToProblem(error)))
            await driver.see("That did not work")
            check(driver)
            await driver.press("pagedown", "pagedown")
            check(driver)
            driver.app.screen.post_message(messages.Go(messages.ToResult(error, "sda", ()), replace=True))
            await driver.see("Restore failed")
            check(driver)

    asyncio.run(road())


def test_a_long_report_with_warnings(jobs: FileJobs) -> None:
    report = Report(
        recovery_point="0" * 64,
        name="web01",
        digest="0123456789abcdef",
        targets=("/dev/sda",),
        steps=(),
        seconds=3700.5,
        written=3 << 40,
        kept=5 << 30,
        zeroed=0,
        verified=False,
        boot=tuple(f"reinstalled the boot loader for system {number}" for number in range(9)),
        warnings=tuple(f"warning number {number}, {'long ' * 20}" for number in range(9)),
    )

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            driver.app.screen.post_message(messages.Go(messages.ToResult(report, "sda", ())))
            await driver.see("Restore finished with warnings", "lines 1 to")
            check(driver)
            await driver.press("pagedown", "pagedown", "pagedown", "pagedown")
            await driver.see("warning number 8", "Take the rescue medium out")
            check(driver)

    asyncio.run(road())


def test_labels_and_models_cannot_move_the_cursor(jobs: FileJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks are untrusted input; only letters of the console's font may come with them."""
    found = FoundRepository(path=f"/run/{NASTY}", device="/dev/sdb1", disk=NASTY, points=0, problem=NASTY)
    monkeypatch.setattr(jobs, "find_repositories", lambda: Findings(repositories=(found,), notes=(NASTY,)))
    odd = jobs.machine.disks[0].__class__(
        node="/dev/sda",
        identity=DiskIdentity(model=NASTY, serial=NASTY),
        size=1 << 30,
        sector_size=512,
        physical_sector_size=512,
        contents=(NASTY,),
        obstacles=(NASTY,),
    )
    jobs.machine = jobs.machine.__class__(
        **{name: getattr(jobs.machine, name) for name in ("firmware", "secure_boot", "architecture", "ram", "nics")},
        product=NASTY,
        disks=(odd,),
        modaliases=(),
    )

    def drawn(driver: Driver) -> None:
        characters = {character for line in driver.lines for character in line}
        assert characters - DRAWN <= {"ü"}, driver.text
        assert all(len(line) == WIDTH for line in driver.lines)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("Disks: sda")
            drawn(driver)
            await driver.press("down", "enter")
            await driver.see("This machine", "lines 1 to")
            drawn(driver)
            await driver.press("pagedown")
            await driver.see("not a target")
            drawn(driver)
            await driver.press("escape")
            await driver.see("Disks: sda")
            await driver.press("up", "enter")
            await driver.see("Choose a repository", "sdb1")
            drawn(driver)

    asyncio.run(road())


def test_a_stall_is_named(jobs: FileJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def run(plan: Plan, sink: Sink, ask: AskKey, scratch: ScratchPlace | None) -> Report:
        sink(Event(stage=Stage.STREAM, message="Writing", done=1 << 20, total=1 << 30, stalled=42.0))
        sink(Event(stage=Stage.STREAM, message="\x1b[2J cleared?", warning=True))
        assert released.wait(30)
        raise LiferaftError("The end.")

    monkeypatch.setattr(jobs, "run", run)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            placed = (messages.Placed("", jobs.machine.disks[1]),)
            plan = jobs.plan(str(jobs.repository), "latest", placed, messages.Wanted())
            driver.app.screen.post_message(messages.Go(messages.ToRestoring(plan, "sda", ())))
            await driver.see("NO PROGRESS for 42 s", "warning: ?[2J cleared?", "[>] Write the data")
            check(driver)
            released.set()
            await driver.see("Restore failed")

    asyncio.run(road())


def test_the_passphrase_of_an_encrypted_disk_is_asked_for_until_it_is_right(
    jobs: FileJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[str] = []

    def run(plan: Plan, sink: Sink, ask: AskKey, scratch: ScratchPlace | None) -> Report:
        sink(Event(stage=Stage.PREFLIGHT, message="Checking the recovery point and the targets"))
        while not typed or typed[-1] != "right":
            typed.append(ask("crypt (3b872b48)"))
        ask("another")
        raise AssertionError("a person who stops has no answer")

    monkeypatch.setattr(jobs, "run", run)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            placed = (messages.Placed("", jobs.machine.disks[1]),)
            plan = jobs.plan(str(jobs.repository), "latest", placed, messages.Wanted())
            driver.app.screen.post_message(messages.Go(messages.ToRestoring(plan, "sda", ())))
            for words in ("wrong", "right"):
                await driver.see("Type the passphrase of the encrypted disk crypt (3b872b48)")
                check(driver)
                await driver.type(words)
                assert words not in await driver.see("*****")
                await driver.press("enter")
            await driver.see("encrypted disk another")
            await driver.press("escape")
            await driver.see("Stop the restore?")
            await driver.press("enter")
            await driver.see("The restore was stopped as you asked")

    asyncio.run(road())
    assert typed == ["wrong", "right"]


def test_the_support_screen_with_many_sticks_of_odd_names(jobs: FileJobs) -> None:
    jobs.places = tuple(
        SupportPlace(name=NASTY.replace("ü", "u"), device=f"/dev/sd{letter}1", kind="vfat")
        for letter in "bcdefghijklmnop"
    )

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("down", "down", "enter")
            await driver.see("> B", "Passphrases")
            check(driver)
            await driver.press("enter")
            await driver.see("Saved")
            check(driver)

    asyncio.run(road())


def test_every_destination_has_its_screen() -> None:
    assert set(SCREENS) == set(messages.Destination.__subclasses__())
