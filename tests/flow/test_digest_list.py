"""Digest lists: a second capture without reading the repository, and what may be wrong with a list."""

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import blake3
import pytest

from core.errors import DamagedError, DeviceError, ExitCode, RefusedError, UsageError
from core.events import Event, ignore
from core.process import SystemRunner
from images.capture import CaptureResult, capture
from images.model.layout import DiskIdentity
from images.sources import open_source
from images.store import digest_list
from images.store.backend import FileStart, LocalBackend, NewFile
from images.store.check import Depth, check
from images.store.digest_list import check_replaceable, open_digest_list
from images.store.forget import forget
from images.store.locks import LockKind, locked
from images.store.prune import prune
from images.store.repository import Repository
from images.store.usage import Limit
from images.survey import survey_disk
from rescue.jobs.capture import capture_disks
from tests.flow.small import CHUNK, access, make, noise_disk, opened, restored

#: A disk of noise is captured whole, which is a warning.
WARNINGS = frozenset({ExitCode.WARNINGS})


class Watched(LocalBackend):
    """A folder that remembers which files are read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: list[str] = []

    def read(self, name: str, limit: int) -> bytes:
        self.names.append(name)
        return super().read(name, limit)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        self.names.append(name)
        return super().read_range(name, offset, length)

    def read_start(self, name: str, length: int) -> FileStart:
        self.names.append(name)
        return super().read_start(name, length)

    def content_read(self) -> list[str]:
        """Reads of indexes and packs, and with these of pages and chunks."""
        return [name for name in self.names if name.startswith(("indexes/", "packs/"))]


class Taken:
    """A capture with a list: its result, what it read and what it said."""

    def __init__(self, folder: Path, disk: Path, listed: Path | None, *, encrypted: bool = False) -> None:
        self.backend = Watched(folder)
        self.said: list[Event] = []
        self.result = self._take(disk, listed, encrypted)

    def _take(self, disk: Path, listed: Path | None, encrypted: bool) -> CaptureResult:
        repository = Repository(self.backend, access(encrypted=encrypted))
        with open_source(disk) as source:
            return capture(
                repository,
                (survey_disk(source, "disk0", DiskIdentity()),),
                name=disk.stem,
                origin="o",
                machine=None,
                tool="t",
                sink=self.said.append,
                threads=2,
                digest_list=listed,
            )

    def warnings(self) -> tuple[str, ...]:
        """Without the one that noise is captured whole."""
        return tuple(warning for warning in self.result.warnings if "captured whole" not in warning)

    def notices(self, *, warnings: bool) -> list[str]:
        return [event.message for event in self.said if event.warning is warnings and "digest list" in event.message]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return tmp_path / "disk.digests"


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize("entries, held", [(1 << 17, 48 << 20), (5, 0)], ids=["one-section", "many-sections"])
def test_what_did_not_change_needs_no_read_of_the_repository(
    tmp_path: Path, listed: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool, entries: int, held: int
) -> None:
    monkeypatch.setattr(digest_list, "SECTION_ENTRIES", entries)
    monkeypatch.setattr(digest_list, "HELD_LIMIT", held)
    repo, disk = make(tmp_path / "repo", encrypted=encrypted), noise_disk(tmp_path / "disk.img")
    first = Taken(repo, disk, listed, encrypted=encrypted)
    assert first.result.new_records > disk.stat().st_size // CHUNK - 16
    for _ in range(3):
        again = Taken(repo, disk, listed, encrypted=encrypted)
        assert again.backend.content_read() == []
        assert again.result.new_records == 0
        assert not again.warnings()
        assert restored(opened(repo, encrypted=encrypted), again.result.id) == disk.read_bytes()
    # The same without a list: the indexes are read, so that the counting above proves something.
    assert Taken(repo, disk, None, encrypted=encrypted).backend.content_read()


def test_one_changed_chunk_costs_the_indexes_once_and_no_chunk(tmp_path: Path, listed: Path) -> None:
    repo, disk = make(tmp_path / "repo"), tmp_path / "disk.img"
    Taken(repo, noise_disk(disk), listed)
    changed = Taken(repo, noise_disk(disk, changed=(7,)), listed)
    read = changed.backend.content_read()
    # Once for the first chunk that is not in the list, and once more when the new index is there.
    assert len(read) == 1 + 2
    assert all(name.startswith("indexes/") for name in read)
    assert changed.result.new_records == 2, "the chunk and its page"
    assert Taken(repo, disk, listed).backend.content_read() == []
    assert restored(opened(repo), changed.result.id) == disk.read_bytes()


def test_chunks_of_other_machines_are_shared(tmp_path: Path, listed: Path) -> None:
    repo = make(tmp_path / "repo")
    mine, other = tmp_path / "mine.img", noise_disk(tmp_path / "other.img", seed=2)
    Taken(repo, noise_disk(mine), listed)
    Taken(repo, other, None)
    content = bytearray(mine.read_bytes())
    content[-5 * CHUNK :] = other.read_bytes()[-5 * CHUNK :]
    mine.write_bytes(content)
    taken = Taken(repo, mine, listed)
    assert taken.result.new_records == 1, "a page; the chunks came with the other machine"
    assert restored(opened(repo), taken.result.id) == mine.read_bytes()
    assert Taken(repo, mine, listed).backend.content_read() == [], "the new list has the other machine's chunks"


def test_the_file_is_what_the_document_says(tmp_path: Path, listed: Path) -> None:
    """Read with nothing but docs/image-format.md §15 and §6."""
    repo, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img")
    taken = Taken(repo, disk, listed)
    data = listed.read_bytes()
    magic, version, repository, point, sections, files, size = struct.unpack_from("<4sI16s32sIIQ", data)
    assert (magic, version, size, sections, files) == (b"LRDL", 1, len(data), 1, 1)
    assert repository == opened(repo).id
    assert point.hex() == taken.result.id
    assert data[72:96] == bytes(24)
    file, length = struct.unpack_from("<16sQ", data, len(data) - 24)
    index = repo / "indexes" / f"{file.hex()}.index"
    assert index.stat().st_size == length
    section = data[128:-24]
    # A first capture into an empty repository: the list is the index.
    assert section == index.read_bytes()
    assert data[96:128] == blake3.blake3(data[:96] + section[-32:] + data[-24:]).digest()
    assert listed.stat().st_mode & 0o777 == 0o600


def test_any_damage_of_a_list_is_found(tmp_path: Path, listed: Path) -> None:
    repo, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img", mebibytes=2)
    Taken(repo, disk, listed)
    whole, repository = listed.read_bytes(), opened(repo).id
    # Every byte of the headers and of the last table; every seventh of what lies between.
    for at in (*range(300), *range(300, len(whole) - 24, 7), *range(len(whole) - 24, len(whole))):
        listed.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        _is_damaged(listed, repository)
    for size in (*range(1, 200), *range(200, len(whole), 97), len(whole) - 1):
        listed.write_bytes(whole[:size])
        _is_damaged(listed, repository)
    listed.write_bytes(whole + b"\0")
    _is_damaged(listed, repository)
    # Counts that nothing bears out are refused before anything is allocated for them.
    for offset in (56, 60, 128 + 24, 128 + 28):
        listed.write_bytes(whole[:offset] + b"\xff\xff\xff\xff" + whole[offset + 4 :])
        _is_damaged(listed, repository)
    listed.write_bytes(whole)
    with open_digest_list(listed, repository) as found:
        assert found is not None


def _is_damaged(path: Path, repository: bytes) -> None:
    with pytest.raises(DamagedError, match=path.name):
        with open_digest_list(path, repository):
            pass


def test_a_damaged_list_is_left_out_with_a_warning_and_replaced(tmp_path: Path, listed: Path) -> None:
    repo, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img")
    Taken(repo, disk, listed)
    data = bytearray(listed.read_bytes())
    data[1500] ^= 4
    listed.write_bytes(data)
    taken = Taken(repo, disk, listed)
    assert len(taken.notices(warnings=True)) == 1
    assert taken.warnings() == tuple(taken.notices(warnings=True))
    assert taken.backend.content_read()
    assert taken.result.new_records == 0
    assert Taken(repo, disk, listed).backend.content_read() == []


def test_a_list_of_another_repository_does_not_count(tmp_path: Path, listed: Path) -> None:
    disk = noise_disk(tmp_path / "disk.img")
    Taken(make(tmp_path / "one"), disk, listed)
    taken = Taken(make(tmp_path / "two"), disk, listed)
    assert any("repository" in warning for warning in taken.warnings())
    assert restored(opened(tmp_path / "two"), taken.result.id) == disk.read_bytes()


def _forget_and_prune(repo: Path, point: str) -> None:
    repository = opened(repo)
    with locked(LocalBackend(repo), LockKind.SHARED, "forget") as lock:
        forget(repository, (point,), lock)
    with locked(LocalBackend(repo), LockKind.EXCLUSIVE, "prune") as lock:
        prune(opened(repo), Limit(share=0), lock, sink=ignore)


def test_a_list_whose_recovery_point_is_gone_does_not_count(tmp_path: Path, listed: Path) -> None:
    repo, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img")
    first = Taken(repo, disk, listed)
    old = listed.read_bytes()
    _forget_and_prune(repo, first.result.id)
    assert not list((repo / "packs").rglob("*.pack"))
    taken = Taken(repo, disk, listed)
    assert len(taken.notices(warnings=False)) == 1
    assert "no longer in the repository" in taken.notices(warnings=False)[0]
    assert not taken.warnings(), "nothing is wrong: somebody has tidied up"
    assert restored(opened(repo), taken.result.id) == disk.read_bytes()
    # The same with a list that is older than the last capture.
    listed.write_bytes(old)
    assert restored(opened(repo), Taken(repo, disk, listed).result.id) == disk.read_bytes()


def test_a_list_whose_packs_prune_has_rewritten_does_not_count(tmp_path: Path, listed: Path) -> None:
    repo, disk = make(tmp_path / "repo"), tmp_path / "disk.img"
    first = Taken(repo, noise_disk(disk), None)
    second = Taken(repo, noise_disk(disk, changed=(1, 2, 3)), listed)
    _forget_and_prune(repo, first.result.id)
    taken = Taken(repo, disk, listed)
    assert any("no longer in the repository" in text for text in taken.notices(warnings=False))
    assert taken.result.new_records == 0
    for point in (second, taken):
        assert restored(opened(repo), point.result.id) == disk.read_bytes()
    assert Taken(repo, disk, listed).backend.content_read() == []


@pytest.mark.parametrize("harm", ["removed", "truncated"])
@pytest.mark.parametrize("folder", ["packs", "indexes"])
def test_a_list_that_promises_what_is_not_there_does_not_count(
    tmp_path: Path, listed: Path, folder: str, harm: str
) -> None:
    repo, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img")
    Taken(repo, disk, listed)
    (victim,) = (path for path in (repo / folder).rglob("*") if path.is_file())
    if harm == "removed":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-100])
    taken = Taken(repo, disk, listed)
    assert len(taken.notices(warnings=False)) == 1
    repository = opened(repo)
    # As the preflight of a restore does: of two places of a record the one that is there counts.
    repository.check_packs()
    assert restored(repository, taken.result.id) == disk.read_bytes()


def test_an_index_damaged_in_place_is_found_when_indexes_are_needed(tmp_path: Path, listed: Path) -> None:
    """Its size is right, so the list counts at first; there must not be a point whose chunks nobody finds."""
    repo, disk = make(tmp_path / "repo"), tmp_path / "disk.img"
    first = Taken(repo, noise_disk(disk), listed)
    old = listed.read_bytes()
    (index,) = (repo / "indexes").iterdir()
    data = bytearray(index.read_bytes())
    data[-40] ^= 1
    index.write_bytes(data)
    with pytest.raises(DamagedError, match="no sound index names packs") as caught:
        Taken(repo, noise_disk(disk, changed=(7,)), listed)
    assert "check --repair" in caught.value.hint
    assert [point.id for point in opened(repo).points()] == [first.result.id]
    assert listed.read_bytes() == old


def test_a_capture_that_fails_leaves_the_old_list(tmp_path: Path, listed: Path) -> None:
    class Broken(LocalBackend):
        @contextlib.contextmanager
        def create(self, name: str) -> Iterator[NewFile]:
            raise DeviceError("broken")
            yield

    repo, disk = make(tmp_path / "repo"), tmp_path / "disk.img"
    Taken(repo, noise_disk(disk), listed)
    old = listed.read_bytes()
    noise_disk(disk, changed=(7,))
    with open_source(disk) as source, pytest.raises(DeviceError, match="broken"):
        surveys = (survey_disk(source, "disk0", DiskIdentity()),)
        repository = Repository(Broken(repo))
        capture(repository, surveys, name="n", origin="o", machine=None, tool="t", sink=ignore, digest_list=listed)
    assert listed.read_bytes() == old
    assert not list(tmp_path.glob("*.partial"))


def test_a_list_that_cannot_be_written_is_a_warning(
    tmp_path: Path, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img")
    monkeypatch.setattr(digest_list.DigestRecorder, "_append", _no_room)
    taken = Taken(repo, disk, listed)
    assert len(taken.warnings()) == 1
    assert "No space left" in taken.warnings()[0]
    assert not listed.exists()
    assert not list(tmp_path.glob("*.partial"))
    assert restored(opened(repo), taken.result.id) == disk.read_bytes()


def test_what_a_killed_capture_left_is_removed_and_nothing_else(tmp_path: Path, listed: Path) -> None:
    repo, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img")
    dead, alive = (listed.with_name(f"{listed.name}.{name * 12}.partial") for name in "ab")
    others = [listed.with_name(name) for name in ("x.aaaaaaaaaaaa.partial", f"{listed.name}.partial", "disk.digests2")]
    for path in (dead, alive, *others):
        path.write_bytes(b"x")
    with alive.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        Taken(repo, disk, listed)
    assert not dead.exists()
    assert all(path.exists() for path in (alive, *others))
    assert listed.read_bytes()[:4] == b"LRDL"


def _no_room(*_: object) -> None:
    raise OSError(28, os.strerror(28))


def test_only_a_list_is_ever_replaced(tmp_path: Path) -> None:
    disk = noise_disk(tmp_path / "disk.img")
    before = disk.read_bytes()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for place, kind in ((disk, RefusedError), (fifo, RefusedError), (tmp_path, RefusedError)):
        with pytest.raises(kind, match=place.name):
            capture_disks(
                [disk], str(tmp_path / "repo"), name="", runner=SystemRunner(), sink=ignore, digest_list=place
            )
    with pytest.raises(UsageError, match="no folder"):
        check_replaceable(tmp_path / "missing" / "list")
    assert disk.read_bytes() == before
    assert not (tmp_path / "repo").exists(), "it is said before anything is made"
    empty = tmp_path / "empty"
    empty.touch()
    check_replaceable(empty)


def test_the_command_line_keeps_a_list(tmp_path: Path, listed: Path) -> None:
    disk = noise_disk(tmp_path / "disk.img")
    words = [str(Path(sys.executable).with_name("liferaft")), "capture", str(disk), "--repo", str(tmp_path / "repo")]
    runner = SystemRunner()
    for _ in range(2):
        assert "digest list" not in runner.run([*words, "--digest-list", str(listed)], success=WARNINGS).stderr
        assert listed.read_bytes()[:4] == b"LRDL"
    listed.write_bytes(listed.read_bytes()[:-1])
    done = runner.run([*words, "--digest-list", str(listed)], success=WARNINGS)
    assert "digest list is not used" in done.stderr
    repository = opened(tmp_path / "repo")
    assert len(repository.points()) == 3
    assert check(repository, Depth(data=True), sink=ignore).damages == ()
