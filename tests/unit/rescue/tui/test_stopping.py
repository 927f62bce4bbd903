"""The wizard when it is ended from outside: what it does comes to a safe point first."""

import asyncio
import signal
import threading
import time
from pathlib import Path

import pytest
from textual.message import Message

from core import process
from core.errors import ProcessError, StoppedError
from core.events import Event, Stage
from core.process import SystemRunner
from core.stopping import SIGNALS, stoppable, told_to_stop
from rescue.tui.board import Board
from rescue.tui.jobs import Jobs
from rescue.tui.running_screen import RunningScreen
from tests.unit.rescue.tui.driving import wizard
from tests.unit.rescue.tui.fakes import FileJobs


class _Endless(RunningScreen):
    """Works until an event is answered with an error, or much longer than anybody waits."""

    def __init__(self, jobs: Jobs) -> None:
        super().__init__(jobs, Board((Stage.STREAM,)))
        self.put_away = threading.Event()

    def about(self) -> str:
        return "an endless job"

    def work(self) -> Message:
        try:
            for _ in range(2000):
                self.sink(Event(stage=Stage.STREAM, message="going on"))
                time.sleep(0.01)
        except StoppedError:
            self.put_away.set()
            raise
        return Message()

    def stopped(self) -> StoppedError:
        return StoppedError("stopped")


class _Program(_Endless):
    """Waits for a program that says nothing."""

    def work(self) -> Message:
        self.sink(Event(stage=Stage.STREAM, message="going on"))
        try:
            SystemRunner().run(["sleep", "90"])
        except ProcessError:
            self.put_away.set()
            raise
        return Message()


def test_a_job_that_runs_is_stopped_with_the_wizard(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(bytes(512))
    jobs = FileJobs(tmp_path, tmp_path / "target")
    job = _Endless(jobs)

    async def drive() -> bool:
        async with wizard(jobs) as driver:
            await driver.app.push_screen(job)
            await driver.see("an endless job", "going on")
            driver.app.stop_soon()
            await driver.ended()
        return driver.app.stopped

    assert asyncio.run(drive())
    assert job.put_away.is_set()


def test_a_program_that_a_job_waits_for_is_ended_with_the_wizard(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(bytes(512))
    jobs = FileJobs(tmp_path, tmp_path / "target")
    job = _Program(jobs)

    async def drive() -> None:
        async with wizard(jobs) as driver:
            await driver.app.push_screen(job)
            await driver.see("an endless job", "going on")
            driver.app.stop_soon()
            await driver.ended()

    before = time.monotonic()
    asyncio.run(drive())
    assert job.put_away.is_set()
    assert time.monotonic() - before < 60


def test_a_job_hears_that_the_program_is_told_to_stop_while_no_message_is_handled(tmp_path: Path) -> None:
    """A shell has the terminal, and this thread waits for it."""
    (tmp_path / "target").write_bytes(bytes(512))
    job = _Endless(FileJobs(tmp_path, tmp_path / "target"))
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with stoppable(), told_to_stop(lambda: None):
            assert not job.stopping
            signal.raise_signal(signal.SIGTERM)
            assert job.stopping
            with pytest.raises(StoppedError):
                job.sink(Event(stage=Stage.STREAM, message="going on"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_systemd_waits_for_what_the_wizard_puts_away() -> None:
    """Ten seconds for a program that is asked to end, two for one that is killed (core.process), and some for disks."""
    unit = Path(__file__).parents[4] / "rescue/live/root/usr/lib/systemd/system/liferaft-tui@.service"
    (seconds,) = (line.split("=")[1] for line in unit.read_text().splitlines() if line.startswith("TimeoutStopSec="))
    assert int(seconds) > process._PATIENCE + process._KILLING + 5
