"""Prune gives back what nobody needs, and nothing else."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import DeviceError, RefusedError
from core.events import ignore
from images.store.access import Access
from images.store.backend import LocalBackend
from images.store.check import Depth, check, check_and_repair
from images.store.locks import LockedError, LockKind, LockLostError, locked
from images.store.prune import PruneResult, prune
from images.store.records import Codec, RecordKind
from images.store.repository import Repository
from images.store.retention import Policy
from images.store.usage import Limit
from images.store.writer import writing
from rescue.jobs.forget import forget_points
from rescue.jobs.prune import prune_repository
from tests.flow.sealed import flip, records
from tests.flow.small import CHUNK, START, access, make, noise_disk, opened, restored, take
from tests.flow.test_check import make_twin

NONE = Limit(share=0)


def run(folder: Path, limit: Limit = NONE, *, dry_run: bool = False, given: Access | None = None) -> PruneResult:
    return prune_repository(str(folder), limit, dry_run=dry_run, sink=ignore, access=given)


def drop(folder: Path, *names: str, given: Access | None = None) -> None:
    forget_points(str(folder), names, Policy(), grouping=(), may_empty=False, dry_run=False, sink=ignore, access=given)


def stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.pack"))


def sound(folder: Path, given: Access | None = None) -> None:
    result = check(Repository(LocalBackend(folder), given), Depth(data=True), sink=ignore)
    assert result.damages == ()


@pytest.mark.parametrize("encrypted, parity", [(False, 0), (True, 2)], ids=["plain", "sealed"])
def test_what_is_kept_restores_and_the_rest_is_gone(tmp_path: Path, encrypted: bool, parity: int) -> None:
    folder, given = make(tmp_path / "repo", encrypted=encrypted, parity=parity), access(encrypted=encrypted)
    first = noise_disk(tmp_path / "first.img", mebibytes=3)
    second = noise_disk(tmp_path / "second.img", mebibytes=3, changed=tuple(range(10, 30)))
    take(folder, first, "first", encrypted=encrypted)
    kept = take(folder, second, "second", encrypted=encrypted)
    drop(folder, "first", given=given)
    planned = run(folder, dry_run=True, given=given)
    before = stored(folder)
    assert (planned.dry_run, planned.deleted, planned.rewritten) == (True, 0, 1)
    result = run(folder, given=given)
    assert (result.freed, result.copied) == (planned.freed, planned.copied)
    # 20 of the first disk's chunks are not needed any more: noise, stored as it is, with its header (and its tag).
    assert before - stored(folder) >= 20 * (CHUNK + 80)
    assert before - stored(folder) == result.freed
    assert restored(opened(folder, encrypted=encrypted), kept) == second.read_bytes()
    sound(folder, given)
    assert len(list(folder.rglob("*.parity"))) == (len(list(folder.rglob("*.pack"))) if parity else 0)
    # Again, there is nothing to do, and nothing is done.
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pack")}
    again = run(folder, given=given)
    assert (again.deleted, again.rewritten, again.strays, again.freed) == (0, 0, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pack")} == files


def test_payloads_are_carried_over_as_they_are(tmp_path: Path) -> None:
    """Rewriting does not compress again: the records of the new pack are, byte for byte, those of the old one."""
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    take(folder, noise_disk(tmp_path / "b.img", changed=(1, 2, 3)), "b")

    def content() -> dict[bytes, bytes]:
        return {
            found.id: found.pack.read_bytes()[found.offset : found.offset + 80 + found.payload_length]
            for found in records(folder)
        }

    before = content()
    drop(folder, "a")
    assert run(folder).rewritten == 1
    after = content()
    assert len(after) < len(before)
    assert all(before[identifier] == record for identifier, record in after.items())


def test_what_may_stay_unused(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    take(folder, noise_disk(tmp_path / "b.img", changed=(1, 2)), "b")
    drop(folder, "a")
    assert run(folder, Limit(share=0.5)).rewritten == 0
    assert run(folder, Limit(size=2 * (CHUNK + 80) + 9000)).rewritten == 0
    # What stayed is used again rather than stored once more.
    before = stored(folder)
    take(folder, tmp_path / "a.img", "a again")
    assert stored(folder) - before < CHUNK
    drop(folder, "a again")
    assert run(folder, Limit(size=CHUNK)).rewritten == 1
    sound(folder)


def test_refused_when_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    damaged = take(folder, noise_disk(tmp_path / "a.img"), "a")
    take(folder, noise_disk(tmp_path / "b.img", seed=5), "b")
    flip(folder / "manifests" / f"{damaged}.json", 50)
    before = sorted(folder.rglob("*.*"))
    with pytest.raises(RefusedError, match=damaged) as caught:
        run(folder)
    assert "forget" in caught.value.hint
    assert sorted(folder.rglob("*.*")) == before
    drop(folder, damaged)
    assert run(folder).freed > 2 * (1 << 20)
    sound(folder)


def test_refused_when_a_manifest_is_missing_that_the_catalogue_lists(tmp_path: Path) -> None:
    """Without it all it needs would look unneeded: a folder that fsck put into lost+found, a share half mounted."""
    folder = make(tmp_path / "repo")
    disk = noise_disk(tmp_path / "a.img")
    point = take(folder, disk, "a")
    (folder / "manifests").rename(tmp_path / "aside")
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match=f"{point}.json .a. is missing"):
            run(folder, dry_run=dry_run)
    (tmp_path / "aside").rename(folder / "manifests")
    run(folder)
    assert restored(opened(folder), point) == disk.read_bytes()
    # It can be given up: repairing writes the catalogue anew.
    (folder / "manifests" / f"{point}.json").unlink()
    with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "check") as lock:
        check_and_repair(opened(folder), Depth(), lock, sink=ignore)
    assert run(folder).deleted == 1
    # Without a catalogue the folders alone say what there is.
    (folder / "catalogue.json").unlink()
    assert run(folder).points == 0


def test_refused_when_a_page_cannot_be_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    page = next(record for record in records(folder) if record.kind == 1)
    flip(page.pack, page.offset + 100)
    with pytest.raises(RefusedError, match="page") as caught:
        run(folder)
    assert "forget" in caught.value.hint
    assert page.pack.exists()


def test_refused_when_an_index_is_damaged_or_missing(tmp_path: Path) -> None:
    """The packs that only it knew look like garbage."""
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    take(folder, noise_disk(tmp_path / "b.img", seed=5), "b")
    index = sorted((folder / "indexes").iterdir())[0]
    content = index.read_bytes()
    flip(index, -50)
    with pytest.raises(RefusedError, match=index.name):
        run(folder)
    index.unlink()
    with pytest.raises(RefusedError):
        run(folder)
    assert len(list(folder.rglob("*.pack"))) == 2
    index.write_bytes(content)
    run(folder)
    sound(folder)


def test_refused_when_a_pack_without_index_may_hold_what_is_missing(tmp_path: Path) -> None:
    """The pages lie elsewhere: the first try of the capture was interrupted, and only its index is gone."""
    folder, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "a.img")
    repository = opened(folder)
    with writing(repository) as writer:
        for number in range(4):
            plain = disk.read_bytes()[START + number * CHUNK : START + (number + 1) * CHUNK]
            writer.put(RecordKind.CHUNK, repository.identify(plain), CHUNK, Codec.STORED, plain)
        writer.checkpoint()
    (index,) = (folder / "indexes").iterdir()
    point = take(folder, disk)
    content = index.read_bytes()
    index.unlink()
    with pytest.raises(RefusedError, match="4 chunks"):
        run(folder)
    assert len(list(folder.rglob("*.pack"))) == 2
    index.write_bytes(content)
    run(folder)
    assert restored(opened(folder), point) == disk.read_bytes()


def test_a_chunk_that_is_lost_for_good_does_not_block(tmp_path: Path) -> None:
    """Its pack is gone; no pack is left that might hold it."""
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img", seed=3), "a")
    take(folder, noise_disk(tmp_path / "b.img", seed=3, changed=(1,)), "b")
    take(folder, noise_disk(tmp_path / "c.img", seed=9), "c")
    smallest = min(folder.rglob("*.pack"), key=lambda path: path.stat().st_size)
    # Of the pack that "b" added the page is needed to walk; only its chunk is cut out of the index (check --repair).
    chunk = next(record for record in records(folder) if record.pack == smallest and record.kind == 0)
    flip(smallest, chunk.offset + 80)
    with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "check") as lock:
        assert not check_and_repair(opened(folder), Depth(data=True), lock, sink=ignore).harmless
    drop(folder, "c")
    result = run(folder)
    assert result.deleted == 1
    assert any("lost" in warning for warning in result.warnings)


def test_what_could_not_be_read_once_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad cable during a repair takes a record out of the index; it lies in its pack still, sound, between others."""
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    kept = take(folder, noise_disk(tmp_path / "b.img", changed=(1, 2, 3)), "b")
    content = (tmp_path / "b.img").read_bytes()
    chunk = content[START + 8 * CHUNK : START + 9 * CHUNK]
    record = next(found for found in records(folder) if found.pack.read_bytes()[found.offset + 80 :].startswith(chunk))
    read_range = LocalBackend.read_range

    def fails(self: LocalBackend, name: str, offset: int, length: int) -> bytes:
        if name.endswith(record.pack.name) and offset < record.offset + 80 + CHUNK and record.offset < offset + length:
            raise DeviceError(f"{name}: Input/output error.")
        return read_range(self, name, offset, length)

    def repair() -> None:
        with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "check") as lock:
            check_and_repair(opened(folder), Depth(data=True), lock, sink=ignore)

    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "read_range", fails)
        repair()
    assert opened(folder).locate(record.id) is None
    drop(folder, "a")
    assert any("stays as it is" in warning for warning in run(folder).warnings)
    repair()
    assert restored(opened(folder), kept) == content
    # Now nothing is missing, and what nobody needs goes.
    assert run(folder).rewritten == 1
    assert restored(opened(folder), kept) == content


