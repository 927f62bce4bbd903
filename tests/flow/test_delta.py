"""Restoring onto what is there already: after a stop, with and without a journal, and onto yesterday's restore."""

import json
import os
from pathlib import Path

import pytest

from core.errors import RefusedError, StoppedError
from core.events import Event, Stage
from core.units import MIB
from tests.flow.disks import need, run
from tests.flow.faulty import Door, assert_rest_untouched, carry_out, old_target, plan
from tests.flow.small import CHUNK, START, make, noise_disk, opened, take

#: Chunks of the partition, and the one in which the second recovery point differs.
CHUNKS, CHANGED = 4 * MIB // CHUNK, 37


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two recovery points of one disk, and the disk as it was at each."""
    need("sfdisk", "lsblk")
    folder = tmp_path_factory.mktemp("delta")
    make(folder / "repo")
    take(folder / "repo", noise_disk(folder / "old.img", mebibytes=5), "old")
    take(folder / "repo", noise_disk(folder / "new.img", mebibytes=5, changed=(CHANGED,)), "new")
    return folder


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr("restore.stream.stream.BATCH", 4 * CHUNK)
    monkeypatch.setattr("restore.stream.stream.DISTANT_BATCH", 4 * CHUNK)
    monkeypatch.setattr("restore.stream.notes.INTERVAL", 0.0)
    return Door(monkeypatch)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return old_target(tmp_path / "target.img")


def partition_writes(door: Door, size: int = 5 * MIB) -> list[tuple[int, int]]:
    return [(offset, length) for offset, length in door.writes if START <= offset < size]


def assert_restored(target: Path, source: Path) -> None:
    assert target.read_bytes()[START : 5 * MIB] == source.read_bytes()[START:]


def test_yesterdays_restore_becomes_todays_by_one_chunk(folder: Path, target: Path, door: Door) -> None:
    carry_out(plan(folder / "repo", target, point="old"))
    assert_restored(target, folder / "old.img")
    door.writes.clear()
    made = plan(folder / "repo", target, point="new")
    report = carry_out(made)
    assert_restored(target, folder / "new.img")
    assert partition_writes(door) == [(START + CHANGED * CHUNK, CHUNK)]
    volume = next(step for step in report.steps if step.step.startswith("disk0-part1: write"))
    assert (volume.written, volume.kept) == (CHUNK, 4 * MIB - CHUNK)
    assert report.verified
    assert_rest_untouched(made, "disk0", target)


def test_nothing_is_zeroed_that_is_there_already(
    folder: Path, target: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wiping old signatures passes by what matches, and takes away what does not."""
    made = plan(folder / "repo", target, point="old")
    carry_out(made)
    with target.open("r+b") as stream:
        stream.seek(START + 2 * CHUNK)
        stream.write(b"an old signature")
    zeroed: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "restore.target.target.Target.zero", lambda self, offset, length: zeroed.append((offset, length))
    )
    again = plan(folder / "repo", target, point="old")
    carry_out(again)
    inside = [(offset, length) for offset, length in zeroed if START <= offset < 5 * MIB]
    assert inside == [(START + 2 * CHUNK, CHUNK)]
    # Both ends of the disk, where old tables and RAID marks lie.
    assert (0, START) in zeroed
    assert (8 * MIB, MIB) in zeroed
    assert_restored(target, folder / "old.img")


def test_the_read_back_reads_what_was_kept_once(folder: Path, target: Path, door: Door) -> None:
    carry_out(plan(folder / "repo", target, point="old"))
    door.reads.clear()
    carry_out(plan(folder / "repo", target, point="new"))
    times = [
        sum(offset <= START + number * CHUNK < offset + length for offset, length in door.reads if offset >= START)
        for number in range(CHUNKS)
    ]
    # Looked at once; the changed one and the sample once more at the end.
    assert times == [2 if number in (CHANGED, 0) else 1 for number in range(CHUNKS)]


def _stop_half_way(made_of: Path, target: Path, door: Door, journal: Path) -> None:
    """A restore that is stopped when about half of the partition is written."""

    def stop(number: int, offset: int, length: int) -> None:
        if START + CHUNKS // 2 * CHUNK <= offset < 5 * MIB:
            raise StoppedError("stopped")

    door.before_write = stop
    with pytest.raises(StoppedError):
        carry_out(plan(made_of / "repo", target, point="old"), journal=journal)
    door.before_write = lambda number, offset, length: None
    door.writes.clear()
    door.reads.clear()


