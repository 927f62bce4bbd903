"""The build cache: whole or not there, keyed by content, made by one build at a time."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cache import KEPT, default_cache, key_of, open_cache
from core.errors import DeviceError


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


def test_old_entries_go_recent_ones_stay(tmp_path: Path) -> None:
    with open_cache(tmp_path) as cache:
        for number in range(KEPT + 2):
            folder, _ = cache.entry("base", str(number), lambda folder: None)
            os.utime(folder, (number, number))
        cache.entry("other", "0", lambda folder: None)
    kept = sorted(path.name for path in tmp_path.glob("base-*"))
    assert len(kept) <= KEPT and f"base-{KEPT + 1}" in kept
    assert (tmp_path / "other-0").is_dir()


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_cache() == Path("/x/liferaft")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative-is-ignored-by-the-specification")
    assert default_cache() == Path.home() / ".cache" / "liferaft"


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be written"):
        with open_cache(tmp_path / "file" / "cache"):
            pass
