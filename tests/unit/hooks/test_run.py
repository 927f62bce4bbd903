import json
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.events import Event, ignore
from core.process import SystemRunner
from hooks.contract import HookContext, HookStage
from hooks.run import run_hooks


def _hook(folder: Path, stage: HookStage, name: str, script: str, mode: int = 0o755) -> None:
    path = folder / stage / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)


def _context(stage: HookStage) -> HookContext:
    return HookContext(stage=stage, repository="/repo", recovery_point="abc", disks=("/dev/x",))


def test_hooks_run_in_order_and_are_told_what_happens(tmp_path: Path) -> None:
    _hook(tmp_path, HookStage.BEFORE_RESTORE, "20-second", f"echo second >> {tmp_path}/log")
    _hook(tmp_path, HookStage.BEFORE_RESTORE, "10-first", f"cat >> {tmp_path}/log; echo said")
    _hook(tmp_path, HookStage.AFTER_RESTORE, "10-other", "exit 1")
    told: list[Event] = []
    assert run_hooks(tmp_path, _context(HookStage.BEFORE_RESTORE), SystemRunner(), told.append) == ()
    first, second = (tmp_path / "log").read_text().splitlines()
    assert json.loads(first)["disks"] == ["/dev/x"]
    assert second == "second"
    assert "10-first: said" in [event.message for event in told]


def test_a_failure_before_the_work_stops_it(tmp_path: Path) -> None:
    _hook(tmp_path, HookStage.BEFORE_CAPTURE, "db", "echo cannot quiesce >&2; exit 7")
    with pytest.raises(RefusedError, match="cannot quiesce"):
        run_hooks(tmp_path, _context(HookStage.BEFORE_CAPTURE), SystemRunner(), ignore)


def test_a_failure_after_the_work_is_a_warning(tmp_path: Path) -> None:
    _hook(tmp_path, HookStage.AFTER_RESTORE, "notify", "exit 1")
    warnings = run_hooks(tmp_path, _context(HookStage.AFTER_RESTORE), SystemRunner(), ignore)
    assert len(warnings) == 1
    assert "after-restore/notify" in warnings[0]


def test_a_file_that_cannot_run_is_not_skipped_in_silence(tmp_path: Path) -> None:
    _hook(tmp_path, HookStage.BEFORE_RESTORE, "x", "true", mode=0o644)
    with pytest.raises(RefusedError, match="not executable"):
        run_hooks(tmp_path, _context(HookStage.BEFORE_RESTORE), SystemRunner(), ignore)


def test_a_broken_hook_behind_the_work_shows_before_it(tmp_path: Path) -> None:
    _hook(tmp_path, HookStage.AFTER_CAPTURE, "x", "true", mode=0o644)
    with pytest.raises(RefusedError, match="not executable"):
        run_hooks(tmp_path, _context(HookStage.BEFORE_CAPTURE), SystemRunner(), ignore)


def test_a_hook_that_cannot_start_does_not_hide_finished_work(tmp_path: Path) -> None:
    path = tmp_path / "after-capture" / "x"
    path.parent.mkdir()
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    assert len(run_hooks(tmp_path, _context(HookStage.AFTER_CAPTURE), SystemRunner(), ignore)) == 1


def test_no_folder_named_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert run_hooks(None, _context(HookStage.BEFORE_RESTORE), SystemRunner(), ignore) == ()
    with pytest.raises(RefusedError, match="does not exist"):
        run_hooks(tmp_path / "no", _context(HookStage.BEFORE_RESTORE), SystemRunner(), ignore)
