"""The files of one volume by path: lists, facts, content; every error names recovery point, volume and path.

This is the only way into the readers beside this file, and the place where what the library raises on damaged input
becomes DamagedError.
"""

import contextlib
import functools
import struct
import zlib
from collections.abc import Iterator

import msgspec
import zstandard

from core.errors import DamagedError, UsageError
from images.browse.entry import Attribute, Content, Entry, Filesystem, Kind, Piece, UnreadableError
from images.browse.point import OutsideError, VolumeSource
from images.browse.recognise import open_filesystem
from images.model.manifest import CaptureMode

#: Folders inside folders at most: deeper than real trees, and one open descriptor each when they are extracted.
DEPTH = 300


class NotThereError(UsageError):
    """A path that the volume does not have."""


class Found(msgspec.Struct, frozen=True):
    """An entry and where it was found: ``path`` begins with ``/`` and is ``/`` for the top folder; ``stream`` names
    one of its alternate streams when that was asked for."""

    path: str
    entry: Entry
    stream: str = ""


class Tree:
    """The files of one volume. Not safe from several threads at once.

    Attributes:
        source: the volume.
        filesystem: its reader.
        notes: what the person should know about what they see.
    """

    def __init__(self, source: VolumeSource) -> None:
        """Open.

        Raises:
            RefusedError: it holds nothing liferaft can read files from.
            DamagedError: its filesystem cannot be opened, or a chunk it needs is damaged.
        """
        self.source = source
        with self._addressed(""):
            self.filesystem: Filesystem = open_filesystem(source, source.name)
        notes = [f"{source.name}: {note}." for note in self.filesystem.notes]
        volume = source.volume
        if volume.mode is CaptureMode.WHOLE and volume.reason and not notes:
            notes.append(f"{source.name} was captured whole: {volume.reason}.")
        self.notes = tuple(notes)

    @property
    def root(self) -> Found:
        """The top folder."""
        with self._addressed("/"):
            return Found("/", self.filesystem.entry(self.filesystem.root))

    @property
    def default(self) -> Found:
        """The folder that is mounted when none is named: the top one, or a subvolume of btrfs.

        Raises:
            DamagedError: the filesystem says that it is somewhere, and there it is not.
        """
        with self._addressed("/"):
            path = self.filesystem.default
        found = self.root
        for name in path.strip("/").split("/") if path != "/" else ():
            below = self.child(found, name)
            if below is None:
                raise DamagedError(f"{self._address(found.path)} has no {shown(name)}, and that is its default.")
            found = below
        return found

    def names(self, found: Found) -> list[tuple[str, int, Kind | None]]:
        """Names in a folder with their nodes, sorted, without reading the nodes themselves.

        Raises:
            DamagedError: a name occurs twice, is empty, or could not be a path component.
        """
        with self._addressed(found.path):
            listed = [(child.name, child.node, child.kind) for child in self.filesystem.children(found.entry.node)]
        listed.sort(key=lambda item: item[0])
        for index, (name, _, _) in enumerate(listed):
            if not is_component(name):
                raise DamagedError(f"{self._address(found.path)}: the folder has an entry named {name!r}.")
            if index and listed[index - 1][0] == name:
                raise DamagedError(f"{self._address(found.path)}: the folder has {shown(name)} twice.")
        return listed

    def node(self, path: str, node: int) -> Found:
        """What a name that :meth:`names` gave stands for."""
        with self._addressed(path):
            entry = self.filesystem.entry(node)
            if "\0" in entry.target:
                raise DamagedError(f"It points to {entry.target!r}, which cannot be a path.")
            return Found(path, entry)

    def children(self, found: Found) -> Iterator[Found]:
        """What is in a folder, sorted by name.

        Raises:
            DamagedError: as it goes; what came before is right.
        """
        for name, node, _ in self.names(found):
            yield self.node(join(found.path, name), node)

    def child(self, found: Found, name: str) -> Found | None:
        """One name in a folder; None when it is not there. The exact spelling wins where case does not count."""
        folded = []
        with self._addressed(found.path):
            for child in self.filesystem.children(found.entry.node):
                if child.name == name:
                    return Found(join(found.path, name), self.filesystem.entry(child.node))
                if self.filesystem.ignores_case and child.name.upper() == name.upper():
                    folded.append(child)
            if folded:
                return Found(join(found.path, folded[0].name), self.filesystem.entry(folded[0].node))
        return None

    def stream(self, found: Found, name: str) -> Found | None:
        """``file:stream``: one of NTFS's alternate streams as if it were a file."""
        file, colon, stream = name.rpartition(":")
        owner = self.child(found, file) if colon and file else None
        if owner is None or stream not in owner.entry.streams:
            return None
        size = self.content(Found(owner.path, owner.entry, stream)).size
        entry = msgspec.structs.replace(owner.entry, kind=Kind.FILE, size=size, streams=(), links=1)
        return Found(f"{owner.path}:{stream}", entry, stream)

    def streams(self, found: Found) -> Iterator[Found]:
        """All alternate streams of an entry."""
        for stream in found.entry.streams:
            size = self.content(Found(found.path, found.entry, stream)).size
            entry = msgspec.structs.replace(found.entry, kind=Kind.FILE, size=size, streams=(), links=1)
            yield Found(f"{found.path}:{stream}", entry, stream)

    def attributes(self, found: Found) -> tuple[Attribute, ...]:
        """Extended attributes, sorted by name; none for a stream."""
        if found.stream:
            return ()
        with self._addressed(found.path):
            attributes = self.filesystem.attributes(found.entry.node)
            for attribute in attributes:
                if "\0" in attribute.name:
                    raise DamagedError(f"It has an attribute named {attribute.name!r}.")
            return attributes

    def content(self, found: Found) -> Content:
        """The bytes of a file.

        Raises:
            UnreadableError: they are kept in a way liferaft does not read. DamagedError: they cannot be read.
        """
        with self._addressed(found.path):
            return self.filesystem.content(found.entry.node, found.stream)

    def pieces(self, found: Found, content: Content, start: int = 0, end: int | None = None) -> Iterator[Piece]:
        """The bytes of a range, piece by piece; a piece that cannot be read is an error naming its place in the file.

        Reading can go on behind it with a higher ``start``.
        """
        position = start
        pieces = content.pieces(start, end)
        while True:
            with self._addressed(found.path, position):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
            position = piece.offset + piece.size

    def _address(self, path: str) -> str:
        return f"{self.source.name}{f':{shown(path)}' if path else ''}"

    @contextlib.contextmanager
    def _addressed(self, path: str, position: int | None = None) -> Iterator[None]:
        where = self._address(path) + (f", from byte {position}" if position is not None else "")
        try:
            yield
        except UnreadableError as error:
            raise UnreadableError(f"{where} cannot be read: {error.message}.") from None
        except DamagedError as error:
            raise DamagedError(f"{where}: {error.message}", hint=error.hint) from None
        except OutsideError as error:
            raise DamagedError(f"{where}: the filesystem is damaged: {error.message}") from None
        except broken() as error:
            text = str(error) or type(error).__name__
            raise DamagedError(f"{where}: the filesystem is damaged ({type(error).__name__}: {text}).") from error


