"""The base: when one from the cache is taken, with nothing installed."""

import datetime
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from builder import rootfs
from builder.archive.mirror import Mirror, PackageSource
from builder.archive.origin import Origin
from builder.cache import Cache, open_cache
from builder.recipe.recipe import Recipe
from core.errors import LiferaftError, ProcessError
from core.events import ignore
from core.process import Result, SystemRunner

_HOST = "http://mirror.example/debian"


class _AskedError(Exception):
    """The key that a base was asked for by."""


class _Mmdebstrap:
    """Notes what mmdebstrap is told, and fails."""

    def __init__(self) -> None:
        self.argv: tuple[str, ...] = ()
        self.env: dict[str, str] = {}

    def run(self, argv: Sequence[str], *, env: dict[str, str] | None = None, **options: Any) -> Result:
        self.argv, self.env = tuple(argv), env or {}
        raise ProcessError(tuple(argv), 1, "E: no more")


def _told_mmdebstrap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> _Mmdebstrap:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(Origin, "packages", lambda *words: ("bash 5.2",))
    monkeypatch.setattr(rootfs, "stage_debs", lambda *words: None)
    when = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    origin = Origin(Mirror(_HOST, ""), "trixie", (PackageSource("http://m", "trixie", when, "0" * 64),))
    told = _Mmdebstrap()
    with open_cache(folder / "cache") as cache, pytest.raises(LiferaftError, match="no more"):
        rootfs.build_base(Recipe(), origin, cache, told, ignore)
    return told


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


@pytest.mark.parametrize("fails", [False, True])
def test_the_initrd_is_made_once_after_all_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The hook as mmdebstrap runs it, by sh with the new system's folder, with programs that note how they were called.

    That INITRD=No keeps the kernel's own hook from making one, and an update from making the first, is what
    /etc/kernel/postinst.d/initramfs-tools and update-initramfs of Debian 13 say.
    """
    told = _told_mmdebstrap(tmp_path, monkeypatch)
    assert told.env == {"INITRD": "No"}
    hooks = [word.partition("=")[2] for word in told.argv if word.startswith("--customize-hook=")]
    assert [number for number, hook in enumerate(hooks) if "update-initramfs" in hook] == [0]
    programs, notes = tmp_path / "programs", tmp_path / "notes"
    note = f'echo "${{0##*/}} $* INITRD=${{INITRD-unset}}" >>{notes}'
    bodies = {
        "chroot": 'shift\nexec "$@"',
        "update-initramfs": f"{note}\nexit {int(fails)}",
        "linux-version": '[ "$1" = sort ] && exec sort -V || printf "%s\\n" 6.12.9-x 6.12.10-x',
        "linux-update-symlinks": note,
    }
    programs.mkdir()
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    success = frozenset({1 if fails else 0})
    SystemRunner().run(["sh", "-c", hooks[0], "exec", str(tmp_path)], env=told.env, success=success)
    links = [
        f"linux-update-symlinks upgrade {version} /boot/vmlinuz-{version} INITRD=unset"
        for version in ("6.12.9-x", "6.12.10-x")
    ]
    assert notes.read_text().splitlines() == ["update-initramfs -c -k all INITRD=unset", *([] if fails else links)]


def test_a_system_without_an_initrd_for_its_kernel_is_no_base(tmp_path: Path) -> None:
    boot = tmp_path / "tree/boot"
    boot.mkdir(parents=True)
    for name in ("vmlinuz-6.12.9-x", "initrd.img-6.12.8-x"):
        (boot / name).touch()
    with pytest.raises(LiferaftError, match=r"initrd\.img-6\.12\.9-x is not in"):
        rootfs.take_boot_files(tmp_path / "tree", tmp_path, SystemRunner())