def test_of_two_copies_the_sound_one_stays(tmp_path: Path) -> None:
    """Prune keeps one copy of a chunk that lies in two packs: never the one that has rotted."""
    for rotten in (0, 1):
        folder = make(tmp_path / f"repo{rotten}")
        disk = noise_disk(tmp_path / "a.img")
        point = take(folder, disk, "a")
        make_twin(folder, folder)
        pack = sorted(folder.rglob("*.pack"))[rotten]
        victim = [record for record in records(folder) if record.pack == pack and record.kind == 0][5]
        flip(pack, victim.offset + 80 + 7)
        run(folder)
        data = {record.id: record for record in records(folder)}
        assert victim.id in data
        repository = opened(folder)
        good = [
            place
            for place in repository.indexes().places(victim.id)
            if _reads(repository, victim.id, place.pack, place.offset, place.payload_length)
        ]
        assert good, rotten
        prunable = check(opened(folder), Depth(data=True), sink=ignore)
        assert prunable.hits == ()
        with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "check") as lock:
            check_and_repair(opened(folder), Depth(data=True), lock, sink=ignore)
        assert restored(opened(folder), point) == disk.read_bytes()


def _reads(repository: Repository, identifier: bytes, pack: bytes, offset: int, length: int) -> bool:
    data = repository.read_pack(pack, offset, 80 + length, "test")
    return repository.identify(bytes(data[80:])) == identifier


