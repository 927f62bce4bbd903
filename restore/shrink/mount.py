"""An overlay as a plain file, so that a filesystem's own tools can work on it: through FUSE, in a thread of ours.

Our own process never opens that file: who waits for the kernel while holding Python's lock cannot answer it. Only
this module knows libfuse.
"""

import contextlib
import errno
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from core.errors import DamagedError, LiferaftError, MissingToolError, ProcessError, RefusedError
from core.process import Runner
from core.stopping import undisturbed
from images.overlay import Overlay, ScratchFullError
from images.store.backend import Heard, deaf
from restore.shrink.leftovers import FSNAME, PREFIX, end_dead_mounts

TOOLS = ("fusermount3",)
#: The one file in the mounted folder.
_NAME = "volume"
_PATIENCE = 20.0
_DEVICE = Path("/dev/fuse")


def obstacle() -> str:
    """Why no overlay can be shown as a file on this machine; empty when one can."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return f"{_DEVICE} is missing or may not be opened: making a filesystem smaller needs FUSE"
    try:
        _binding()
    except MissingToolError as error:
        return error.message.rstrip(".")
    return ""


@contextlib.contextmanager
def mounted_overlay(overlay: Overlay, runner: Runner, heard: Heard = deaf) -> Iterator[Path]:
    """A path under which other programs find the overlay as a file that they can read, write and truncate.

    Args:
        heard: takes the bytes that they read and write, as they do.

    Raises:
        MissingToolError: libfuse is not installed. RefusedError: the kernel does not mount it.
        LiferaftError: what the overlay met while programs worked on it, instead of what they said of it.
    """
    fuse = _binding()
    end_dead_mounts(runner)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        failures: list[BaseException] = []
        thread = threading.Thread(
            target=_serve, args=(fuse, _Operations(overlay, heard), folder, failures), name="fuse", daemon=True
        )
        thread.start()
        try:
            _wait(folder, thread, failures)
            yield Path(folder) / _NAME
        except ProcessError as error:
            raise overlay.failure or error from None
        finally:
            with undisturbed():
                _end(folder, thread, runner)
    if overlay.failure is not None:
        raise overlay.failure


def _binding() -> ModuleType:
    """mfusepy. Importing it loads libfuse, which whoever shrinks nothing need not have.

    Raises:
        MissingToolError: there is no libfuse.
    """
    # Where libfuse 2 is installed too, mfusepy would take that, whose requests are small.
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    try:
        import mfusepy
    except (ImportError, OSError, AttributeError):
        raise MissingToolError(
            "libfuse 3 is not installed: making a filesystem smaller needs it.", hint="On Debian: apt-get install fuse3"
        ) from None
    found: ModuleType = mfusepy
    return found


def _serve(fuse: ModuleType, operations: "_Operations", folder: str, failures: list[BaseException]) -> None:
    """Answer the kernel until the folder is unmounted."""
    try:
        # One thread: requests of one tool come one after the other, and Python would run one at a time anyway.
        fuse.FUSE(operations, folder, foreground=True, nothreads=True, fsname=FSNAME)
    except BaseException as error:  # noqa: BLE001 - it is raised again where the mount is waited for
        failures.append(error)


def _wait(folder: str, thread: threading.Thread, failures: list[BaseException]) -> None:
    """Until the folder is mounted.

    Raises:
        RefusedError: it never was.
    """
    until = time.monotonic() + _PATIENCE
    while not os.path.ismount(folder):
        if not thread.is_alive() or time.monotonic() > until:
            why = f": {failures[0]}" if failures else ""
            raise RefusedError(
                f"The overlay could not be mounted with FUSE{why}.", hint="It needs root, or fusermount3 of fuse3."
            )
        time.sleep(0.01)


def _end(folder: str, thread: threading.Thread, runner: Runner) -> None:
    """Unmount, whoever still has it open, and wait for the thread."""
    if os.path.ismount(folder):
        try:
            runner.run(["fusermount3", "-u", folder], timeout=60)
        except ProcessError:
            runner.run(["fusermount3", "-u", "-z", folder], timeout=60)
    thread.join(_PATIENCE)


class _Operations:
    """What libfuse asks of a folder with one file. Offsets and sizes in bytes; errors as OSError."""

    use_ns = True

    def __init__(self, overlay: Overlay, heard: Heard) -> None:
        self._overlay = overlay
        self._heard = heard
        self._owner = {"st_uid": os.geteuid(), "st_gid": os.getegid(), "st_nlink": 1}

    def getattr(self, path: str, handle: int | None = None) -> dict[str, Any]:
        """The folder, or the file."""
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, **self._owner}
        self._known(path)
        blocks = -(-self._overlay.size // 512)
        return {"st_mode": stat.S_IFREG | 0o600, "st_size": self._overlay.size, "st_blocks": blocks, **self._owner}

    def readdir(self, path: str, handle: int) -> list[str]:
        """The one name."""
        return [".", "..", _NAME]

    def open(self, path: str, flags: int) -> int:
        """Any number of times."""
        self._known(path)
        return 0

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        """What there is of a range."""
        with _as_numbers():
            data = self._overlay.read_at(offset, max(min(size, self._overlay.size - offset), 0))
        self._heard(len(data))
        return data

    def write(self, path: str, data: bytes, offset: int, handle: int) -> int:
        """A write behind the end makes the file longer, as far as its source reaches."""
        with _as_numbers():
            if offset + len(data) > self._overlay.size:
                self._overlay.resize(offset + len(data))
            self._overlay.write_at(offset, data)
        self._heard(len(data))
        return len(data)

    def truncate(self, path: str, length: int, handle: int | None = None) -> int:
        """Cut, or make longer."""
        self._known(path)
        with _as_numbers():
            self._overlay.resize(length)
        return 0

    def fsync(self, path: str, datasync: int, handle: int) -> int:
        """Nothing to do: scratch does not outlive the process."""
        return 0

    def _known(self, path: str) -> None:
        if path != f"/{_NAME}":
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


@contextlib.contextmanager
def _as_numbers() -> Iterator[None]:
    """Our errors as the kernel's: the sentence itself waits in ``Overlay.failure``."""
    try:
        yield
    except ScratchFullError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
    except DamagedError:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from None
    except LiferaftError:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from None
