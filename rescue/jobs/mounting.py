"""Mounting a filesystem that a person chose to be written, or making one writable that is mounted already, for as long
as something of ours is written there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from core.errors import DeviceError
from core.process import Runner
from core.stopping import lasting
from rescue.jobs.repositories import PLACE

_OPTIONS = "rw,nosuid,nodev,noexec"


@contextlib.contextmanager
def mounted_to_write(device: str, kind: str, purpose: str, runner: Runner) -> Iterator[Path]:
    """The folder where ``device`` is mounted. It is unmounted in the end, so that what was written is there.

    Args:
        kind: its filesystem, as mount(8) names it.
        purpose: a word for the name of the folder.

    Raises:
        ProcessError: it cannot be mounted, or not unmounted. DeviceError: there is no place for it.
    """
    folder = PLACE / str(os.getpid()) / f"{Path(device).name}-{purpose}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeviceError(f"{folder} cannot be made: {error.strerror}.") from None
    try:
        with lasting(
            lambda: runner.run(["mount", "-t", kind, "-o", _OPTIONS, device, str(folder)], timeout=60),
            lambda _: runner.run(["umount", str(folder)], timeout=120),
        ):
            yield folder
    finally:
        # Where it could not be unmounted, that has its own error.
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def writable_meanwhile(folder: Path, runner: Runner) -> Iterator[Path]:
    """A filesystem that is mounted read-only and in use, writable; read-only again in the end, and all of it written.

    Raises:
        ProcessError: the kernel does not allow one of the two.
    """
    with lasting(
        lambda: runner.run(["mount", "-o", "remount,rw", str(folder)], timeout=60),
        lambda _: runner.run(["mount", "-o", "remount,ro", str(folder)], timeout=120),
    ):
        yield folder
