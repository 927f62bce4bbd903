"""Stopping a build, and killing it: nothing that it has started goes on, and the next build finds a clean cache."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.cache import open_cache
from builder.namespace import root_prefix
from core.process import SystemRunner
from tests.flow.disks import need
from tests.flow.signals import WAYS, Command

#: A build in a world without network: nothing is fetched, and mmdebstrap has nothing to install.
_OFFLINE = """
import datetime
import builder.medium, builder.rootfs, builder.wheels
from builder.archive.mirror import Mirror, PackageSource
from builder.archive.origin import Origin
source = PackageSource("http://m", "trixie", datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC), "0" * 64)
builder.medium.find_origin = lambda *words, **options: Origin(Mirror("http://m", ""), "trixie", (source,))
Origin.packages = lambda *words: ("bash 5",)
builder.rootfs.stage_debs = builder.wheels.stage_debs = lambda wanted, origin, folder, *words: folder.mkdir()
"""
#: mmdebstrap itself, in its namespaces, with a hook in the place of packages' installation.
_MMDEBSTRAP = """#!/bin/sh
for word; do tree=$last; last=$word; done
exec {real} --mode=unshare --variant=custom --skip=update,cleanup,check \
  --setup-hook='mkdir -p "$1/usr/many"; seq 500 | (cd "$1/usr/many" && xargs touch); mktemp {marks}/XXXXXX; sleep 300' \
  trixie "$tree" -
"""
#: What the kernel calls root where a user builds: root of a user namespace, by the words of builder.namespace but the
#: further ids, which nobody need have granted to root.
_ROOTS = {"root": (), "root of a namespace": ("unshare", "--user", "--map-root-user", "--mount", "--")}


def _at_work(folder: Path, start: Callable[..., Command], launcher: tuple[str, ...] = ()) -> Command:
    """A build with two of them at work, as in every build of a base: the medium's system and the build system."""
    need("mmdebstrap", "unshare")
    if os.geteuid() != 0:
        words, reason = root_prefix(SystemRunner())
        if not words:
            pytest.skip(reason)
    if launcher and subprocess.run([*launcher, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"this kernel does not let us: {' '.join(launcher)}")
    (folder / "marks").mkdir()
    program = folder / "mmdebstrap"
    program.write_text(_MMDEBSTRAP.format(real=shutil.which("mmdebstrap"), marks=folder / "marks"))
    program.chmod(0o755)
    command = start("build", "-o", "x.iso", "--cache", "cache", slow=_OFFLINE, launcher=launcher)
    command.until(lambda: len(list((folder / "marks").iterdir())) == 2)
    return command


def test_a_build_that_is_stopped_leaves_nothing_in_its_cache(tmp_path: Path, start: Callable[..., Command]) -> None:
    command = _at_work(tmp_path, start)
    command.stop(*WAYS["timeout"])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]
    assert list(tmp_path.glob("x.iso*")) == []


@pytest.mark.parametrize("who", _ROOTS)
def test_a_build_that_is_killed_takes_all_that_it_has_started_with_it(
    who: str, tmp_path: Path, start: Callable[..., Command]
) -> None:
    command = _at_work(tmp_path, start, _ROOTS[who])
    assert len(command.programs()) > 6
    command.process.kill()
    command.process.wait()
    until = time.monotonic() + 20
    while left := command.programs():
        assert time.monotonic() < until, left
        time.sleep(0.05)
    # The trees that it had begun are the next build's to clear, and nothing holds them.
    assert list((tmp_path / "cache").glob("*.partial"))
    with open_cache(tmp_path / "cache"):
        assert not list((tmp_path / "cache").glob("*.partial"))
    assert list(tmp_path.glob("x.iso*")) == []
