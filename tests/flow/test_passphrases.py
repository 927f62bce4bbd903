"""Passphrases: added, changed, removed without touching data; safe against a power cut; never shown."""

import fcntl
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import msgspec
import pytest

from core.errors import DamagedError, DeviceError, RefusedError, UsageError
from images.store import keys
from images.store.backend import LocalBackend
from images.store.catalogue import CATALOGUE
from images.store.connect import connect
from images.store.create import create_repository
from images.store.locks import LockedError, LockKind, locked
from images.store.passphrase import Passphrase, WrongPassphraseError
from images.store.writer import writable
from rescue.jobs.access import access_from
from rescue.jobs.keys import add_passphrase, change_passphrase, init_repository, list_keys, remove_passphrase
from rescue.jobs.points import list_points
from tests.flow.sealed import content
from tests.flow.servers import serving

OLD, NEW, THIRD = Passphrase("the old words"), Passphrase("the new words"), Passphrase("the third words")


def opens(repository: Path | str, passphrase: Passphrase) -> bool:
    try:
        list_points(str(repository), access_from(passphrase))
    except WrongPassphraseError:
        return False
    return True


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encrypted repository without a recovery point, and a file where a pack would be."""
    folder = tmp_path_factory.mktemp("empty") / "repo"
    init_repository(str(folder), passphrase=OLD)
    (folder / "packs" / "00").mkdir(parents=True)
    (folder / "packs" / "00" / f"{'0' * 32}.pack").write_bytes(os.urandom(1000))
    return folder


@pytest.fixture
def repo(empty: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty, tmp_path / "repo"))


def data_of(repository: Path) -> dict[str, bytes]:
    """Everything but key slots, and the catalogue, which names them."""
    found = content(repository)
    return {name: data for name, data in found.items() if not name.startswith("keys/") and name != CATALOGUE}


def test_a_changed_passphrase(repo: Path) -> None:
    before = data_of(repo)
    change_passphrase(str(repo), access_from(OLD), lambda: NEW)
    assert not opens(repo, OLD) and opens(repo, NEW)
    assert data_of(repo) == before
    assert [slot.label for slot in list_keys(str(repo))[0]] == ["first"], "the label goes with it"
    with serving(repo) as server:
        assert opens(server.url, NEW) and not opens(server.url, OLD)


def test_an_added_passphrase_and_a_removed_one(repo: Path) -> None:
    before = data_of(repo)
    added = add_passphrase(str(repo), access_from(OLD), lambda: NEW, "Bob")
    assert opens(repo, OLD) and opens(repo, NEW)
    slots, problems = list_keys(str(repo))
    assert {slot.label for slot in slots} == {"first", "Bob"} and problems == ()
    with serving(repo) as server:
        assert opens(server.url, NEW)
    with pytest.raises(RefusedError, match="opens only key slot"):
        remove_passphrase(str(repo), access_from(NEW), added[:8])
    assert remove_passphrase(str(repo), access_from(OLD), added[:8]) == added
    assert opens(repo, OLD) and not opens(repo, NEW)
    assert data_of(repo) == before


def test_the_last_one_stays(repo: Path) -> None:
    (slot,), _ = list_keys(str(repo))
    before = content(repo)
    with pytest.raises(RefusedError, match="opens only key slot"):
        remove_passphrase(str(repo), access_from(OLD), slot.id)
    for wrong in ("", slot.id[:3], "ffff" + slot.id[:4]):
        with pytest.raises(UsageError, match="No key slots begin with"):
            remove_passphrase(str(repo), access_from(OLD), wrong)
    assert content(repo) == before


def test_whoever_does_not_know_it_changes_nothing(repo: Path) -> None:
    (slot,), _ = list_keys(str(repo))
    before = content(repo)
    asked: list[str] = []

    def new() -> Passphrase:
        asked.append("")
        return NEW

    for act in (
        lambda: add_passphrase(str(repo), access_from(NEW), new, ""),
        lambda: change_passphrase(str(repo), access_from(NEW), new),
        lambda: remove_passphrase(str(repo), access_from(NEW), slot.id),
    ):
        with pytest.raises(WrongPassphraseError):
            act()
    assert content(repo) == before and asked == []


def test_the_same_passphrase_again_is_refused(repo: Path) -> None:
    before = content(repo)
    with pytest.raises(UsageError, match="is the old one"):
        change_passphrase(str(repo), access_from(OLD), lambda: OLD)
    with pytest.raises(RefusedError, match="opens the repository already"):
        add_passphrase(str(repo), access_from(OLD), lambda: OLD, "")
    assert content(repo) == before


def test_a_power_cut_at_any_write_of_a_change_leaves_a_way_in(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = 0
    for cut in range(20):
        repo = Path(shutil.copytree(empty, tmp_path / f"repo{cut}"))
        with monkeypatch.context() as patched:
            done = _cut_after(cut, patched)
            try:
                change_passphrase(str(repo), access_from(OLD), lambda: NEW)
            except DeviceError:
                cuts += 1
            writes = done[0]
        # The lock's owner is this process, which lives: in earnest it died with the power, and the lock with it.
        shutil.rmtree(repo / "locks", ignore_errors=True)
        assert opens(repo, OLD) or opens(repo, NEW), f"nobody gets in after write {cut}"
        with serving(repo) as server:
            assert opens(server.url, OLD) or opens(server.url, NEW), f"nobody gets in over HTTP after write {cut}"
        if opens(repo, OLD):
            change_passphrase(str(repo), access_from(OLD), lambda: NEW)
        assert not opens(repo, OLD) and opens(repo, NEW)
        assert len(list_keys(str(repo))[0]) == 1, "running it again finishes it, without a second slot"
        if writes < cut:
            break
    assert cuts == 5, "the lock, the new slot, the catalogue, the old slot's end, the catalogue"


def _cut_after(count: int, patched: pytest.MonkeyPatch) -> list[int]:
    """From the write with that number on, nothing reaches the disk."""
    done = [0]
    write, remove = LocalBackend.write, LocalBackend.remove

    def counted() -> None:
        if done[0] >= count:
            raise DeviceError("the power is gone")
        done[0] += 1

    def cut_write(self: LocalBackend, name: str, data: bytes) -> None:
        counted()
        write(self, name, data)

    def cut_remove(self: LocalBackend, name: str) -> None:
        counted()
        remove(self, name)

    patched.setattr(LocalBackend, "write", cut_write)
    patched.setattr(LocalBackend, "remove", cut_remove)
    return done


def test_a_slot_that_does_not_open_right_after_it_was_written_takes_nobodys_place(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = LocalBackend.write

    def rotten(self: LocalBackend, name: str, data: bytes) -> None:
        write(self, name, data.replace(b'"label":"first"', b'"label":"fjrst"'))

    before = content(repo)
    monkeypatch.setattr(LocalBackend, "write", rotten)
    with pytest.raises(DamagedError, match="does not open right after it was written"):
        change_passphrase(str(repo), access_from(OLD), lambda: NEW)
    assert content(repo) == before and opens(repo, OLD)


def test_a_slot_that_asks_for_too_much_work_is_not_tried(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = repo.glob("keys/*.json")
    slot = msgspec.json.decode(path.read_bytes())
    hungry = {**slot, "iterations": 64, "memory": 1 << 20}
    (repo / "keys" / f"{'0' * 32}.json").write_bytes(msgspec.json.encode(hungry))
    tried, stretch = list[int](), keys._stretch

    def spied(asked: keys.KeySlot, passphrase: Passphrase) -> bytes:
        tried.append(asked.iterations)
        return stretch(asked, passphrase)

    monkeypatch.setattr(keys, "_stretch", spied)
    assert opens(repo, OLD) and not opens(repo, NEW)
    assert tried == [slot["iterations"]] * 2
    assert "0000.json: argon2id with 64 iterations" in list_keys(str(repo))[1][0]
    # Each within its bound, and all together beyond theirs: 4 GiB of work each.
    for number in range(10):
        heavy = {**slot, "iterations": 64, "memory": 1 << 16}
        (repo / "keys" / f"{number:032x}.json").write_bytes(msgspec.json.encode(heavy))
    slots, problems = list_keys(str(repo))
    assert len(slots) == 4 and "more work than all key slots together may" in problems[0]


def test_two_people_cannot_take_away_each_others_passphrase(repo: Path) -> None:
    added = add_passphrase(str(repo), access_from(OLD), lambda: NEW, "")
    before = content(repo)
    with locked(writable(connect(str(repo))), LockKind.SHARED, "capture"):
        with pytest.raises(LockedError, match="is in use: capture"):
            remove_passphrase(str(repo), access_from(OLD), added)
    assert content(repo) == before


def test_a_plain_repository_has_no_passphrases(tmp_path: Path) -> None:
    init_repository(str(tmp_path / "plain"))
    for act in (
        lambda: list_keys(str(tmp_path / "plain")),
        lambda: add_passphrase(str(tmp_path / "plain"), access_from(OLD), lambda: NEW, ""),
        lambda: change_passphrase(str(tmp_path / "plain"), access_from(OLD), lambda: NEW),
    ):
        with pytest.raises(RefusedError, match="is not encrypted: it has no passphrases"):
            act()


def test_init_makes_what_was_asked_for_and_only_where_nothing_lies(tmp_path: Path) -> None:
    made = init_repository(str(tmp_path / "new"), parity_blocks=4, chunk_size=1 << 16)
    assert (made.encrypted, made.parity_blocks, made.chunk_size) == (False, 4, 65536)
    with pytest.raises(RefusedError, match="is a repository already"):
        init_repository(str(tmp_path / "new"), passphrase=OLD)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(RefusedError, match="is not empty: it holds file"):
        init_repository(str(tmp_path / "full"), passphrase=OLD)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_an_init_that_was_cut_off_leaves_no_slot_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = writable(connect(str(tmp_path / "repo")))
    with monkeypatch.context() as patched, pytest.raises(DeviceError):
        patched.setattr(LocalBackend, "write_new", _no_power)
        create_repository(backend, passphrase=OLD)
    assert len(list((tmp_path / "repo" / "keys").iterdir())) == 1
    assert create_repository(backend, passphrase=NEW)
    assert len(list_keys(str(tmp_path / "repo"))[0]) == 1
    assert opens(tmp_path / "repo", NEW) and not opens(tmp_path / "repo", OLD)


def _no_power(self: LocalBackend, name: str, content: bytes) -> bool:
    raise DeviceError("the power is gone")


def test_two_inits_at_one_moment_make_one_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_new = LocalBackend.write_new

    def late(self: LocalBackend, name: str, content: bytes) -> bool:
        monkeypatch.setattr(LocalBackend, "write_new", write_new)
        init_repository(str(tmp_path / "repo"), passphrase=THIRD)
        return write_new(self, name, content)

    monkeypatch.setattr(LocalBackend, "write_new", late)
    with pytest.raises(RefusedError, match="Somebody else made a repository"):
        init_repository(str(tmp_path / "repo"), passphrase=OLD)
    assert opens(tmp_path / "repo", THIRD) and not opens(tmp_path / "repo", OLD)
    assert len(list_keys(str(tmp_path / "repo"))[0]) == 1


MAIN = [sys.executable, "-c", "from rescue.cli.main import main; main()"]


class Terminal:
    """A program on a terminal of its own: what it prints, and keys for it."""

    def __init__(self, *words: str) -> None:
        self._master, slave = pty.openpty()
        self._program = subprocess.Popen(
            [*MAIN, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""

    def see(self, text: str) -> None:
        """Read on until it has been printed."""
        start = len(self.seen)
        while text not in self.seen[start:]:
            assert self._read(), f"not seen: {text}\n{self.seen}"

    def type(self, text: str) -> None:
        os.write(self._master, f"{text}\n".encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        os.close(self._master)
        return self._program.wait(30)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 30)
        try:
            data = os.read(self._master, 4096) if ready else b""
        except OSError:  # Linux says so when the last one who had the terminal is gone
            data = b""
        self.seen += data.decode()
        return bool(data)


def test_a_person_types_passphrases_on_a_terminal(tmp_path: Path) -> None:
    repo = str(tmp_path / "repo")
    terminal = Terminal("init", repo, "--encrypt")
    terminal.see("New passphrase: ")
    terminal.type("sesame")
    terminal.see("The same again: ")
    terminal.type("sesame")
    assert terminal.end() == 0, terminal.seen
    assert "That is short" in terminal.seen and "sesame" not in terminal.seen

    terminal = Terminal("snapshots", "--repo", repo)
    terminal.see("Passphrase: ")
    terminal.type("Sesame")
    assert terminal.end() == 3
    assert "opens none of the key slots" in terminal.seen and "esame" not in terminal.seen

    terminal = Terminal("--debug", "key", "change", repo)
    terminal.see("Passphrase: ")
    terminal.type("sesame")
    terminal.see("New passphrase: ")
    terminal.type("five words that nobody guesses")
    terminal.see("The same again: ")
    terminal.type("five words that nobody gueses")
    assert terminal.end() == 2
    assert "The two passphrases differ" in terminal.seen
    assert "sesame" not in terminal.seen and "nobody" not in terminal.seen, "not in the traceback either"
    assert opens(repo, Passphrase("sesame"))
