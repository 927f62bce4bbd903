"""Extracting: files out of a recovery point into a folder, a tar file or a stream."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from core.errors import DamagedError, DeviceError, RefusedError, UsageError
from core.events import Event, Meter, Sink, Stage, ticking
from images.browse.entry import Kind
from images.browse.extract import Extraction, Receiver
from images.browse.folder import FolderReceiver, ready_folder
from images.browse.tar import TarReceiver
from images.browse.tree import Found, Tree, shown
from images.store.access import Access
from rescue.jobs.browse import OpenPoint, open_point, parse_place


class Named(msgspec.Struct, frozen=True):
    """What the result says about a place: its path, and sentences."""

    path: str
    notes: tuple[str, ...]


class ExtractResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an extraction did. ``size`` in bytes, holes included.

    Attributes:
        path: as the machine saw it when it was asked for so, else in the volume.
        notes: volumes mounted below the path, which do not come; what nobody expects to be kept without root, counted.
        warnings: what was expected and could not be kept.
        damaged: what is not whole: path, range, reason.
    """

    id: str
    path: str
    files: int
    folders: int
    others: int
    size: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def extract_to_folder(
    repository: str, place: str, folder: Path, *, overwrite: bool, sink: Sink, access: Access | None = None
) -> ExtractResult:
    """Put what a place names into a folder, under its own name; the content of a top folder directly.

    Raises:
        RefusedError: something is in the way and may not be overwritten; nothing was written.
        UsageError, DamagedError: the place cannot be found. DeviceError: the folder's disk is full or failing.
    """
    point, tree, found, named = _find(repository, place, access)
    ready_folder(folder, _name(found), overwrite=overwrite)
    with contextlib.closing(FolderReceiver(folder, overwrite=overwrite)) as receiver:
        result = _run(point, tree, found, named, receiver, sink)
        missing = receiver.missing
    notes = tuple(f"{count} × {what}." for what, count in sorted(missing.expected.items()))
    return msgspec.structs.replace(
        result, notes=result.notes + notes, warnings=result.warnings + tuple(missing.surprising)
    )


def extract_to_tar(
    repository: str, place: str, file: Path | BinaryIO, *, overwrite: bool, sink: Sink, access: Access | None = None
) -> ExtractResult:
    """The same as a pax tar file: modes, owners, times, attributes, links and devices are kept without root.

    Raises:
        As :func:`extract_to_folder`.
    """
    point, tree, found, named = _find(repository, place, access)
    with _tar_stream(file, overwrite=overwrite) as stream:
        receiver = TarReceiver(stream)
        result = _run(point, tree, found, named, receiver, sink)
        receiver.close()
    notes = (f"{receiver.sockets} × sockets were left out: they mean nothing without their program.",)
    return msgspec.structs.replace(result, notes=result.notes + notes) if receiver.sockets else result


def extract_to_stream(
    repository: str, place: str, stream: BinaryIO, *, sink: Sink, access: Access | None = None
) -> ExtractResult:
    """The bytes of one file.

    Raises:
        UsageError: it is not a file. DamagedError: a part cannot be read; what came before was written.
    """
    point, tree, found, named = _find(repository, place, access)
    if found.entry.kind is not Kind.FILE:
        raise UsageError(
            f"{named.path} is a {found.entry.kind}, not a file.",
            hint="Name a file, or add --tar to get a folder as one stream.",
        )
    content = tree.content(found)
    meter = Meter(sink, Stage.EXTRACT, content.size)
    with ticking(meter):
        for piece in tree.pieces(found, content):
            if piece.data is None:
                _write_zeros(stream, piece.size)
            else:
                stream.write(piece.data)
            meter.advance(piece.size)
    stream.flush()
    return ExtractResult(id=point.id, path=named.path, files=1, folders=0, others=0, size=content.size)


def _find(repository: str, place: str, access: Access | None) -> tuple[OpenPoint, Tree, Found, Named]:
    wanted = parse_place(place)
    if not wanted.path:
        raise UsageError(
            f"{place} names a whole recovery point.",
            hint=f"Name a volume or a path: liferaft ls {place} lists them. restore and export bring back whole disks.",
        )
    point = open_point(repository, wanted.point, access)
    tree, found = point.find(wanted.path)
    left_out = point.left_out(wanted.path, tree, found)
    return point, tree, found, Named(shown(point.place(wanted.path, tree, found.path)), (left_out,) if left_out else ())


def _run(point: OpenPoint, tree: Tree, found: Found, named: Named, receiver: Receiver, sink: Sink) -> ExtractResult:
    for note in tree.notes:
        sink(Event(stage=Stage.EXTRACT, message=note))
    meter = Meter(sink, Stage.EXTRACT, found.entry.size)
    extraction = Extraction(tree, receiver, meter, point.cache.repository.chunk_size)
    with ticking(meter):
        if found.path == "/":
            extraction.send_inside(found)
        else:
            extraction.send(found, _name(found))
    counted = extraction.result
    if counted.damaged and not (counted.files or counted.folders or counted.others):
        raise DamagedError(counted.damaged[0])
    if counted.unreadable and not (counted.files or counted.folders or counted.others or counted.damaged):
        raise RefusedError(counted.unreadable[0], reasons=tuple(counted.unreadable))
    return ExtractResult(
        id=point.id,
        path=named.path,
        notes=named.notes,
        files=counted.files,
        folders=counted.folders,
        others=counted.others,
        size=counted.size,
        warnings=tuple(counted.unreadable),
        damaged=tuple(counted.damaged),
    )


def _name(found: Found) -> str:
    """The last component of a path; empty for a top folder."""
    return found.path.rsplit("/", 1)[1]


@contextlib.contextmanager
def _tar_stream(file: Path | BinaryIO, *, overwrite: bool) -> Iterator[BinaryIO]:
    """The stream itself, or a file that gets its name when it is complete."""
    if not isinstance(file, Path):
        yield file
        return
    if file.is_dir() or (os.path.lexists(file) and not overwrite):
        raise RefusedError(
            f"{file} exists already. Nothing was written.", hint="Name another file, or add --overwrite."
        )
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        raise DeviceError(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)


def _write_zeros(stream: BinaryIO, size: int) -> None:
    zeros = bytes(min(size, 1 << 20))
    while size > 0:
        stream.write(zeros[:size])
        size -= len(zeros)
