"""The build cache: what was built from the same inputs is not built again.

An entry is a folder named by its kind and by a digest of everything it was made from. It is either whole
or not there: it is made in a ``.partial`` folder and renamed. One build at a time holds the cache, so
a partial folder found at the start is what an earlier build left when it was killed.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from core.errors import DeviceError
from core.files import write_atomically

#: Old entries kept per kind, so that going back to an earlier recipe costs nothing.
KEPT = 3


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

    def __init__(self, root: Path) -> None:
        self._root = root

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """The folder of an entry, and whether it was there already.

        Args:
            make: fills the empty folder it is given; when it raises, nothing stays.
        """
        final = self._root / f"{kind}-{key}"
        if final.is_dir():
            os.utime(final)
            return final, True
        with self.scratch(kind) as partial:
            content = partial / "content"
            content.mkdir()
            make(content)
            content.rename(final)
        self._forget(kind)
        return final, False

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
        with tempfile.TemporaryDirectory(dir=self._root, prefix=f"{kind}-", suffix=".partial") as folder:
            Path(folder).chmod(0o755)
            yield Path(folder)

    def _forget(self, kind: str) -> None:
        entries = [path for path in self._root.glob(f"{kind}-*") if path.suffix != ".partial"]
        for old in sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
            shutil.rmtree(old)


@contextlib.contextmanager
def open_cache(root: Path) -> Iterator[Cache]:
    """Hold the cache in ``root`` (made when missing) for one build; waits for another build to end.

    Raises:
        DeviceError: the folder cannot be made or written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("w")
    except OSError as error:
        raise DeviceError(
            f"The cache {root} cannot be written: {error.strerror}.", hint="Name another folder with --cache."
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in root.glob("*.partial"):
            shutil.rmtree(stale)
        yield Cache(root)
