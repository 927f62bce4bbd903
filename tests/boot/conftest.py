"""What the boot ring's tests share: the two source systems, the repository with both, the default ISO."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.process import SystemRunner
from tests.boot.ending import orderly_end
from tests.boot.machine import Firmware
from tests.boot.place import missing
from tests.boot.restoring import Lab
from tests.boot.system import Source, source


def whole_or_not_at_all(ring: str, lacks: list[str]) -> None:
    """Skip a ring that lacks something, with these sentences; in CI that is a failure."""
    if not lacks:
        return
    reason = f"{ring} ring: {'; '.join(lacks)}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    whole_or_not_at_all("boot", missing())


@pytest.fixture(scope="session", autouse=True)
def ending() -> Iterator[None]:
    with orderly_end():
        yield


@pytest.fixture(scope="session")
def runner() -> SystemRunner:
    return SystemRunner()


@pytest.fixture(scope="session")
def uefi_source(tools: None, runner: SystemRunner) -> Source:
    return source(Firmware.UEFI, runner)


@pytest.fixture(scope="session")
def bios_source(tools: None, runner: SystemRunner) -> Source:
    return source(Firmware.BIOS, runner)


@pytest.fixture(scope="session")
def lab(tools: None, runner: SystemRunner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One repository for all cells: each source is captured once."""
    folder = tmp_path_factory.mktemp("lab")
    yield Lab(folder, runner)
    shutil.rmtree(folder)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A folder for disks, emptied at once: pytest would keep gigabytes of the last three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)
