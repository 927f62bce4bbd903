"""A small disk in a repository, an old target for it, and what can be made to go wrong between them."""

from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.capture import capture_disks
from tests.flow.disks import need
from tests.flow.faulty import Door, old_target
from tests.flow.small import CHUNK, make, noise_disk, take


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("sfdisk", "lsblk")
    return noise_disk(tmp_path_factory.mktemp("faults") / "disk.img", mebibytes=5)


@pytest.fixture(scope="module")
def repository(disk: Path) -> Path:
    take(make(disk.parent / "repository"), disk)
    return disk.parent / "repository"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return old_target(tmp_path / "target.img")


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr("restore.stream.stream.BATCH", 4 * CHUNK)
    monkeypatch.setattr("restore.stream.stream.DISTANT_BATCH", 4 * CHUNK)
    return Door(monkeypatch)


@pytest.fixture(scope="module")
def two_disks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A repository whose recovery point has two disks, and both."""
    need("sfdisk", "lsblk")
    folder = tmp_path_factory.mktemp("two")
    first, second = (noise_disk(folder / f"disk{seed}.img", seed=seed, mebibytes=5) for seed in (1, 2))
    make(folder / "repo")
    capture_disks([first, second], str(folder / "repo"), name="", runner=SystemRunner(), sink=ignore)
    return folder / "repo", first, second
