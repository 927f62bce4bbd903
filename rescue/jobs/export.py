"""Exporting: a disk of a recovery point as a raw or qcow2 image file."""

import errno
import os
import stat
from enum import StrEnum
from pathlib import Path

from core.errors import DeviceError, RefusedError, UsageError
from core.events import Event, Meter, Sink, Stage, ticking
from core.files import sync_folder
from images.browse.point import ChunkCache, DiskSource
from images.export import ExportResult, ExportSource, write_qcow2, write_raw
from images.model.layout import Disk, devices_of_disk
from images.model.manifest import Manifest
from images.store.access import Access
from images.store.connect import open_repository

#: Decoded chunks that are remembered: partitions at odd places read each chunk twice.
_CACHE_SIZE = 32 << 20


class ImageFormat(StrEnum):
    """What is written."""

    RAW = "raw"
    QCOW2 = "qcow2"


def export_disk(
    repository: str,
    point: str,
    file: Path,
    *,
    disk: str = "",
    image_format: ImageFormat,
    sink: Sink,
    access: Access | None = None,
) -> ExportResult:
    """Write a disk as the image file ``file``, which gets its name when it is complete.

    Args:
        disk: ``disk0`` or ``0``; may be left out when there is one only.

    Raises:
        UsageError: there is no such point or disk. RefusedError: the file exists or is a device, or not all bytes of
            the disk are kept.
        DamagedError: a chunk is missing or damaged. DeviceError: the file cannot be written. No file is left.
    """
    _refuse_taken(file)
    opened = open_repository(repository, access)
    identifier = opened.resolve(point)
    manifest = opened.manifest(identifier)
    chosen = _choose(manifest, disk)
    _refuse_stack(manifest, chosen)
    cache = ChunkCache(opened, _CACHE_SIZE)
    source = ExportSource(DiskSource(cache, identifier, manifest, chosen))
    for note in source.notes:
        sink(Event(stage=Stage.EXPORT, message=note, warning=True))
    meter = Meter(sink, Stage.EXPORT, source.data_size)
    stored = _write(source, file, image_format, meter)
    return ExportResult(
        id=identifier,
        disk=chosen.id,
        path=str(file),
        format=image_format.value,
        size=source.size,
        read=source.data_size,
        stored=stored,
        warnings=source.notes,
    )


def _write(source: ExportSource, file: Path, image_format: ImageFormat, meter: Meter) -> int:
    """Returns the bytes the file takes."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as stream:
            with ticking(meter):
                (write_raw if image_format is ImageFormat.RAW else write_qcow2)(source, stream, meter)
            stream.flush()
            os.fsync(stream.fileno())
            stored = os.fstat(stream.fileno()).st_blocks * 512
        _refuse_taken(file)
        partial.rename(file)
        sync_folder(file.parent)
    except OSError as error:
        hint = "Make room, or name a file on a larger disk." if error.errno == errno.ENOSPC else ""
        raise DeviceError(f"{file} cannot be written: {error.strerror}.", hint=hint) from None
    finally:
        partial.unlink(missing_ok=True)
    return stored


def _refuse_taken(file: Path) -> None:
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from None
    if stat.S_ISBLK(mode):
        raise RefusedError(f"{file} is a device. Nothing was written.", hint="liferaft restore writes to disks.")
    raise RefusedError(f"{file} exists already. Nothing was written.", hint="Name another file.")


def _refuse_stack(manifest: Manifest, disk: Disk) -> None:
    """Of a disk below arrays, LUKS or LVM only what lies on those is kept, not the disk's own bytes."""
    own = {device.id for device in devices_of_disk(disk)}
    for container in manifest.layout.containers:
        if own & set(container.member_ids):
            raise RefusedError(
                f"{disk.id} cannot be exported: what lies in {container.id} on it was captured, not its own bytes.",
                hint="liferaft restore makes arrays, LUKS and LVM again; capture --part-only keeps a disk as it lies.",
            )


def _choose(manifest: Manifest, wanted: str) -> Disk:
    disks = manifest.layout.disks
    names = ", ".join(disk.id for disk in disks)
    if not wanted and len(disks) == 1:
        return disks[0]
    if not wanted:
        raise UsageError(f"The recovery point has {len(disks)} disks: {names}.", hint="Say which: --disk disk0")
    for disk in disks:
        if wanted in (disk.id, disk.id.removeprefix("disk")):
            return disk
    raise UsageError(f"The recovery point has no disk {wanted!r}; it has {names}.")
