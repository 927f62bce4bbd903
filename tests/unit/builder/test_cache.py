"""The build cache: whole or not there, keyed by content, used by several builds at once."""

import concurrent.futures
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cache import KEPT, KEPT_OF, default_cache, key_of, open_cache
from core.errors import DeviceError, ProcessError


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_keys_are_equal_only_for_equal_parts(one: list[str], other: list[str]) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    with open_cache(tmp_path / "cache") as cache:
        first, reused = cache.entry("base", "k1", make)
        assert not reused
        again, reused = cache.entry("base", "k1", make)
    assert reused and again == first and len(made) == 1
    assert (first / "file").read_text() == "content"


def test_a_failed_entry_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with open_cache(tmp_path) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.entry("base", "k1", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_what_a_killed_build_left_goes_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "base-x.partial" / "content").mkdir(parents=True)
    with open_cache(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize(("kind", "most"), [("layer", KEPT), ("base", KEPT_OF["base"])])
def test_old_entries_go_recent_ones_stay(tmp_path: Path, kind: str, most: int) -> None:
    for number in range(most + 2):
        with open_cache(tmp_path) as cache:
            folder, _ = cache.entry(kind, str(number), lambda folder: None)
            os.utime(folder, (number, number))
            cache.entry("other", "0", lambda folder: None)
    kept = {path.name for path in tmp_path.glob(f"{kind}-*")}
    assert kept == {f"{kind}-{number}" for number in range(2, most + 2)}
    assert (tmp_path / "other-0").is_dir()


def test_entries_of_a_relative_cache_have_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[Path] = []
    with open_cache(Path("one/cache")) as cache:
        entry, _ = cache.entry("base", "k1", made.append)
    assert entry.parent == tmp_path / "one/cache"
    assert made[0].is_relative_to(tmp_path / "one/cache")


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_cache() == Path("/x/liferaft")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative-is-ignored-by-the-specification")
    assert default_cache() == Path.home() / ".cache" / "liferaft"


def test_a_default_cache_of_another_user_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """chmod(2): EPERM where the caller does not own the file; the folder may be writable all the same."""

    chmod = Path.chmod

    def refuse(path: Path, mode: int) -> None:
        if path == default_cache():
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        chmod(path, mode)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    default_cache().mkdir(mode=0o770)
    owner = default_cache().stat().st_uid
    with monkeypatch.context() as another:
        another.setattr("os.geteuid", lambda: owner + 1)
        another.setattr(Path, "chmod", refuse)
        with open_cache(default_cache()) as cache:
            cache.entry("base", "k1", lambda folder: None)
    with open_cache(default_cache()):
        assert default_cache().stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be written"):
        with open_cache(tmp_path / "file" / "cache"):
            pass


def test_what_another_build_uses_is_not_forgotten(tmp_path: Path) -> None:
    with open_cache(tmp_path) as using:
        used, _ = using.entry("base", "used", lambda folder: None)
        os.utime(used, (0, 0))
        for number in range(KEPT_OF["base"] + 2):
            with open_cache(tmp_path) as cache:
                cache.entry("base", str(number), lambda folder: None)
        assert used.is_dir()
    with open_cache(tmp_path) as cache:
        cache.entry("base", "last", lambda folder: None)
    assert not used.is_dir()


def test_two_builds_make_an_entry_once_and_different_ones_at_the_same_time(tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=60)
    made: list[str] = []

    def meet(folder: Path) -> None:
        meeting.wait()

    def build(own: str) -> None:
        def make(folder: Path) -> None:
            time.sleep(0.2)
            made.append(own)

        with open_cache(tmp_path) as cache:
            # Both are inside at once, or the barrier breaks.
            cache.entry("own", own, meet)
            cache.entry("shared", "k", make)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(build, own) for own in ("a", "b")]:
            future.result(30)
    assert len(made) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "own-a", "own-b", "shared-k"]


_KILLED = """
import sys, time
from pathlib import Path
from builder.cache import open_cache

def make(folder):
    (folder / "half").write_text("half")
    print("inside", flush=True)
    time.sleep(60)

with open_cache(Path(sys.argv[1])) as cache:
    cache.entry("base", "k", make)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_ended_leaves_nothing_and_nobody_waits_for_it(tmp_path: Path, end: signal.Signals) -> None:
    # This is about a process that dies: only a real one does.
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], stdout=-1, stderr=-3, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "inside\n"
        with open_cache(tmp_path):
            # It is alive: another build does not take its work away.
            assert len(list(tmp_path.glob("*.partial"))) == 1
        process.send_signal(end)
        process.wait(60)
    with open_cache(tmp_path) as cache:
        assert list(tmp_path.glob("*.partial")) == []
        assert not cache.entry("base", "k", lambda folder: None)[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base-k", "lock"]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(folder: Path) -> None:
        raise ProcessError(("mksquashfs",), 1, "Write failed because No space left on device\n")

    for make in (fill, fail):
        with pytest.raises(DeviceError, match="No space is left") as caught:
            with open_cache(tmp_path) as cache:
                cache.entry("base", "k", make)
        assert str(tmp_path) in caught.value.message and "--cache" in caught.value.hint
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