@pytest.mark.parametrize("rotten", [0, 1])
def test_merging_indexes_forgets_no_sound_copy(tmp_path: Path, rotten: int) -> None:
    """Both copies of a chunk stay because one has rotted; an index of both packs could name only one of them."""
    folder = make(tmp_path / "repo")
    disk = noise_disk(tmp_path / "a.img")
    point = take(folder, disk, "a")
    make_twin(folder, folder)
    copies = sorted((found for found in records(folder) if found.kind == 0), key=lambda found: (found.id, found.pack))
    for number in range(9):
        take(folder, noise_disk(tmp_path / f"{number}.img", seed=50 + number, mebibytes=2), f"{number}")
    assert copies[0].id == copies[1].id
    flip(copies[rotten].pack, copies[rotten].offset + 80 + 7)
    for _ in range(3):
        run(folder, Limit(share=0.9))
    with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "check") as lock:
        check_and_repair(opened(folder), Depth(data=True), lock, sink=ignore)
    assert restored(opened(folder), point) == disk.read_bytes()


def test_copies_are_thinned_to_one(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    disk = noise_disk(tmp_path / "a.img")
    point = take(folder, disk, "a")
    before = stored(folder)
    make_twin(folder, folder)
    assert stored(folder) == 2 * before
    assert run(folder).deleted == 1
    assert stored(folder) == before
    assert restored(opened(folder), point) == disk.read_bytes()


def test_a_damaged_record_keeps_its_pack(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    take(folder, noise_disk(tmp_path / "b.img", changed=(1, 2, 3)), "b")
    content = (tmp_path / "b.img").read_bytes()[START + 8 * CHUNK : START + 9 * CHUNK]
    record = next(
        found for found in records(folder) if found.pack.read_bytes()[found.offset + 80 :][: len(content)] == content
    )
    flip(record.pack, record.offset + 80)
    drop(folder, "a")
    result = run(folder)
    assert record.pack.exists()
    assert any(record.pack.name in warning for warning in result.warnings)
    hits = check(opened(folder), Depth(data=True), sink=ignore).hits
    assert {(hit.name, hit.offset) for hit in hits} == {("b", 8 * CHUNK)}


def test_a_lock_that_was_taken_away_stops_it_before_it_deletes(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    take(folder, noise_disk(tmp_path / "b.img", seed=5), "b")
    drop(folder, "a")
    before = set(folder.rglob("*.pack"))
    with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "prune") as lock:
        shutil.rmtree(folder / "locks")
        with pytest.raises(LockLostError):
            prune(opened(folder), NONE, lock, sink=ignore)
    assert set(folder.rglob("*.pack")) == before


def test_a_capture_whose_lock_was_taken_away_lists_nothing(tmp_path: Path) -> None:
    """Whoever took it may have pruned what the capture counts on."""

    class Robbed(LocalBackend):
        def create(self, name: str):  # type: ignore[no-untyped-def]
            shutil.rmtree(self.folder / "locks")
            return super().create(name)

    folder = make(tmp_path / "repo")
    with pytest.raises(LockLostError):
        take(Robbed(folder), noise_disk(tmp_path / "a.img"))
    assert opened(folder).points() == ()


def test_a_full_destination(tmp_path: Path) -> None:
    """No room for the rewritten packs: stopped, nothing lost, and what it had begun gives its room back."""

    class Full(LocalBackend):
        def create(self, name: str):  # type: ignore[no-untyped-def]
            raise DeviceError(f"{name} cannot be written: No space left on device.", hint="Make room.")

    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    point = take(folder, noise_disk(tmp_path / "b.img", changed=(1, 2, 3)), "b")
    drop(folder, "a")
    with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "prune") as lock:
        with pytest.raises(DeviceError, match="No space"):
            prune(Repository(Full(folder)), NONE, lock, sink=ignore)
    sound(folder)
    assert run(folder).rewritten == 1
    assert restored(opened(folder), point) == (tmp_path / "b.img").read_bytes()


def test_nobody_else_works_meanwhile(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    disk = noise_disk(tmp_path / "a.img")
    take(folder, disk)
    with locked(LocalBackend(folder), LockKind.SHARED, "capture"), pytest.raises(LockedError, match="capture"):
        run(folder)
    with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "prune"), pytest.raises(LockedError, match="prune"):
        take(folder, disk)


def test_a_version_1_repository_is_raised_first(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    path = folder / "liferaft.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "version": 1}))
    assert run(folder, dry_run=True).points == 1
    assert json.loads(path.read_bytes())["version"] == 1
    run(folder)
    assert json.loads(path.read_bytes()) == document
    sound(folder)


def test_files_that_are_not_ours_stay(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    strangers = [folder / "README.txt", folder / "packs" / "._x", folder / "packs" / "ab" / "notes.pack"]
    # A download that is under way, and a capture into another repository that lies in this one's folder.
    strangers += [folder / "film.mkv.partial", folder / "films" / "film.mkv.partial"]
    strangers += [folder / "second" / "packs" / "ab" / f"{'ab' * 16}.pack.partial"]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    run(folder)
    assert all(path.read_text() == "mine" for path in strangers)


def test_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many packs to rewrite, one at a time: what is needed meanwhile is about one pack."""
    folder = make(tmp_path / "repo")
    for number in range(5):
        take(folder, noise_disk(tmp_path / f"{number}.img", seed=number, mebibytes=2), f"old{number}")
        take(folder, noise_disk(tmp_path / f"{number}b.img", seed=number, mebibytes=2, changed=(1, 2)), f"new{number}")
    drop(folder, *(f"old{number}" for number in range(5)))
    monkeypatch.setattr("images.store.sweep.ROUND", 1)
    before, most = stored(folder), [0]

    class Watched(LocalBackend):
        def remove(self, name: str) -> None:
            most[0] = max(most[0], stored(folder))
            super().remove(name)

    with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "prune") as lock:
        result = prune(Repository(Watched(folder)), NONE, lock, sink=ignore)
    assert result.rewritten == 5
    assert most[0] <= before + result.room
    assert result.room < 2 * (1 << 20)
    sound(folder)
    for number in range(5):
        point = opened(folder).resolve(f"new{number}")
        assert restored(opened(folder), point) == (tmp_path / f"{number}b.img").read_bytes()


def test_many_small_indexes_become_one(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    for number in range(10):
        take(folder, noise_disk(tmp_path / "a.img", mebibytes=2, changed=(number,)), f"{number}")
    assert len(list((folder / "indexes").iterdir())) == 10
    known = _entries(folder)
    run(folder)
    assert len(list((folder / "indexes").iterdir())) == 1
    assert _entries(folder) == known
    sound(folder)


def _entries(folder: Path) -> set[tuple[bytes, bytes, int]]:
    """(id, pack, offset) of every entry, read as docs/image-format.md §6 has them."""
    found = set()
    for index in (folder / "indexes").iterdir():
        data = index.read_bytes()
        packs, entries = struct.unpack_from("<II", data, 24)
        ids = [data[64 + 24 * number : 80 + 24 * number] for number in range(packs)]
        for number in range(entries):
            at = 64 + 24 * packs + 1024 + 48 * number
            pack, offset = struct.unpack_from("<II", data, at + 32)
            found.add((data[at : at + 32], ids[pack], offset))
    return found


def test_the_command(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    take(folder, noise_disk(tmp_path / "b.img", seed=4), "b")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from rescue.cli.main import main; main()", *words, "--repo", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])

    before = stored(folder)
    assert call("forget", "a", "--prune").returncode == 0
    assert stored(folder) < 0.6 * before
    done = call("prune", "--json")
    assert (done.returncode, json.loads(done.stdout)["deleted"]) == (0, 0)
    assert call("prune", "--max-unused", "rubbish").returncode == 2
    with locked(LocalBackend(folder), LockKind.SHARED, "capture"):
        done = call("prune")
        assert done.returncode == 3
        assert "capture" in done.stderr
