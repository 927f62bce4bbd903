from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner
from images.capture import CaptureResult
from rescue.jobs.capture import capture_disks
from tests.flow.disks import TOOLS, make_tree, need
from tests.flow.signals import Command


@pytest.fixture(scope="module", autouse=True)
def cheap_key_slots() -> Iterator[None]:
    """New key slots cost next to nothing to open; what they cost in earnest is in tests/unit/images/store."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("images.store.keys._ITERATIONS", 1)
        patched.setattr("images.store.keys._MEMORY_KIB", 512)
        yield


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(*TOOLS)
    return make_tree(tmp_path_factory.mktemp("tree") / "tree")


@pytest.fixture
def capture(tmp_path: Path) -> Callable[[Path], CaptureResult]:
    """Captures a disk into tmp_path/repo."""

    def take(disk: Path) -> CaptureResult:
        return capture_disks([disk], str(tmp_path / "repo"), name="", runner=SystemRunner(), sink=ignore)

    return take


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts a command in ``tmp_path``."""
    started: list[Command] = []

    def start(*words: str | Path, **options: object) -> Command:
        started.append(Command(tmp_path, *words, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for command in started:
        command.kill()
