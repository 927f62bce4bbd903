"""What is said to run on a machine: records with a lock, and commands by their arguments."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rescue.jobs.running import announced, running_jobs


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    return folder


def process(proc: Path, number: int, *words: str) -> None:
    (proc / str(number)).mkdir()
    (proc / str(number) / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))


def test_a_job_is_told_for_as_long_as_it_runs(tmp_path: Path, proc: Path) -> None:
    records = tmp_path / "running"
    assert running_jobs(records, proc) == ()
    with announced("restoring web01 to sda", records), announced("saving", records):
        told = running_jobs(records, proc)
        assert sorted(told) == [f"restoring web01 to sda (process {os.getpid()})", f"saving (process {os.getpid()})"]
    assert running_jobs(records, proc) == ()
    assert list(records.iterdir()) == []


def test_the_record_of_a_killed_one_is_nothing(tmp_path: Path, proc: Path) -> None:
    records = tmp_path / "running"
    code = (
        "import pathlib, time; from rescue.jobs.running import announced\n"
        f"with announced('restoring db01', pathlib.Path({str(records)!r})): print('on', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[4]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as other:
        assert other.stdout is not None and other.stdout.readline() == b"on\n"
        assert running_jobs(records, proc) == (f"restoring db01 (process {other.pid})",)
        other.kill()
        other.wait(30)
    for _ in range(50):
        if not running_jobs(records, proc):
            break
        time.sleep(0.1)
    assert running_jobs(records, proc) == ()
    assert list(records.iterdir()) == []


def test_what_cannot_be_recorded_runs_all_the_same(tmp_path: Path, proc: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    ran = False
    with announced("restoring", blocked):
        ran = True
    assert ran
    assert running_jobs(blocked, tmp_path / "nowhere") == ()


def test_commands_that_work_are_told_and_others_are_not(tmp_path: Path, proc: Path) -> None:
    process(proc, 812, "/usr/bin/python3", "/usr/bin/liferaft", "--debug", "capture", "/dev/sda", "--repo", "restore")
    process(proc, 90, "liferaft", "write-usb", "a.iso", "/dev/sdb")
    process(proc, 91, "/usr/bin/python3", "/usr/bin/liferaft", "tui")
    process(proc, 92, "/usr/bin/python3", "/usr/bin/liferaft", "show", "restore")
    process(proc, 93, "less", "liferaft.log", "restore")
    process(proc, 94)
    (proc / "self").mkdir()
    (proc / "95").mkdir()
    assert running_jobs(tmp_path / "none", proc) == (
        "writing a rescue stick (process 90)",
        "taking a recovery point (process 812)",
    )
