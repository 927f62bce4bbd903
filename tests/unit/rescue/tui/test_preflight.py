"""Checking a rescue medium in the wizard: which one, what is said of it, and every way out."""

import asyncio
import datetime
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from builder.preflight.findings import Finding, FindingKind, MachinePreflight, PreflightReport, Severity
from core.errors import RefusedError, StoppedError
from core.events import Event, Sink, Stage
from rescue.jobs.attached_media import AttachedMedium
from rescue.jobs.preflight import JudgedHere
from rescue.jobs.support_places import SupportPlace
from rescue.tui.messages import StickWish
from tests.unit.rescue.tui.driving import DRAWN, Driver, wizard
from tests.unit.rescue.tui.fakes import FileJobs
from tests.unit.rescue.tui.test_screens import NASTY, check

RUNNING = AttachedMedium(node="/dev/sr0", name="This rescue medium, sr0 (QEMU DVD-ROM, 700.00 MiB)")
STICK = AttachedMedium(node="/dev/sdb", name="The rescue medium in sdb (Ultra, 14.32 GiB)")


class JudgingJobs(FileJobs):
    """Says of every medium what the test wants."""

    findings: tuple[Finding, ...] = ()
    judge: Callable[[Sink], None] = staticmethod(lambda sink: None)

    def preflight(self, medium: Path, sink: Sink) -> JudgedHere:
        self.calls.append(f"preflight {medium}")
        self.judge(sink)
        product = self.machine.product
        one = MachinePreflight(name="this machine", product=product, devices=4, driven=3, findings=self.findings)
        built = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
        report = PreflightReport(medium=str(medium), kernel="6.12.99", built=built, machines=(one,))
        return JudgedHere(machine=self.machine, report=report)


@pytest.fixture
def jobs(target: Path, tmp_path: Path) -> JudgingJobs:
    made = JudgingJobs(tmp_path / "none", target)
    made.attached = (RUNNING,)
    return made


def finding(severity: Severity, number: int = 0, text: str = "") -> Finding:
    message = text or f"Device number {number} has no driver on the medium."
    return Finding(kind=FindingKind.DRIVER, severity=severity, message=message, remedy=f"Bring driver {number}.")


async def to_the_media(driver: Driver) -> None:
    await driver.see("Rescue system", "Started by")
    await driver.press("home", "down", "down", "down", "down", "enter")
    await driver.see("Check a rescue medium", "Look again")


def checked(jobs: JudgingJobs) -> list[str]:
    return [call.removeprefix("preflight ") for call in jobs.calls if call.startswith("preflight ")]