@functools.cache
def broken() -> tuple[type[Exception], ...]:
    """What the library and the standard library raise on bytes that break their format's rules.

    Asked only when something was raised: loading all readers takes a tenth of a second.
    """
    from dissect.btrfs.exceptions import Error as BtrfsError
    from dissect.cstruct import Error as StructError
    from dissect.extfs.exceptions import Error as ExtError
    from dissect.fat.exceptions import Error as FatError
    from dissect.ntfs.exceptions import Error as NtfsError
    from dissect.xfs.exceptions import Error as XfsError

    return (
        BtrfsError,
        StructError,
        ExtError,
        FatError,
        NtfsError,
        XfsError,
        struct.error,
        zlib.error,
        zstandard.ZstdError,
        EOFError,
        ValueError,  # among them UnicodeError
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        NotImplementedError,
        AssertionError,
        MemoryError,
        OSError,
    )


class Walk:
    """One walk through a tree, which must end whatever the volume says: no folder is listed twice."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._listed: set[int] = set()

    def names(self, found: Found) -> list[tuple[str, int, Kind | None]]:
        """As :meth:`Tree.names`.

        Raises:
            DamagedError: the folder was listed before (folders have one place), or it lies too deep.
        """
        names = self._tree.names(found)
        where = f"{self._tree.source.name}:{shown(found.path)}"
        # Empty ones may share a node: btrfs' placeholders for subvolumes that a snapshot does not hold.
        if names and found.entry.node in self._listed:
            raise DamagedError(f"{where}: this folder is in the tree twice, or in itself.")
        if found.path.count("/") > DEPTH:
            raise DamagedError(f"{where}: folders are nested deeper than {DEPTH}.")
        self._listed.add(found.entry.node)
        return names


def is_component(name: str) -> bool:
    """Whether a name leads to something in a folder, and nowhere else."""
    return bool(name) and "/" not in name and "\0" not in name and name not in (".", "..")


def join(folder: str, name: str) -> str:
    """A path one deeper."""
    return f"{folder.rstrip('/')}/{name}"


def shown(text: str) -> str:
    """A name for a terminal or a document: bytes that are not UTF-8 and control characters are escaped."""
    safe = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in safe)
