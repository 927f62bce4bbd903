"""Debian's packages kept between builds: taken only when they are what the archive's lists name."""

import datetime
import hashlib
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from builder.archive.debs import debs_word, stage_debs
from builder.archive.mirror import Mirror, PackageSource
from builder.archive.origin import Origin
from builder.cache import Cache, open_cache
from core.errors import DamagedError, ProcessError, UnreachableError
from core.events import Event
from core.process import Result, SystemRunner

_WHEN = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
_ORIGIN = Origin(
    Mirror("http://m/debian", ""), "trixie", (PackageSource("http://m/debian", "trixie", _WHEN, "0" * 64),)
)
#: apt quotes the colon of an epoch in a file's name, and a plus in its address only (recorded: apt 2.6, Debian 13).
_FILES = {"libc6_2.41-12+deb13u4_amd64.deb": b"a library", "bsdutils_1%3a2.41.5-0+deb13u1_amd64.deb": b"tools"}
_NAMES = ["bsdutils=1:2.41.5-0+deb13u1", "libc6=2.41-12+deb13u4"]


class _Apt:
    """apt-get with an archive of :data:`_FILES`; ``damaged`` is what it fetches in the place of every package."""

    def __init__(self, damaged: bytes | None = None, *, away: bool = False) -> None:
        self.fetched: list[str] = []
        self.said: list[tuple[str, ...]] = []
        self._damaged = damaged
        self._away = away

    def run(self, argv: Sequence[str], *, cwd: str | None = None, **options: Any) -> Result:
        self.said.append(tuple(argv))
        if "--print-uris" in argv:
            lines = [
                f"'http://m/pool/{name.replace('+', '%2b')}' {name} {len(content)} "
                f"SHA256:{hashlib.sha256(content).hexdigest()}"
                for name, content in _FILES.items()
            ]
            # Without a digest, or with another one: apt fetches these itself.
            lines.append("'http://m/pool/old_1_all.deb' old_1_all.deb 3 MD5Sum:900150983cd24fb0d6963f7d28e17f72")
            return Result(0, "\n".join(lines) + "\n", "")
        if "download" in argv:
            if self._away:
                raise ProcessError(tuple(argv), 100, "E: Failed to fetch http://m/x  Connection refused")
            assert cwd is not None
            wanted = argv[argv.index("download") + 1 :]
            self.fetched += wanted
            for name, content in _FILES.items():
                package, version, _ = name.split("_")
                if f"{package}={version.replace('%3a', ':')}" in wanted:
                    (Path(cwd) / name).write_bytes(content if self._damaged is None else self._damaged)
        return Result(0, "", "")


def _stage(cache: Cache, folder: Path, apt: _Apt) -> tuple[dict[str, bytes], list[str]]:
    """What is in ``folder`` then, and what was told."""
    told: list[Event] = []
    stage_debs(("bash",), _ORIGIN, folder, cache, apt, told.append)
    return {path.name: path.read_bytes() for path in folder.iterdir()}, [event.message for event in told]


def test_packages_are_fetched_once_and_kept_by_their_digest(tmp_path: Path) -> None:
    first, second = _Apt(), _Apt()
    with open_cache(tmp_path / "cache") as cache:
        assert _stage(cache, tmp_path / "one", first)[0] == _FILES
        assert _stage(cache, tmp_path / "two", second)[0] == _FILES
    assert sorted(first.fetched) == _NAMES
    assert second.fetched == []
    kept = {path.name: path.read_bytes() for path in (tmp_path / "cache/debs").iterdir()}
    assert kept == {hashlib.sha256(content).hexdigest(): content for content in _FILES.values()}


def test_a_kept_package_that_changed_is_fetched_again_and_that_is_said(tmp_path: Path) -> None:
    kept = tmp_path / "cache/debs" / hashlib.sha256(b"tools").hexdigest()
    with open_cache(tmp_path / "cache") as cache:
        _stage(cache, tmp_path / "one", _Apt())
        # The same size: apt would take it.
        kept.write_bytes(b"t00ls")
        apt = _Apt()
        found, told = _stage(cache, tmp_path / "two", apt)
    assert found == _FILES and apt.fetched == _NAMES[:1]
    assert kept.read_bytes() == b"tools"
    assert sum(str(kept) in line and "bsdutils" in line and "another SHA-256" in line for line in told) == 1