def test_the_medium_that_runs_is_first_and_enter_checks_it(jobs: JudgingJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_media(driver)
            await driver.see("> This rescue medium, sr0")
            check(driver)
            await driver.press("enter")
            await driver.see("The medium will do here", "drives everything here that a restore needs.")
            await driver.see("This rescue medium, sr0", "3 of 4 devices", "kernel 6.12.99", "> Back to the start")
            check(driver)
            await driver.press("escape")
            await driver.see("Check a rescue medium", "> This rescue medium, sr0")
            await driver.press("escape")
            await driver.see("Rescue system", "> Check a rescue medium")

    asyncio.run(road())
    assert checked(jobs) == ["/dev/sr0"]


def test_another_one_is_chosen_and_keeps_the_cursor(jobs: JudgingJobs) -> None:
    jobs.attached = (RUNNING, STICK)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_media(driver)
            await driver.see("The rescue medium in sdb")
            await driver.press("down", "enter")
            await driver.see("The medium will do here", "The rescue medium in sdb")
            await driver.press("down", "enter")
            await driver.see("Check a rescue medium", "> The rescue medium in sdb")
            await driver.press("enter")
            await driver.see("The medium will do here")
            await driver.press("enter")
            await driver.see("Rescue system", "of RAM")

    asyncio.run(road())
    assert checked(jobs) == ["/dev/sdb", "/dev/sdb"]


@pytest.mark.parametrize(
    ("severity", "title", "sentence"),
    [
        (Severity.BLOCKS, "The medium will not do here", "2 things stop a restore."),
        (Severity.WARNING, "The medium should do here, with warnings", "2 things may not work."),
        (Severity.NOTE, "The medium will do here", "drives everything here"),
    ],
)
def test_verdicts(jobs: JudgingJobs, severity: Severity, title: str, sentence: str) -> None:
    jobs.findings = (finding(severity, 1), finding(severity, 2))

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_media(driver)
            await driver.press("home", "enter")
            await driver.see(title, sentence, "- Device number 1 has", "-> Bring driver 1.", "-> Bring driver 2.")
            check(driver)

    asyncio.run(road())


def test_many_findings_of_odd_words_are_read_to_the_end(jobs: JudgingJobs) -> None:
    texts = (NASTY, *(f"Device {number} {'has no driver ' * 9}" for number in range(12)))
    jobs.findings = tuple(finding(Severity.BLOCKS, number, text) for number, text in enumerate(texts))
    jobs.machine = msgspec.structs.replace(jobs.machine, product=NASTY)
    jobs.attached = (AttachedMedium(node="/dev/sr0", name=NASTY.replace("ü", "u")),)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_media(driver)
            await driver.press("home", "enter")
            await driver.see("The medium will not do here", "13 things stop a restore", "lines 1 to")
            assert {character for line in driver.lines for character in line} - DRAWN <= {"ü"}, driver.text
            while "Bring driver 12." not in driver.text:
                before = driver.text
                await driver.press("pagedown")
                assert driver.text != before, f"no further\n{driver.text}"
            await driver.press("pagedown")
            await driver.see("Not looked at:", "unplugged.")
            check(driver)

    asyncio.run(road())


def test_a_path_is_typed_and_an_error_leads_back_to_the_list(jobs: JudgingJobs) -> None:
    jobs.attached = ()

    def refuse(sink: Sink) -> None:
        raise RefusedError("old.iso was made by a liferaft that did not yet describe its media.", hint="Build it anew.")

    jobs.judge = refuse

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_media(driver)
            await driver.see("No rescue medium is attached", "> An ISO file, or the folder of a netboot set")
            check(driver)
            await driver.press("enter")
            await driver.see("Type the path of the ISO file or netboot folder")
            check(driver)
            await driver.press("enter")
            await driver.type("/mnt/old.iso")
            await driver.press("escape")
            await driver.see("Enter: check it   Esc: back", "> An ISO file")
            await driver.press("enter")
            await driver.see("Type the path")
            await driver.type("/mnt/old.iso")
            await driver.press("enter")
            await driver.see("That did not work", "did not yet describe its media", "What to do: Build it anew.")
            await driver.press("escape")
            await driver.see("Check a rescue medium", "No rescue medium is attached")
            # What was typed need not be typed again.
            await driver.press("enter")
            await driver.see("/mnt/old.iso")
            jobs.judge = lambda sink: None
            await driver.press("enter")
            await driver.see("The medium will do here", "/mnt/old.iso: kernel 6.12.99")

    asyncio.run(road())
    assert checked(jobs) == ["/mnt/old.iso", "/mnt/old.iso"]


def test_a_second_enter_of_a_burst_chooses_nothing(jobs: JudgingJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def media(repository: str) -> tuple[AttachedMedium, ...]:
        assert looked.wait(30)
        return jobs.attached

    monkeypatch.setattr(jobs, "media", media)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("home", "down", "down", "down", "down")
            await driver.burst("enter", "enter")
            await driver.see("Check a rescue medium", "Looking for rescue media")
            await driver.press("enter")
            looked.set()
            await driver.see("> This rescue medium, sr0")
            assert "Type the path" not in driver.text

    asyncio.run(road())
    assert checked(jobs) == []


def test_a_search_that_ends_late_leaves_the_field_and_its_question(
    jobs: JudgingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = threading.Event()

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_media(driver)
            await driver.see("> This rescue medium, sr0")

            def media(repository: str) -> tuple[AttachedMedium, ...]:
                assert again.wait(30)
                return (RUNNING, STICK)

            monkeypatch.setattr(jobs, "media", media)
            await driver.press("end", "enter")
            await driver.see("Looking for rescue media")
            await driver.press("up", "enter")
            await driver.see("Type the path")
            await driver.type("/mnt")
            again.set()
            await driver.see("The rescue medium in sdb", "Type the path", "/mnt", "Esc: back to the list")

    asyncio.run(road())


def test_a_search_that_fails_leads_to_the_first_screen(jobs: JudgingJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not back to the list, which would search, and fail, for ever."""

    def media(repository: str) -> tuple[AttachedMedium, ...]:
        raise RefusedError("lsblk is not there.")

    monkeypatch.setattr(jobs, "media", media)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("home", "down", "down", "down", "down", "enter")
            await driver.see("That did not work", "lsblk is not there.")
            await driver.press("escape")
            await driver.see("Rescue system", "of RAM")

    asyncio.run(road())


def test_a_check_says_what_it_does_and_is_stopped_by_esc(jobs: JudgingJobs) -> None:
    go_on, ends = threading.Event(), []

    def slow(sink: Sink) -> None:
        sink(Event(stage=Stage.PREFLIGHT, message="Looking for drivers in live/base.squashfs"))
        assert go_on.wait(30)
        try:
            sink(Event(stage=Stage.PREFLIGHT, message="Never said"))
        except StoppedError as error:
            ends.append(error.message)
            raise

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_media(driver)
            await driver.see("> This rescue medium")
            jobs.judge = slow
            await driver.press("enter")
            await driver.see("Looking for drivers in live/base.squashfs ...", "Esc: stop the check")
            check(driver)
            # Nothing else begins meanwhile.
            await driver.press("enter", "end", "enter", "home")
            await driver.press("escape")
            await driver.see("The check was stopped.", "Enter: check it", "Check a rescue medium")
            go_on.set()
            while not ends:
                await asyncio.sleep(0.02)
            jobs.judge = lambda sink: None
            await driver.press("enter")
            await driver.see("The medium will do here")

    asyncio.run(road())
    assert ends == ["The check was stopped."]
    assert checked(jobs) == ["/dev/sr0", "/dev/sr0"]


def test_a_check_ends_with_the_wizard(jobs: JudgingJobs) -> None:
    begun, left, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(sink: Sink) -> None:
        begun.set()
        assert left.wait(30)
        try:
            sink(Event(stage=Stage.PREFLIGHT, message="Never said"))
        except StoppedError:
            ended.set()
            raise

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_media(driver)
            await driver.see("> This rescue medium")
            jobs.judge = slow
            await driver.press("enter")
            await asyncio.to_thread(begun.wait, 30)
            driver.app.stop_soon()
            asyncio.get_running_loop().call_later(0.3, left.set)
            await driver.ended()

    asyncio.run(road())
    assert ended.wait(30)


def test_the_machine_that_was_judged_is_saved_on_the_chosen_stick(jobs: JudgingJobs) -> None:
    jobs.findings = (finding(Severity.BLOCKS),)
    jobs.places = (SupportPlace(name="STICK 14.32 GiB on USB DISK", device="/dev/sdb1", kind="vfat"),)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_media(driver)
            await driver.press("home", "enter")
            # Where something is missing, that comes first.
            await driver.see("The medium will not do here", "> Save this machine's document")
            await driver.press("enter")
            await driver.see("Save this machine's document", "firmware.machines", "> STICK 14.32 GiB")
            check(driver)
            jobs.machine = msgspec.structs.replace(jobs.machine, product="Another one")
            await driver.press("enter")
            await driver.see("Saved liferaft-machine-q35-525400123456.json.", "can be taken out")
            await driver.press("escape")
            await driver.see("The medium will not do here")

    asyncio.run(road())
    product = "Standard PC (Q35 + ICH9, 2009)"
    assert [call for call in jobs.calls if call.startswith("save")] == [f"save machine {product} /dev/sdb1"]


def test_a_stick_that_is_being_made_keeps_its_repository(jobs: JudgingJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []

    def media(repository: str) -> tuple[AttachedMedium, ...]:
        kept.append(repository)
        return jobs.attached

    monkeypatch.setattr(jobs, "media", media)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            driver.app._memory.stick = StickWish(repository="/run/liferaft/1/sdb1/backups")
            await to_the_media(driver)
            await driver.see("> This rescue medium")

    asyncio.run(road())
    assert kept == ["/run/liferaft/1/sdb1/backups"]
