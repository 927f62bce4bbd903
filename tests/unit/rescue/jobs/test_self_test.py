"""The self-test, on a made-up system: what is bad fails it, what is only worth knowing does not."""

import datetime
import json
from pathlib import Path

import pytest

from builder.document import MEDIUM_DOCUMENT, describe_files
from core.documents import encode_readable
from core.errors import DeviceError
from core.events import ignore
from images.model.machine import Machine
from rescue.jobs.self_test import Grade, SelfTestResult, result_line, run_self_test
from tests.samples import sample_medium

_NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    folder = tmp_path / "medium"
    files = {"liferaft/packages.txt": b"bash\t5\n", "live/base.squashfs": b"layer" * 1000}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    document = sample_medium(
        liferaft="liferaft 0.1.0",
        built=_NOW - datetime.timedelta(days=10),
        kernel="6.12",
        ram=640 << 20,
        ram_copied=832 << 20,
        files=describe_files({name: folder / name for name in files}),
    )
    (folder / MEDIUM_DOCUMENT).write_text(encode_readable(document))
    return folder


@pytest.fixture
def system(tmp_path: Path) -> Path:
    root = tmp_path / "system"
    texts = {
        "proc/meminfo": "MemTotal:        2048000 kB\nMemFree: 5 kB\nMemAvailable:    1536000 kB\n",
        "sys/class/tty/console/active": "tty0 ttyS0\n",
        "sys/class/net/enp1s0/operstate": "up\n",
        "sys/class/net/lo/operstate": "unknown\n",
        "run/liferaft/medium-check": "whole\n",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _no_machine() -> Machine:
    raise DeviceError("lsblk failed.")


def _run(medium: Path, system: Path) -> SelfTestResult:
    # The machine is probed in the boot ring; here it always fails, in a line of its own.
    return run_self_test(ignore, _no_machine, medium=medium, system=system, now=_NOW)


def _grades(result: SelfTestResult) -> dict[str, Grade]:
    return {line.what: line.grade for line in result.lines}


def test_a_whole_medium_is_good(medium: Path, system: Path) -> None:
    # Its kernel is missing only in this test: the file list does not have one, so nothing is wrong.
    result = _run(medium, system)
    grades = _grades(result)
    assert grades["medium"] is Grade.GOOD and grades["check at boot"] is Grade.GOOD
    assert grades["consoles"] is Grade.GOOD and grades["network enp1s0"] is Grade.GOOD and "network lo" not in grades
    memory = next(line for line in result.lines if line.what == "RAM")
    assert memory.said.startswith("1.95 GiB") and "640.00 MiB" in memory.said and memory.grade is Grade.GOOD


def test_what_cannot_be_probed_fails_it(medium: Path, system: Path) -> None:
    result = _run(medium, system)
    assert _grades(result)["machine"] is Grade.BAD and result.exit_code == 5
    assert json.loads(result_line(result).removeprefix("LIFERAFT-RESULT "))["exit_code"] == 5


def test_one_altered_byte_fails_it(medium: Path, system: Path) -> None:
    (medium / "live/base.squashfs").write_bytes(b"laier" + b"layer" * 999)
    bad = [line for line in _run(medium, system).lines if line.what == "medium"]
    assert [line.grade for line in bad] == [Grade.BAD] and "live/base.squashfs" in bad[0].said


@pytest.mark.parametrize(
    ("verdict", "grade"),
    # Empty: workers that died before they had compared everything, and a person who typed "continue".
    [("skipped\n", Grade.NOTE), ("", Grade.BAD), ("8388608 16777216 live/base.squashfs\n", Grade.BAD)],
)
def test_the_verdict_of_the_boot_is_told(medium: Path, system: Path, verdict: str, grade: Grade) -> None:
    (system / "run/liferaft/medium-check").write_text(verdict)
    assert _grades(_run(medium, system))["check at boot"] is grade


def test_a_boot_without_the_check_is_told(medium: Path, system: Path) -> None:
    (system / "run/liferaft/medium-check").unlink()
    assert _grades(_run(medium, system))["check at boot"] is Grade.NOTE


def test_without_a_console_or_a_card_it_is_said(medium: Path, system: Path) -> None:
    (system / "sys/class/tty/console/active").unlink()
    (system / "sys/class/net/enp1s0/operstate").unlink()
    (system / "sys/class/net/enp1s0").rmdir()
    grades = _grades(_run(medium, system))
    assert grades["consoles"] is Grade.BAD and grades["network"] is Grade.NOTE
