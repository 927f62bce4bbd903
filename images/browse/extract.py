"""Files out of a volume into something that receives them: the walk, what was lost on it, and progress.

A file of which a part cannot be read is handed over with zeros in that part and named in the result; everything else
goes on. Where the files go is the receiver's business: a folder (``folder.py``) or a tar file (``tar.py``).
"""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from core.errors import DamagedError
from core.events import Meter
from core.units import KIB
from images.browse.entry import Attribute, Content, Entry, Kind, Piece, UnreadableError
from images.browse.tree import Found, Tree, Walk, is_component, join, shown

#: Bytes passed over behind a place that cannot be read, when nothing says where the next readable one begins.
_STEP = 64 * KIB


class Loss(msgspec.Struct, frozen=True):
    """Bytes ``start`` to ``end`` of a file could not be read."""

    start: int
    end: int


class Receiver(Protocol):
    """Takes files in the order of a walk. Names are single path components, already checked."""

    def enter(self, name: str, entry: Entry, attributes: tuple[Attribute, ...]) -> bool:
        """A folder; what follows is in it, until :meth:`leave`. False: it cannot be made, leave out what is in it."""
        ...

    def leave(self) -> None:
        """The end of the folder entered last."""
        ...

    def file(
        self, name: str, entry: Entry, attributes: tuple[Attribute, ...], content: Content, pieces: "Pieces"
    ) -> None:
        """A file. Its ``pieces`` are read to the end, then ``pieces.losses`` says which parts of them are not real."""
        ...

    def again(self, name: str, entry: Entry) -> bool:
        """One more name of a file that was received whole; False when it must be sent again."""
        ...

    def other(self, name: str, entry: Entry, attributes: tuple[Attribute, ...]) -> None:
        """A symbolic link, device, fifo or socket."""
        ...


class Pieces:
    """The content of a file, with zeros where it cannot be read.

    Attributes:
        losses: which ranges those are; complete when the iteration has ended.
        problems: the sentence for each.
    """

    def __init__(self, tree: Tree, found: Found, content: Content, meter: Meter, chunk_size: int) -> None:
        self.losses: list[Loss] = []
        self.problems: list[str] = []
        self._tree, self._found, self._content, self._meter = tree, found, content, meter
        self._chunk_size = chunk_size

    def __iter__(self) -> Iterator[Piece]:
        position = 0
        while position < self._content.size:
            try:
                for piece in self._tree.pieces(self._found, self._content, position):
                    position = piece.offset + piece.size
                    if piece.data is not None:
                        self._meter.advance(piece.size)
                    yield piece
            except DamagedError as error:
                end = self._next_readable(position)
                if self.losses and self.losses[-1].end == position:
                    self.losses[-1] = Loss(self.losses[-1].start, end)
                else:
                    self.losses.append(Loss(position, end))
                    self.problems.append(error.message)
                yield Piece(position, end - position, None)
                position = end

    def _next_readable(self, position: int) -> int:
        """Where the next chunk of the volume begins in the file."""
        for segment in self._content.segments or ():
            if segment.offset <= position < segment.offset + segment.size:
                place = segment.place + position - segment.offset
                step = self._chunk_size - place % self._chunk_size
                return min(position + step, segment.offset + segment.size, self._content.size)
        return min((position // _STEP + 1) * _STEP, self._content.size)


class Extracted(msgspec.Struct, kw_only=True):
    """What a walk handed over, counted while it goes.

    Attributes:
        size: bytes of the files, holes included.
        damaged: files of which a part or all could not be read, and folders that could not be listed: path and why.
        unreadable: files that are sound, but kept in a way liferaft does not read.
    """

    files: int = 0
    folders: int = 0
    others: int = 0
    size: int = 0
    damaged: list[str] = msgspec.field(default_factory=list)
    unreadable: list[str] = msgspec.field(default_factory=list)


class Extraction:
    """One walk.

    Args:
        chunk_size: bytes of a chunk of the repository: the unit in which damage comes.
    """

    def __init__(self, tree: Tree, receiver: Receiver, meter: Meter, chunk_size: int) -> None:
        self.result = Extracted()
        self._tree = tree
        self._walk = Walk(tree)
        self._receiver = receiver
        self._meter = meter
        self._chunk_size = chunk_size
        #: Nodes with several names that were received whole.
        self._sent: set[int] = set()

    def send(self, found: Found, name: str) -> None:
        """An entry and all below it, under ``name``."""
        self._send(found, name)

    def send_inside(self, found: Found) -> None:
        """What is in a folder, without the folder itself."""
        self._send_children(found)

    def _send(self, found: Found, name: str) -> None:
        entry = found.entry
        attributes = self._attributes(found)
        if entry.kind is Kind.FOLDER:
            if self._receiver.enter(name, entry, attributes):
                self.result.folders += 1
                self._send_children(found)
                self._receiver.leave()
        elif entry.kind is Kind.FILE:
            self._send_file(found, name, attributes)
        else:
            self.result.others += 1
            self._receiver.other(name, entry, attributes)
        for stream in entry.streams:
            self._send_stream(found, name, stream)

    def _send_children(self, found: Found) -> None:
        try:
            names = self._walk.names(found)
        except UnreadableError as error:
            self.result.unreadable.append(error.message)
            return
        except DamagedError as error:
            self.result.damaged.append(error.message)
            return
        for name, node, _ in names:
            try:
                child = self._tree.node(join(found.path, name), node)
            except DamagedError as error:
                self.result.damaged.append(error.message)
                continue
            self._send(child, name)

    def _attributes(self, found: Found) -> tuple[Attribute, ...]:
        try:
            return self._tree.attributes(found)
        except DamagedError as error:
            self.result.damaged.append(f"{error.message} It is kept without extended attributes.")
            return ()

    def _send_file(self, found: Found, name: str, attributes: tuple[Attribute, ...]) -> None:
        entry = found.entry
        if entry.links > 1 and not found.stream and entry.node in self._sent and self._receiver.again(name, entry):
            self.result.files += 1
            return
        try:
            content = self._tree.content(found)
        except UnreadableError as error:
            self.result.unreadable.append(error.message)
            return
        except DamagedError as error:
            self.result.damaged.append(error.message)
            return
        pieces = Pieces(self._tree, found, content, self._meter, self._chunk_size)
        self._receiver.file(name, entry, attributes, content, pieces)
        self.result.files += 1
        self.result.size += content.size
        if pieces.losses:
            ranges = ", ".join(f"{loss.start} to {loss.end}" for loss in pieces.losses)
            self.result.damaged.append(f"{pieces.problems[0]} Bytes {ranges} of {content.size} are zeros.")
        elif entry.links > 1 and not found.stream:
            self._sent.add(entry.node)

    def _send_stream(self, found: Found, name: str, stream: str) -> None:
        """An alternate stream of NTFS, as a file beside its owner."""
        if not is_component(stream):
            # A path in its place would lead out of the folder that receives the files.
            where = f"{self._tree.source.name}:{shown(found.path)}"
            self.result.damaged.append(f"{where}: its stream {stream!r} was left out: no file can have that name.")
            return
        try:
            content = self._tree.content(Found(found.path, found.entry, stream))
        except UnreadableError as error:
            self.result.unreadable.append(error.message)
            return
        except DamagedError as error:
            self.result.damaged.append(error.message)
            return
        entry = msgspec.structs.replace(found.entry, kind=Kind.FILE, size=content.size, streams=(), links=1)
        self._send_file(Found(found.path, entry, stream), f"{name}:{stream}", ())
