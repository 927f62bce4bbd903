"""The base: when one from the cache is taken, with nothing installed."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import rootfs
from builder.archive.mirror import Mirror, PackageSource
from builder.archive.origin import Origin
from builder.cache import Cache, open_cache
from builder.recipe.recipe import Recipe
from core.events import ignore
from core.process import SystemRunner

_HOST = "http://mirror.example/debian"


class _AskedError(Exception):
    """The key that a base was asked for by."""


def _key(mirror: Mirror, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> str:
    def entry(kind: str, key: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        raise _AskedError(key)

    monkeypatch.setattr(Origin, "packages", lambda *words: ("bash 5.2",))
    monkeypatch.setattr(cache, "entry", entry)
    when = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    state = tuple(PackageSource("http://m", suite, when, "0" * 64) for _, suite in mirror.suites("trixie"))
    with pytest.raises(_AskedError) as asked:
        rootfs.build_base(Recipe(), Origin(mirror, "trixie", state), cache, SystemRunner(), ignore)
    return str(asked.value)


def test_a_base_is_taken_only_where_its_sources_list_would_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_cache(tmp_path) as cache:
        mirrors = (
            Mirror(_HOST, ""),
            Mirror("http://deb.debian.org/debian", ""),
            Mirror(_HOST, "http://mirror.example/debian-security"),
            Mirror(_HOST, "", dated=True),
        )
        keys = [_key(mirror, cache, monkeypatch) for mirror in mirrors]
        with_user = _key(Mirror("http://u:t0ken@mirror.example/debian", ""), cache, monkeypatch)
    assert len(set(keys)) == len(mirrors)
    # The user is taken out of the base's list: with another password it is the same base.
    assert with_user == keys[0]
