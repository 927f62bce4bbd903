"""The journal: what it remembers of whom, and that nothing in its file is believed without need."""

import errno
import os
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.units import MIB
from images.model.layout import DiskIdentity
from images.store.pages import Slot
from restore.plan.plan import Plan
from restore.stream.journal import Journal
from restore.target.candidates import Candidate


def plan(name: str = "n") -> Plan:
    return Plan(recovery_point="0", name=name, created="", repository="r", targets=(), steps=(), notes=())


def candidate(**changes: object) -> Candidate:
    found = Candidate(
        node="/dev/sda",
        file="",
        identity=DiskIdentity(wwn="0x1", serial="s"),
        size=1000 * MIB,
        sector_size=512,
        contents=(),
        obstacles=(),
    )
    return msgspec.structs.replace(found, **changes)


def slots(*numbers: int) -> list[Slot]:
    return [Slot(number, None) for number in numbers]


def kept(path: Path, found: Candidate | None = None) -> Journal:
    """A journal that remembers three runs."""
    journal = Journal(path, plan(), {"disk0": found or candidate()})
    journal.open()
    journal.note("part1", slots(3, 1, 2, 9))
    journal.note("part2", slots(0))
    journal.close(finished=False)
    return journal


def numbers(journal: Journal, volume: str, count: int = 100) -> list[int]:
    return [number for run in journal.done(volume, count) for number in run]


def test_a_second_run_knows_what_the_first_did(tmp_path: Path) -> None:
    kept(tmp_path / "state" / "j")
    again = Journal(tmp_path / "state" / "j", plan(), {"disk0": candidate(node="/dev/sdq")})
    assert again.began("disk0")
    assert numbers(again, "part1") == [1, 2, 3, 9]
    assert numbers(again, "part2") == [0]
    assert numbers(again, "part3") == []
    again.open()
    again.note("part1", slots(4))
    again.close(finished=False)
    third = Journal(tmp_path / "state" / "j", plan(), {"disk0": candidate()})
    assert numbers(third, "part1") == [1, 2, 3, 9, 4]
    assert (tmp_path / "state" / "j").stat().st_mode & 0o777 == 0o600


def test_when_all_is_done_nothing_is_left(tmp_path: Path) -> None:
    kept(tmp_path / "j").close(finished=True)
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize(
    "other",
    [
        {"identity": DiskIdentity(wwn="0x2", serial="s")},
        {"size": 999 * MIB},
        {"sector_size": 4096},
        {"inode": "1:2"},
    ],
    ids=str,
)
def test_it_is_about_one_disk(tmp_path: Path, other: dict[str, object]) -> None:
    kept(tmp_path / "j")
    journal = Journal(tmp_path / "j", plan(), {"disk0": candidate(**other)})
    assert not journal.began("disk0")
    journal.open()
    journal.close(finished=False)
    assert not numbers(Journal(tmp_path / "j", plan(), {"disk0": candidate(**other)}), "part1"), "it was begun anew"


def test_it_is_about_one_plan(tmp_path: Path) -> None:
    kept(tmp_path / "j")
    assert not Journal(tmp_path / "j", plan("another"), {"disk0": candidate()}).began("disk0")


def test_no_chunks_behind_the_end_of_a_volume(tmp_path: Path) -> None:
    kept(tmp_path / "j")
    journal = Journal(tmp_path / "j", plan(), {"disk0": candidate()})
    assert numbers(journal, "part1", 3) == [1, 2]
    assert numbers(journal, "part1", 0) == []


def test_a_torn_line_is_left_out_and_the_next_run_writes_behind_it(tmp_path: Path) -> None:
    kept(tmp_path / "j")
    whole = (tmp_path / "j").read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole), 9):
        (tmp_path / "j").write_bytes(whole[:length])
        again = Journal(tmp_path / "j", plan(), {"disk0": candidate()})
        before = numbers(again, "part1")
        assert set(before) <= {1, 2, 3, 9}
        again.open()
        again.note("part1", slots(50))
        again.close(finished=False)
        assert set(numbers(Journal(tmp_path / "j", plan(), {"disk0": candidate()}), "part1")) >= {*before, 50}


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_are_a_journal_or_none(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    path, sound = (tmp_path_factory.getbasetemp() / name for name in ("fuzzed", "sound"))
    if not sound.exists():
        kept(sound)
    whole = sound.read_bytes()
    path.write_bytes(whole[:at] + noise + whole[at:])
    journal = Journal(path, plan(), {"disk0": candidate()})
    assert all(0 <= number < 100 for number in numbers(journal, "part1"))


def test_a_line_that_says_everything_takes_no_memory(tmp_path: Path) -> None:
    kept(tmp_path / "j")
    with (tmp_path / "j").open("a") as stream:
        stream.write('{"volume":"part1","first":0,"end":9000000000000000000}\n')
        stream.write('{"volume":"part1","first":9,"end":3}\n{"volume":"part1","first":-5,"end":3}\n')
    tracemalloc.start()
    try:
        journal = Journal(tmp_path / "j", plan(), {"disk0": candidate()})
        runs = journal.done("part1", 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert range(1000) in runs
    assert len(runs) == 3
    assert peak < MIB


def test_a_disk_that_is_full_ends_the_journal_and_not_the_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", plan(), {"disk0": candidate()})
    journal.open()

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("restore.stream.journal.os.write", full)
    journal.note("part1", slots(1))
    assert "No space left on device" in journal.problem
    journal.note("part1", slots(2))
    journal.close(finished=False)


@pytest.mark.parametrize("content", [b"{}", b"precious", bytes(4096), b'{"version":2,"recovery_point":""}'])
def test_what_is_no_journal_is_neither_written_nor_removed(tmp_path: Path, content: bytes) -> None:
    """A slip of the pen names the plan, or a disk."""
    (tmp_path / "plan.json").write_bytes(content)
    journal = Journal(tmp_path / "plan.json", plan(), {"disk0": candidate()})
    journal.open()
    journal.note("part1", slots(1))
    journal.close(finished=True)
    assert (tmp_path / "plan.json").read_bytes() == content
    assert "something else than a journal" in journal.problem


def test_a_pipe_is_no_journal_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    journal = Journal(tmp_path / "pipe", plan(), {"disk0": candidate()})
    journal.open()
    journal.close(finished=True)
    assert "something else than a journal" in journal.problem
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("length", [0, 1, 10, 11, 30])
def test_a_journal_that_was_torn_at_once_is_begun_anew(tmp_path: Path, length: int) -> None:
    kept(tmp_path / "j")
    (tmp_path / "j").write_bytes((tmp_path / "j").read_bytes()[:length])
    journal = Journal(tmp_path / "j", plan(), {"disk0": candidate()})
    journal.open()
    journal.note("part1", slots(5))
    journal.close(finished=False)
    assert numbers(Journal(tmp_path / "j", plan(), {"disk0": candidate()}), "part1") == [5]


def test_without_a_file_nothing_is_kept() -> None:
    journal = Journal(None, plan(), {"disk0": candidate()})
    journal.open()
    journal.note("part1", slots(1))
    journal.close(finished=True)
    assert not journal.began("disk0")
    assert journal.problem == ""
