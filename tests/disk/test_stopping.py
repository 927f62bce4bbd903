"""A signal while something is mounted, at its worst moments: nothing stays mounted, and no file of it is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flow.disks import MIB, need, run
from tests.flow.signals import signals_as_at_the_start

_ROOT = Path(__file__).parents[2]
_PROGRAM = """
import sys, time
from pathlib import Path
from core.process import SystemRunner
from core.stopping import stoppable
from restore.boot.mounts import mount, mount_point
try:
    with stoppable(), mount_point("liferaft-test-") as folder:
        with mount(sys.argv[1], folder, SystemRunner(), "--options", "loop"):
            Path("inside").touch()
            time.sleep(float(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
"""
#: Says that it is at work, and does it after a while.
_SLOW = """#!/bin/sh
touch {folder}/{name}-at-work
sleep 1
exec {real} "$@"
"""


@pytest.mark.parametrize(
    ("moment", "signals"),
    [
        ("mount-at-work", [signal.SIGTERM]),
        ("inside", [signal.SIGHUP]),
        ("umount-at-work", [signal.SIGTERM]),
        ("umount-at-work", [signal.SIGINT, signal.SIGINT]),
    ],
    ids=["mounting", "mounted", "unmounting", "unmounting, Ctrl-C twice"],
)
def test_what_is_mounted_is_let_go_whenever_the_signal_comes(
    moment: str, signals: list[signal.Signals], tmp_path: Path
) -> None:
    need("mke2fs", "debugfs", "mount", "losetup")
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    (tmp_path / "files").mkdir()
    (tmp_path / "files/precious").write_text("the only copy")
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(8 * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "files", image)
    (tmp_path / "bin").mkdir()
    for name in ("mount", "umount"):
        program = tmp_path / "bin" / name
        program.write_text(_SLOW.format(folder=tmp_path, name=name, real=shutil.which(name)))
        program.chmod(0o755)
    (tmp_path / "scratch").mkdir()
    seconds = "0" if moment.startswith("umount") else "60"
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(image), seconds],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(_ROOT),
            "TMPDIR": str(tmp_path / "scratch"),
        },
        preexec_fn=signals_as_at_the_start,
    ) as process:
        try:
            until = time.monotonic() + 60
            while not (tmp_path / moment).exists():
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.01)
            for number in signals:
                process.send_signal(number)
                time.sleep(0.05)
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert str(image) not in run("losetup", "--list", "--output", "BACK-FILE")
    assert list((tmp_path / "scratch").iterdir()) == []
    assert run("debugfs", "-R", "cat /precious", image) == "the only copy"
