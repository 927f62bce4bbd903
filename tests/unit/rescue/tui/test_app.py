"""What surrounds the screens: the production jobs, what is loaded when, and refusing to run without a terminal."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import LiferaftError, UsageError
from core.events import ignore
from rescue.tui.app import SCREENS, run_wizard
from rescue.tui.jobs import LATER, SystemJobs
from rescue.tui.messages import Ending
from tests.runners import ScriptedRunner
from tests.unit.rescue.jobs.test_scratch_places import SPARE, lsblk, plan

_HEAVY = ("numpy", "requests", "parted", "zstandard", "rescue.jobs", "restore")


def recorder() -> ScriptedRunner:
    """A runner that only writes down."""
    return ScriptedRunner(lambda argv: '{"blockdevices": []}')


def test_the_first_screen_loads_nothing_heavy() -> None:
    """A machine that boots from a CD waits for every import before it shows anything."""
    script = f"import sys, rescue.tui.app; print([name for name in {_HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4]
    )
    assert done.stdout.strip() == "[]"


def test_machines_end_by_systemctl() -> None:
    runner = recorder()
    for ending in Ending:
        SystemJobs(runner).end(ending)
    assert runner.calls == [("systemctl", "--no-block", "reboot"), ("systemctl", "--no-block", "poweroff")]


def test_the_production_jobs_read_machine_and_repository(repository: Path) -> None:
    jobs = SystemJobs(recorder())
    assert jobs.probe().disks == ()
    assert jobs.find_repositories().repositories == ()
    assert [point.name for point in jobs.points(str(repository))] == ["web01 monday", "web01 tuesday"]
    jobs.close()


def test_without_a_terminal_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "input").open("w+") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(UsageError, match="needs a terminal"):
            run_wizard()


def test_what_is_loaded_later_exists() -> None:
    root = Path(__file__).parents[4]
    for module in (*LATER.values(), *(module for module, _ in SCREENS.values())):
        assert (root / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("scratch", [0, 2 << 30])
def test_a_place_for_scratch_is_mounted_only_for_a_plan_that_takes_scratch(scratch: int) -> None:
    """It is remembered from a plan that did, and the plan that runs does not show it."""

    def nobody(container: str) -> str:
        raise AssertionError(f"{container} was asked for")

    runner = ScriptedRunner(lsblk)
    with pytest.raises(LiferaftError):
        SystemJobs(runner).run(plan(scratch), ignore, nobody, SPARE)
    assert bool([call for call in runner.calls if call[0] == "mount"]) == bool(scratch)
