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


@pytest.mark.parametrize(
    "words",
    [
        ("cp", "-r", "liferaft", "restore"),
        ("/usr/bin/python3", "/usr/bin/other", "liferaft", "restore"),
        ("/usr/bin/python3", "-c", "import time", "liferaft", "restore"),
        ("sudo", "liferaft", "restore", "--plan", "p.json"),
        ("/bin/sh", "/usr/libexec/liferaft/own-consoles", "/usr/bin/liferaft", "job", "--from-boot"),
        ("/usr/bin/python3", "-sP", "/usr/bin/liferaft", "restore", "--help"),
        ("liferaft", "restore", "-h"),
        ("liferaft", "prune", "--repo", "r", "--dry-run"),
        ("liferaft", "key", "list", "add"),
        ("liferaft", "key", "new-signing-key", "a.pem"),
        ("liferaft", "key"),
        ("liferaft",),
        ("python3",),
        ("python3", "-i"),
    ],
)
def test_what_only_names_a_command_is_no_job(words: tuple[str, ...], tmp_path: Path, proc: Path) -> None:
    process(proc, 80, *words)
    assert running_jobs(tmp_path / "none", proc) == ()


@pytest.mark.parametrize("below", ["add", "change", "remove"])
def test_keys_that_are_changed_are_told(below: str, tmp_path: Path, proc: Path) -> None:
    process(proc, 80, "liferaft", "key", below, "/srv/repo")
    assert running_jobs(tmp_path / "none", proc) == ("changing the keys of a repository (process 80)",)


def test_a_command_and_who_has_started_it_are_one_job(tmp_path: Path, proc: Path) -> None:
    """On the medium python3 has options: builder/payload.py, _LAUNCHER."""
    process(proc, 80, "sudo", "liferaft", "restore")
    process(proc, 81, "/usr/bin/python3", "-sP", "/usr/bin/liferaft", "restore")
    process(proc, 82, "/opt/venv/bin/python3.13", "/opt/venv/bin/liferaft", "job")
    assert running_jobs(tmp_path / "none", proc) == (
        "restoring a disk (process 81)",
        "carrying out a restore job (process 82)",
    )


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
