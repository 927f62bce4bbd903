"""The ISO that goes onto a stick: whole, sound, and a rescue medium, before anything is lost for it.

It is a file, or lies at the start of a CD or of a stick: a medium that starts machines makes another.
"""

import contextlib
import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from builder.finished.iso9660 import read_volume
from builder.finished.opened import OpenedMedium, open_medium
from builder.stick.layout import SECTOR, iso_table, table_of_iso
from builder.stick.stick import HEAD
from core.errors import DamagedError, UsageError
from core.events import Meter, Sink, Stage, ticking
from core.units import counted, format_size
from images.model.layout import PartitionTable
from images.sources import BlockSource, open_source

_PIECE = 4 << 20


class NoMediumError(DamagedError):
    """An image that is no liferaft medium, or not a sound one."""


class StickSource(msgspec.Struct, frozen=True, kw_only=True):
    """An ISO, judged.

    Attributes:
        path: of the file, or the node of the CD or stick.
        size: bytes of the ISO. sha256: of all of it, as it is read there: a stick has a table of its own in it.
        title: what it is, for people. table: its GPT, without what else is on a stick; None where it has none.
    """

    path: str
    size: int
    sha256: str
    title: str
    table: PartitionTable | None


class _Sectors:
    """The first ``size`` bytes of a device in the ISO's sectors, whatever its own are: a CD's have 2048 bytes."""

    def __init__(self, inner: BlockSource, size: int) -> None:
        self._inner = inner
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    @property
    def sector_size(self) -> int:
        return SECTOR

    def read_at(self, offset: int, length: int) -> bytes:
        return self._inner.read_at(offset, length)


@contextlib.contextmanager
def open_iso(path: Path) -> Iterator[BlockSource]:
    """An ISO as a source: a file, or what a CD or stick has of it, without what lies behind.

    Raises:
        UsageError: there is no such file or device, or it is something else.
        DamagedError: it is empty, or the device holds no ISO or only a part of one.
    """
    if on_device(path):
        with open_source(path) as device:
            size = read_volume(device, str(path)).size
            if size > device.size:
                raise DamagedError(
                    f"{path} is cut short: the ISO on it has {size} bytes, and the device {device.size}.",
                    hint="Take another medium, or an ISO file.",
                )
            yield _Sectors(device, size)
        return
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
        NoMediumError: it is no liferaft medium, cut short, or altered: names the file on it and both digests.
        DamagedError: it has a size that no image has.
    """
    with open_iso(path) as source:
        if source.size < 2 * HEAD or source.size % SECTOR:
            raise DamagedError(
                f"{path} has {source.size} bytes; an image has at least {2 * HEAD}, in whole sectors of {SECTOR}.",
                hint="Was it copied or downloaded whole?",
            )
        title = "an image that is not liferaft's" if strange else _judge_medium(path, sink)
        table = _table(path, source)
        return StickSource(path=str(path), size=source.size, sha256=digest_of(source, sink), title=title, table=table)


def on_device(path: Path) -> bool:
    """Whether the ISO is a CD, a stick or a loop device, and no file."""
    return path.exists() and stat.S_ISBLK(path.stat().st_mode)


def _table(path: Path, source: BlockSource) -> PartitionTable | None:
    """The ISO's own table; a stick's is another, over the whole stick and with more partitions."""
    if not on_device(path):
        return iso_table(source)
    with open_source(path) as device:
        if device.size == source.size or device.sector_size != SECTOR:
            return iso_table(source)
        table = iso_table(device)
        return table_of_iso(table, source.size) if table is not None else None


def _judge_medium(path: Path, sink: Sink) -> str:
    try:
        with open_medium(path) as medium:
            return _compare(medium, sink)
    except DamagedError as error:
        raise NoMediumError(error.message, hint=error.hint or "Build or download it again.") from None


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


def digest_of(source: BlockSource, sink: Sink) -> str:
    """SHA-256 of a whole ISO."""
    digest = hashlib.sha256()
    meter = Meter(sink, Stage.CHECK, source.size)
    with ticking(meter):
        for at in range(0, source.size, _PIECE):
            piece = source.read_at(at, min(_PIECE, source.size - at))
            digest.update(piece)
            meter.advance(len(piece))
    return digest.hexdigest()
