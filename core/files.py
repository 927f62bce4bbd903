"""Files on this machine: written so that they are the old whole or the new whole, also after a power cut; small ones
that a person named, read.

Not for the files of a repository (``images.store.backend``), nor for disks and images (``images.sources``).
"""

import contextlib
import os
from pathlib import Path

from core.errors import UsageError
from core.units import format_size


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable. Filesystems that cannot sync a folder (SMB, FAT over FUSE) are let be."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_small(path: Path, what: str, limit: int, *, hint: str = "") -> bytes:
    """The content of a file that a person named and that is small when it is the right one.

    A pipe will do, such as a shell's ``<(...)``.

    Args:
        what: the file as a sentence about it begins, with its path.
        limit: bytes that it may have.

    Raises:
        UsageError: it cannot be read, or has more.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}.", hint=hint) from None
    if len(content) > limit:
        raise UsageError(f"{what} has more than {format_size(limit)}: it is something else.", hint=hint)
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: a reader, or a power cut, sees the old file or the new one, never a part."""
    partial = _partial(path)
    try:
        _write_durably(partial, content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_new(path: Path, content: bytes) -> bool:
    """Write a file that does not exist yet, whole or not at all.

    Returns:
        False when there is one already; it is not changed.
    """
    partial = _partial(path)
    try:
        _write_durably(partial, content)
        try:
            path.hardlink_to(partial)
        except FileExistsError:
            return False
        except OSError:
            # FAT and some network filesystems have no links; there the window between these two lines stays open.
            if path.exists():
                return False
            partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _partial(path: Path) -> Path:
    """A name of our own: another machine may have our process number, and so may we after a power cut."""
    return path.with_name(f"{path.name}.{os.urandom(6).hex()}.partial")
