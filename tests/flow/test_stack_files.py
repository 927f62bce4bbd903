"""Image files with containers: kept whole, and it is said how they would be looked into."""

from pathlib import Path

import msgspec
import pytest

from core.errors import ExitCode
from core.events import Event
from core.process import SystemRunner
from images.store.connect import open_repository
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from tests.flow.command import Command
from tests.flow.disks import MIB, blank, need, run


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    need("cryptsetup")
    disk, key = blank(tmp_path / "disk.img", 20 * MIB), tmp_path / "key"
    key.write_bytes(b"a key of the test")
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    run("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", *cheap, "--key-file", key, disk)
    return disk


def test_what_is_kept_whole_because_it_was_asked_for_is_said_so(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And it is said, not warned of: what was asked for was done."""
    liferaft = Command(monkeypatch, capsys)
    words = ["capture", disk, "--repo", tmp_path / "repo", "--progress", "json"]
    done = liferaft(*words, "--part-only")
    assert done.returncode == ExitCode.DONE, done.stderr
    said = [msgspec.json.decode(line, type=Event) for line in done.stderr.splitlines()]
    (told,) = (event for event in said if "is captured whole" in event.message)
    assert told.message.endswith(": it is kept as it lies, as --part-only asks.")
    assert not any(event.warning or "losetup" in event.message for event in said)
    assert liferaft(*words).returncode == ExitCode.WARNINGS


def test_a_luks_container_in_a_file_is_kept_whole(disk: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    said: list[Event] = []
    result = capture_disks([disk], str(repo), name="n", runner=SystemRunner(), sink=said.append)
    assert any("losetup --partscan" in event.message for event in said)
    manifest = open_repository(str(repo)).manifest(result.id)
    # Without containers it is of the version that every liferaft reads.
    assert (manifest.version, manifest.layout.containers) == (1, ())
    assert any("is captured whole" in warning for warning in result.warnings)
    target = blank(tmp_path / "target.img", 20 * MIB)
    plan = plan_restore(str(repo), result.id, [target], RestoreChoices(boot=BootChoice.NO), SystemRunner())
    run_plan(plan, plan.digest, SystemRunner(), said.append)
    assert target.read_bytes() == disk.read_bytes()