def test_a_journal_saves_looking_and_is_read_back_at_the_end(
    folder: Path, target: Path, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore.stream.stream.SPOTS", 4)
    made = plan(folder / "repo", target, point="old")
    journal = tmp_path / "state" / "j"
    _stop_half_way(folder, target, door, journal)
    said = [json.loads(line) for line in journal.read_text().splitlines()]
    assert said[0]["plan"] == made.digest
    noted = {number for line in said[1:] if "volume" in line for number in range(line["first"], line["end"])}
    assert len(noted) >= CHUNKS // 4
    report = carry_out(made, journal=journal)
    assert report.verified
    assert report.kept >= len(noted) * CHUNK
    written = {
        (offset - START) // CHUNK + at for offset, length in partition_writes(door) for at in range(length // CHUNK)
    }
    assert not written & noted
    assert_restored(target, folder / "old.img")
    times = [
        sum(offset <= START + number * CHUNK < offset + length for offset, length in door.reads) for number in noted
    ]
    assert min(times) == 1, "what the journal said is read back"
    assert sum(times) <= len(noted) + 8, "and was not looked at before, some spots apart"
    assert not journal.exists(), "nothing is left to go on with"


def test_without_a_journal_the_target_says_it(folder: Path, target: Path, door: Door, tmp_path: Path) -> None:
    _stop_half_way(folder, target, door, tmp_path / "one")
    report = carry_out(plan(folder / "repo", target, point="old"), journal=tmp_path / "another")
    assert report.kept >= CHUNKS // 4 * CHUNK
    assert report.written <= (CHUNKS - CHUNKS // 4) * CHUNK + MIB
    assert_restored(target, folder / "old.img")


@pytest.mark.parametrize("lie", ["other content", "other disk", "garbage", "torn", "everything", "huge numbers"])
def test_a_journal_that_lies_is_found_out(folder: Path, target: Path, door: Door, tmp_path: Path, lie: str) -> None:
    journal = tmp_path / "j"
    made = plan(folder / "repo", target, point="old")
    _stop_half_way(folder, target, door, journal)
    head = json.loads(journal.read_text().splitlines()[0])
    everything = json.dumps({"volume": "disk0-part1", "first": 0, "end": CHUNKS}) + "\n"
    match lie:
        case "other content":
            with target.open("r+b") as stream:
                stream.seek(START)
                stream.write(bytes(4 * MIB))
        case "other disk":
            head["targets"]["disk0"]["inode"] = "1:2"
            journal.write_text(json.dumps(head) + "\n" + everything)
        case "garbage":
            journal.write_bytes(os.urandom(5000))
        case "torn":
            journal.write_bytes(journal.read_bytes()[:-7])
        case "everything":
            journal.write_text(json.dumps(head) + "\n" + everything)
        case "huge numbers":
            line = {"volume": "disk0-part1", "first": 0, "end": 1 << 62}
            journal.write_text(json.dumps(head) + "\n" + json.dumps(line) + "\n")
    assert carry_out(made, journal=journal).verified
    assert_restored(target, folder / "old.img")
    assert_rest_untouched(made, "disk0", target)


def test_one_lie_among_truths_is_mended_by_the_read_back(
    folder: Path, target: Path, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "j"
    made = plan(folder / "repo", target, point="old")
    _stop_half_way(folder, target, door, journal)
    monkeypatch.setattr("restore.stream.stream.SPOTS", 2)
    with target.open("r+b") as stream:
        stream.seek(START + 7 * CHUNK + 5)
        stream.write(b"stale")
    report = carry_out(made, journal=journal)
    assert report.rewritten == CHUNK
    assert_restored(target, folder / "old.img")
    # A line of a file was wrong, not a disk.
    assert "An earlier run had noted that some of this was written" in report.warnings[0]
    assert "may be failing" not in report.warnings[0]


def test_a_disk_that_was_put_to_other_use_since_is_refused(
    folder: Path, target: Path, door: Door, tmp_path: Path
) -> None:
    """A journal was left by a restore that was given up; what is on the disk now, no plan has named."""
    made = plan(folder / "repo", target, point="old")
    _stop_half_way(folder, target, door, tmp_path / "j")
    need("mke2fs")
    run("mke2fs", "-q", "-F", "-L", "precious", target)
    before = target.read_bytes()
    with pytest.raises(RefusedError, match="holds other things now"):
        carry_out(made, journal=tmp_path / "j")
    assert target.read_bytes() == before


def test_a_journal_that_cannot_be_kept_is_a_warning(folder: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    report = carry_out(plan(folder / "repo", target, point="old"), journal=tmp_path / "file" / "j")
    assert any("journal cannot be kept" in line for line in report.warnings)
    assert_restored(target, folder / "old.img")


def test_the_report_names_the_digest_trees(folder: Path, target: Path) -> None:
    report = carry_out(plan(folder / "repo", target, point="new"))
    repository = opened(folder / "repo")
    manifest = repository.manifest(report.recovery_point)
    roots = {volume.id: volume.root for volume in manifest.volumes}
    proof = next(proof for proof in report.volumes if proof.volume == "disk0-part1")
    assert proof.root == roots["disk0-part1"]
    assert (proof.offset, proof.size, proof.verified) == (START, 4 * MIB, 4 * MIB)


def test_looking_is_told_as_a_stage_of_its_own(folder: Path, target: Path) -> None:
    carry_out(plan(folder / "repo", target, point="old"))
    events: list[Event] = []
    carry_out(plan(folder / "repo", target, point="new"), events.append)
    looked = [event for event in events if event.stage is Stage.COMPARE]
    assert looked[-1].done == 4 * MIB
