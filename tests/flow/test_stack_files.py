"""Image files with containers: kept whole, and it is said how they would be looked into."""

from pathlib import Path

import pytest

from core.events import Event
from core.process import SystemRunner
from images.store.connect import open_repository
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from tests.flow.disks import MIB, blank, need, run


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    need("cryptsetup")
    disk, key = blank(tmp_path / "disk.img", 20 * MIB), tmp_path / "key"
    key.write_bytes(b"a key of the test")
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    run("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", *cheap, "--key-file", key, disk)
    return disk


def test_what_is_kept_whole_because_it_was_asked_for_is_said_so(disk: Path, tmp_path: Path) -> None:
    said: list[Event] = []
    repo = str(tmp_path / "repo")
    result = capture_disks([disk], repo, name="n", runner=SystemRunner(), sink=said.append, part_only=True)
    (warning,) = (text for text in result.warnings if "is captured whole" in text)
    assert warning.endswith(": it is kept as it lies, as --part-only asks.")
    assert not any("losetup" in event.message for event in said)


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
