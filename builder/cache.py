"""The build cache: what was built from the same inputs is not built again.

An entry is a folder named by its kind and by a digest of everything it was made from. It is either whole
or not there: it is made in a ``.partial`` folder and renamed. Several builds may use the cache at once: who makes an
entry holds its lock (another build that wants the same one waits and takes it), who uses one keeps it from being
forgotten. All locks are the kernel's, so a killed build holds none, and what it left half done goes at the next start.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from builder.beside import is_unwanted
from core.errors import DeviceError, ProcessError, StoppedError
from core.files import write_atomically
from core.stopping import is_stopping
from core.units import format_size

#: Old entries kept per kind, so that going back to an earlier recipe costs nothing.
KEPT = 3
#: Of bases more: each of Debian's kernels and each architecture has its own, and making one takes minutes or, where the
#: processor is emulated, an hour.
KEPT_OF = {"base": 6}
#: What programs print when a disk is full: strerror(ENOSPC).
_FULL = os.strerror(errno.ENOSPC)
#: Seconds between two tries to get what another build holds.
_LOOK = 0.2


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/liferaft``, or ``~/.cache/liferaft``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "liferaft"


def key_of(parts: Iterable[str | bytes]) -> str:
    """A digest of ``parts`` and of where each ends; equal inputs give equal keys."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:32]


class Cache:
    """A folder of entries; made by :func:`open_cache`."""

    def __init__(self, root: Path, held: contextlib.ExitStack) -> None:
        self._root = root
        self._held = held

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """The folder of an entry, and whether it was there already. It stays until the cache is closed.

        Args:
            make: fills the empty folder it is given; when it raises, nothing stays.
        """
        final = self._root / f"{kind}-{key}"
        if self._keep(final):
            return final, True
        with self.alone(final.name):
            # Another build may have made it while this one waited.
            if self._keep(final):
                return final, True
            with self.scratch(kind) as partial:
                content = partial / "content"
                content.mkdir()
                make(content)
                content.rename(final)
            self._keep(final)
        self._forget(kind)
        return final, False

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Be the only build that works on ``name``; waits for another one.

        Raises:
            StoppedError: the program was told to stop meanwhile, or the build failed elsewhere.
        """
        path = self._root / f"{name}.lock"
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _wait_for(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            # The one who held it has removed the file: whoever comes next opens another.
            if _is_at(descriptor, path):
                break
            os.close(descriptor)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def folder(self, name: str) -> Path:
        """A folder that is no entry: several builds add files to it and drop them, each whole or not there."""
        folder = self._root / name
        folder.mkdir(exist_ok=True)
        return folder

    def remember(self, name: str, content: bytes) -> None:
        """Keep a small file that may change: what was known the last time."""
        write_atomically(self._root / name, content)

    def recall(self, name: str) -> bytes | None:
        """What :meth:`remember` kept under ``name``; None when nothing was."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def scratch(self, kind: str) -> Iterator[Path]:
        """A folder that is gone afterwards, whatever happened."""
        with contextlib.ExitStack() as stack:
            with _moment(self._root):
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(dir=self._root, prefix=f"{kind}-", suffix=".partial")
                )
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            Path(folder).chmod(0o755)
            yield Path(folder)

    def _keep(self, final: Path) -> bool:
        """Hold an entry so that no build forgets it; False when it is not there."""
        try:
            descriptor = os.open(final, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _is_at(descriptor, final):
            os.close(descriptor)
            return False
        self._held.callback(os.close, descriptor)
        os.utime(final)
        return True

    def _forget(self, kind: str) -> None:
        """Remove the oldest entries of a kind, but none that a build uses."""
        entries: list[tuple[float, Path]] = []
        for path in self._root.glob(f"{kind}-*"):
            with contextlib.suppress(FileNotFoundError):
                if path.suffix not in (".partial", ".lock", ".json"):
                    entries.append((path.stat().st_mtime, path))
        for _, old in sorted(entries, reverse=True)[KEPT_OF.get(kind, KEPT) :]:
            with contextlib.suppress(FileNotFoundError, BlockingIOError), _held_alone(old):
                doomed = old.with_name(f"{old.name}.partial")
                old.rename(doomed)
                shutil.rmtree(doomed)


@contextlib.contextmanager
def open_cache(root: Path) -> Iterator[Cache]:
    """Use the cache in ``root`` (made when missing).

    Raises:
        DeviceError: the folder cannot be made or written, or its disk is full.
    """
    # apt, mmdebstrap and chroot take a path that is relative for one in another place.
    root = root.absolute()
    try:
        # Site layers are in it, with what a site keeps to itself.
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root == default_cache() and root.stat().st_uid == os.geteuid():
            root.chmod(0o700)
        with _moment(root):
            _clear(root)
    except OSError as error:
        raise DeviceError(
            f"The cache {root} cannot be written: {error.strerror}.", hint="Name another folder with --cache."
        ) from None
    try:
        with contextlib.ExitStack() as held:
            yield Cache(root, held)
    except (OSError, ProcessError) as error:
        full = error.errno == errno.ENOSPC if isinstance(error, OSError) else _FULL in error.output
        if not full:
            raise
        raise DeviceError(
            f"No space is left where the medium is built: the cache {root} has {format_size(_free(root))} free.",
            hint="A build needs about 3 GiB there. Name a folder on another disk with --cache.",
        ) from error


def _clear(root: Path) -> None:
    """Remove what killed builds left: partial folders whose maker no longer holds them."""
    for stale in root.glob("*.partial"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError, NotADirectoryError), _held_alone(stale):
            shutil.rmtree(stale)


@contextlib.contextmanager
def _moment(root: Path) -> Iterator[None]:
    """The lock under which partial folders appear and are cleared, so that a new one is not taken for a left one."""
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _held_alone(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError when somebody holds the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int) -> None:
    """Hold the lock of an opened file alone. It is tried again and again: nothing would interrupt the kernel's own
    waiting in a thread.

    Raises:
        StoppedError: the program was told to stop, or the build has failed elsewhere.
    """
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if is_stopping() or is_unwanted():
            raise StoppedError("Waiting for another build was stopped.")
        time.sleep(_LOOK)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
