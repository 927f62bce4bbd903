"""The ISO that goes onto a stick: whole, sound, and a rescue medium, before anything is lost for it."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from builder.finished.opened import OpenedMedium, open_medium
from builder.stick.layout import SECTOR, iso_table
from builder.stick.stick import HEAD
from core.errors import DamagedError, UsageError
from core.events import Meter, Sink, Stage, ticking
from core.units import counted, format_size
from images.model.layout import PartitionTable
from images.sources import FileSource, open_source

_PIECE = 4 << 20


class StickSource(msgspec.Struct, frozen=True, kw_only=True):
    """An ISO, judged.

    Attributes:
        size: bytes. sha256: of the whole file.
        title: what it is, for people. table: its GPT; None where it has none.
    """

    path: str
    size: int
    sha256: str
    title: str
    table: PartitionTable | None


@contextlib.contextmanager
def open_iso(path: Path) -> Iterator[FileSource]:
    """The file of an ISO as a source.

    Raises:
        UsageError: there is no such file, or it is no plain file.
        DamagedError: it is empty.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file.", hint="Name an ISO; liferaft build -o rescue.iso makes one.")
    if path.exists() and path.stat().st_size == 0:
        raise DamagedError(f"{path} is empty: it is no ISO.", hint="Copy or download it again.")
    with open_source(path, sector_size=SECTOR) as source:
        yield source


def judge_iso(path: Path, sink: Sink, *, strange: bool) -> StickSource:
    """Read all of an ISO and compare it with its own document.

    Args:
        strange: take another system's image, of which only the size can be judged.

    Raises:
        UsageError: there is no such file.
        DamagedError: it is no liferaft medium, cut short, or altered: names the file on it and both digests.
    """
    with open_iso(path) as source:
        if source.size < 2 * HEAD or source.size % SECTOR:
            raise DamagedError(
                f"{path} has {source.size} bytes; an image has at least {2 * HEAD}, in whole sectors of {SECTOR}.",
                hint="Was it copied or downloaded whole?",
            )
        title = "an image that is not liferaft's" if strange else _judge_medium(path, sink)
        return StickSource(
            path=str(path), size=source.size, sha256=digest_of(source), title=title, table=iso_table(source)
        )


def _judge_medium(path: Path, sink: Sink) -> str:
    try:
        with open_medium(path) as medium:
            return _compare(medium, sink)
    except DamagedError as error:
        hint = error.hint or "Build or download it again."
        raise DamagedError(error.message, hint=f"{hint} Another system's image is written with --any-iso.") from None


def _compare(medium: OpenedMedium, sink: Sink) -> str:
    """Every file with its digest; gives the medium's title."""
    if medium.cut:
        raise DamagedError(
            f"{medium.name} is cut short: it should have {format_size(medium.cut)} ({medium.cut} bytes) more.",
            hint="Copy or download it again.",
        )
    document = medium.document
    if document is None:
        raise DamagedError(
            f"{medium.name} was built by a liferaft that wrote no digests: nothing says whether it is whole.",
            hint="Build it again.",
        )
    meter = Meter(sink, Stage.CHECK, sum(file.size for file in document.files))
    with ticking(meter):
        for file in document.files:
            digest = hashlib.sha256()
            for piece in medium.pieces(file.path):
                digest.update(piece)
                meter.advance(len(piece))
            if digest.hexdigest() != file.sha256:
                raise DamagedError(
                    f"{medium.name} is altered or damaged: {file.path}, offset {medium.place(file.path)}, SHA-256: "
                    f"expected {file.sha256}, found {digest.hexdigest()}.",
                    hint="Build or download it again.",
                )
    return (
        f"{document.liferaft}, Debian {document.release} {document.architecture}, kernel {document.kernel}, "
        f"built {document.built:%Y-%m-%d}, {counted(len(document.files), 'file')} sound"
    )


def digest_of(source: FileSource) -> str:
    """SHA-256 of a whole file."""
    digest = hashlib.sha256()
    for at in range(0, source.size, _PIECE):
        digest.update(source.read_at(at, min(_PIECE, source.size - at)))
    return digest.hexdigest()