def test_what_apt_fetched_is_compared_before_it_is_kept(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache") as cache, pytest.raises(DamagedError) as caught:
        _stage(cache, tmp_path / "one", _Apt(b"else"))
    for part in ("libc6_2.41", hashlib.sha256(b"a library").hexdigest(), hashlib.sha256(b"else").hexdigest()):
        assert part in caught.value.message
    assert list((tmp_path / "cache/debs").iterdir()) == []


def test_a_mirror_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache") as cache, pytest.raises(UnreachableError, match="Connection refused"):
        _stage(cache, tmp_path / "one", _Apt(away=True))


def test_what_no_build_took_for_long_goes(tmp_path: Path) -> None:
    store = tmp_path / "cache/debs"
    with open_cache(tmp_path / "cache") as cache:
        _stage(cache, tmp_path / "one", _Apt())
        long_ago = time.time() - 31 * 86400
        for name in ("unused", hashlib.sha256(b"tools").hexdigest()):
            (store / name).touch()
            os.utime(store / name, (long_ago, long_ago))
        (store / "recent").touch()
        _stage(cache, tmp_path / "two", _Apt())
    names = {path.name for path in store.iterdir()}
    assert names == {"recent", *(hashlib.sha256(content).hexdigest() for content in _FILES.values())}


class _SlowApt(_Apt):
    """Its fetching takes until ``other`` knows what it would need, and a moment longer."""

    def __init__(self, knows: threading.Event, other: threading.Event) -> None:
        super().__init__()
        self._knows, self._other = knows, other

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        done = super().run(argv, **options)
        if "--print-uris" in argv:
            self._knows.set()
        if "download" in argv:
            assert self._other.wait(60)
            # Longer makes it only surer that fetching twice is seen.
            time.sleep(0.5)
        return done


def test_what_both_parts_of_a_build_need_is_fetched_once(tmp_path: Path) -> None:
    events = threading.Event(), threading.Event()
    apts = _SlowApt(*events), _SlowApt(*reversed(events))
    with open_cache(tmp_path / "cache") as cache, ThreadPoolExecutor(2) as both:
        ended = [both.submit(_stage, cache, tmp_path / str(at), apt) for at, apt in enumerate(apts)]
        assert [end.result(120)[0] for end in ended] == [_FILES, _FILES]
    assert sorted(apts[0].fetched + apts[1].fetched) == _NAMES


def test_two_parts_of_a_build_forget_at_once(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache") as cache, ThreadPoolExecutor(2) as both:
        _stage(cache, tmp_path / "first", _Apt())
        store = tmp_path / "cache/debs"
        for number in range(3000):
            (store / f"unused{number}").touch()
            os.utime(store / f"unused{number}", (0, 0))
        ended = [both.submit(_stage, cache, tmp_path / str(at), _Apt()) for at in range(2)]
        assert [end.result(120)[0] for end in ended] == [_FILES, _FILES]
    assert len(list(store.iterdir())) == len(_FILES)


def test_mmdebstraps_hook_moves_the_files_where_apt_looks(tmp_path: Path) -> None:
    """As mmdebstrap runs a hook: by sh, with the new system's folder as its argument (mmdebstrap(1), HOOKS)."""
    folder, tree = tmp_path / "it's a folder", tmp_path / "tree"
    folder.mkdir()
    tree.mkdir()
    script = debs_word(folder).removeprefix("--setup-hook=")
    for name in ("", "bash_5_amd64.deb"):
        if name:
            (folder / name).touch()
        SystemRunner().run(["sh", "-c", script, "exec", str(tree)])
        assert [path.name for path in (tree / "var/cache/apt/archives").iterdir()] == [name] * bool(name)
    assert list(folder.iterdir()) == []
