"""The wizard when it is ended from outside: what it does comes to a safe point first."""

import asyncio
import threading
import time
from pathlib import Path

from textual.message import Message

from core.errors import StoppedError
from core.events import Event, Stage
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
