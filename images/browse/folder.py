"""A folder that receives files: modes, times, owners, attributes, hard links and holes as the machine had them.

An image is untrusted. Everything is made through the descriptor of the folder it lies in, and no symbolic link is
ever followed, neither those of the image nor those that were in the folder before. A file gets its name when it is
complete; one that is not whole is kept as ``NAME.damaged``, with zeros where nothing could be read.
"""

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from core.errors import DeviceError, RefusedError
from images.browse.entry import Attribute, Content, Entry, Kind
from images.browse.extract import Pieces
from images.browse.tree import shown

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Errors after which nothing else can be written either.
_FINAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV)
_SET_ID = 0o7000
DAMAGED = ".damaged"


class Missing(msgspec.Struct, kw_only=True):
    """What could not be kept, counted.

    Attributes:
        expected: what nobody expects without root: owners, devices, system attributes. By what it is.
        surprising: what the folder's filesystem does not take, or is in the way already: path and why.
    """

    expected: Counter[str] = msgspec.field(default_factory=Counter)
    surprising: list[str] = msgspec.field(default_factory=list)


class _Open(msgspec.Struct, frozen=True):
    """A folder that is being filled."""

    descriptor: int
    path: str
    entry: Entry | None
    attributes: tuple[Attribute, ...]


class FolderReceiver:
    """See :class:`images.browse.extract.Receiver`.

    Args:
        folder: exists.
        overwrite: replace files that are there already; folders are merged in any case.

    Attributes:
        missing: what could not be kept.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self.missing = Missing()
        self._overwrite = overwrite
        self._root = os.geteuid() == 0
        self._stack = [_Open(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), str(folder), None, ())]
        #: Where the first name of a node with several names was made: path components below the folder.
        self._places: dict[int, tuple[str, ...]] = {}

    def close(self) -> None:
        """Let go of the folder, and of those an error left open."""
        while self._stack:
            os.close(self._stack.pop().descriptor)

    def enter(self, name: str, entry: Entry, attributes: tuple[Attribute, ...]) -> bool:
        path = self._path(name)
        try:
            with self._reported(path):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(os.fsencode(name), 0o700, dir_fd=self._here)
                descriptor = os.open(os.fsencode(name), _OPEN_FOLDER, dir_fd=self._here)
                self._stack.append(_Open(descriptor, path, entry, attributes))
                return True
        except _GivenUpError:
            return False

    def leave(self) -> None:
        done = self._stack.pop()
        try:
            # Last, because filling it would change its time, and its mode may forbid it.
            if done.entry is not None:
                self._dress(done.descriptor, done.path, done.entry, done.attributes)
        finally:
            os.close(done.descriptor)

    def file(
        self, name: str, entry: Entry, attributes: tuple[Attribute, ...], content: Content, pieces: Pieces
    ) -> None:
        path = self._path(name)
        temporary = f".liferaft-{os.urandom(8).hex()}"
        with contextlib.suppress(_GivenUpError), self._reported(path):
            descriptor = os.open(temporary, _NEW_FILE, 0o600, dir_fd=self._here)
            try:
                for piece in pieces:
                    if piece.data is not None:
                        _write(descriptor, piece.data, piece.offset)
                os.ftruncate(descriptor, content.size)
                self._dress(descriptor, path, entry, attributes)
                self._name(temporary, name + DAMAGED if pieces.losses else name)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=self._here)
                raise
            finally:
                os.close(descriptor)
            if entry.links > 1 and not pieces.losses:
                self._places[entry.node] = (*self._parts(), name)

    def again(self, name: str, entry: Entry) -> bool:
        place = self._places.get(entry.node)
        if place is None:
            return False
        temporary = f".liferaft-{os.urandom(8).hex()}"
        with contextlib.ExitStack() as stack:
            source = self._stack[0].descriptor
            try:
                for part in place[:-1]:
                    source = os.open(os.fsencode(part), _OPEN_FOLDER, dir_fd=source)
                    stack.callback(os.close, source)
                os.link(
                    os.fsencode(place[-1]), temporary, src_dir_fd=source, dst_dir_fd=self._here, follow_symlinks=False
                )
            except OSError:
                # FAT and others have no hard links: a second copy is the next best.
                self.missing.expected["hard links became copies"] += 1
                return False
        with contextlib.suppress(_GivenUpError), self._reported(self._path(name)):
            try:
                self._name(temporary, name)
            except OSError:
                os.unlink(temporary, dir_fd=self._here)
                raise
        return True

    def other(self, name: str, entry: Entry, attributes: tuple[Attribute, ...]) -> None:
        path = self._path(name)
        if entry.kind is Kind.SOCKET:
            self.missing.expected["sockets were left out: they mean nothing without their program"] += 1
            return
        if entry.kind in (Kind.CHARACTER, Kind.BLOCK) and not self._root:
            self.missing.expected["devices were left out: only root may make them"] += 1
            return
        temporary = f".liferaft-{os.urandom(8).hex()}"
        with contextlib.suppress(_GivenUpError), self._reported(path):
            self._make(temporary, entry)
            try:
                self._dress_other(temporary, path, entry, attributes)
                self._name(temporary, name)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=self._here)
                raise

    @property
    def _here(self) -> int:
        return self._stack[-1].descriptor

    def _path(self, name: str) -> str:
        return f"{self._stack[-1].path}/{name}"

    def _parts(self) -> tuple[str, ...]:
        base = self._stack[0].path
        return tuple(part for part in self._stack[-1].path[len(base) :].split("/") if part)

    def _make(self, name: str, entry: Entry) -> None:
        if entry.kind is Kind.LINK:
            os.symlink(os.fsencode(entry.target), name, dir_fd=self._here)
        elif entry.kind is Kind.FIFO:
            os.mkfifo(name, 0o600, dir_fd=self._here)
        else:
            kind = 0o020000 if entry.kind is Kind.CHARACTER else 0o060000
            os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=self._here)

    def _name(self, temporary: str, name: str) -> None:
        """Give what is complete its name; what has it already is replaced only when that was asked for."""
        final = os.fsencode(name)
        if self._overwrite:
            os.rename(temporary, final, src_dir_fd=self._here, dst_dir_fd=self._here)
            # Renaming one name of a file over another one of it does nothing (rename(2)).
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._here)
            return
        try:
            os.link(temporary, final, src_dir_fd=self._here, dst_dir_fd=self._here, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            # A filesystem without links: look, then rename.
            if _exists(final, self._here):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            os.rename(temporary, final, src_dir_fd=self._here, dst_dir_fd=self._here)
        else:
            os.unlink(temporary, dir_fd=self._here)

    def _dress(self, descriptor: int, path: str, entry: Entry, attributes: tuple[Attribute, ...]) -> None:
        """Owner, attributes, mode, times, in the order in which one does not undo the other."""
        mode = entry.mode
        if self._root and entry.owned:
            self._try(path, "owner", os.chown, descriptor, entry.uid, entry.gid)
        elif entry.owned and (entry.uid, entry.gid) != (os.geteuid(), os.getegid()):
            self.missing.expected["owners were not kept: only root may give files away"] += 1
            if mode & 0o6000:
                self.missing.expected["set-user-id and set-group-id bits were left out with the owners"] += 1
                mode &= ~0o6000
        for attribute in attributes:
            self._set_attribute(descriptor, path, attribute)
        self._try(path, "mode", os.chmod, descriptor, mode)
        self._try(path, "times", _set_times, descriptor, entry)

    def _dress_other(self, name: str, path: str, entry: Entry, attributes: tuple[Attribute, ...]) -> None:
        """The same for what is not opened: a link, a device, a fifo. It was just made here, by us."""
        if self._root and entry.owned:
            os.chown(name, entry.uid, entry.gid, dir_fd=self._here, follow_symlinks=False)
        elif entry.owned and (entry.uid, entry.gid) != (os.geteuid(), os.getegid()):
            self.missing.expected["owners were not kept: only root may give files away"] += 1
        if entry.kind is not Kind.LINK:
            mode = entry.mode if self._root else entry.mode & ~_SET_ID
            self._try(path, "mode", lambda: os.chmod(name, mode, dir_fd=self._here))
        for attribute in attributes:
            place = f"/proc/self/fd/{self._here}/{name}"
            self._set_attribute(place, path, attribute)
        self._try(
            path,
            "times",
            lambda: os.utime(name, ns=(entry.atime, entry.mtime), dir_fd=self._here, follow_symlinks=False),
        )

    def _set_attribute(self, target: int | str, path: str, attribute: Attribute) -> None:
        system = not attribute.name.startswith("user.")
        if system and not self._root and attribute.name.split(".")[0] in ("security", "trusted"):
            self.missing.expected["attributes of security.* and trusted.* were left out: only root may set them"] += 1
            return
        try:
            if isinstance(target, int):
                os.setxattr(target, os.fsencode(attribute.name), attribute.value)
            else:
                os.setxattr(target, os.fsencode(attribute.name), attribute.value, follow_symlinks=False)
        except OSError as error:
            if error.errno in _FINAL and error.errno != errno.ENOSPC:
                raise
            if system:
                self.missing.expected["system attributes were left out: this system does not take them"] += 1
            else:
                reason = error.strerror
                self.missing.surprising.append(f"{shown(path)}: attribute {shown(attribute.name)}: {reason}.")

    def _try(self, path: str, what: str, change: Callable[..., None], *arguments: object) -> None:
        """A change that a filesystem without the notion refuses: said, not fatal."""
        try:
            change(*arguments)
        except OSError as error:
            if error.errno in _FINAL:
                raise
            self.missing.surprising.append(f"{shown(path)}: its {what} could not be set: {error.strerror}.")
        except OverflowError:
            self.missing.surprising.append(f"{shown(path)}: its {what} could not be set: out of this system's range.")

    @contextlib.contextmanager
    def _reported(self, path: str) -> Iterator[None]:
        """One entry that cannot be made is said and left out; a full disk ends the work."""
        try:
            yield
        except FileExistsError:
            self.missing.surprising.append(f"{shown(path)} exists already and was left alone.")
            raise _GivenUpError from None
        except OSError as error:
            if error.errno in _FINAL:
                hint = (
                    "Make room and run the same command again, with --overwrite." if error.errno == errno.ENOSPC else ""
                )
                raise DeviceError(f"{shown(path)} cannot be written: {error.strerror}.", hint=hint) from None
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                reason = "something that is not a folder is in its place; symbolic links are not followed"
            else:
                reason = error.strerror or str(error)
            self.missing.surprising.append(f"{shown(path)} could not be made: {reason}.")
            raise _GivenUpError from None


class _GivenUpError(Exception):
    """Given up on one entry; it was said."""


def _exists(name: bytes, folder: int) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _set_times(descriptor: int, entry: Entry) -> None:
    os.utime(descriptor, ns=(entry.atime, entry.mtime))


def ready_folder(folder: Path, name: str, *, overwrite: bool) -> None:
    """Make the folder, and see that nothing in it is in the way.

    Args:
        name: what will be put into it; empty when it is many things.

    Raises:
        RefusedError: there is something, and it may not be overwritten. Nothing was written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(f"{folder} cannot be made: {error.strerror}.") from None
    if overwrite:
        return
    way = (
        [name]
        if name and os.path.lexists(folder / name)
        else []
        if name
        else sorted(path.name for path in folder.iterdir())[:1]
    )
    if way:
        raise RefusedError(
            f"{folder / way[0]} exists already. Nothing was written.",
            hint="Name another folder, or add --overwrite to replace files in it.",
        )
