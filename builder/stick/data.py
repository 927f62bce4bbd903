"""The filesystem of a stick's data partition, made in a scratch file: what of it has to be written, and where.

Made beside the stick and not on it: nothing has to be mounted or told to the kernel, it works on image files without
root, and a tool that fails does so before the stick loses anything. Only the blocks in use are written.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from builder.stick.layout import SECTOR
from core.errors import DeviceError, MissingToolError
from core.process import Runner, find_tool
from core.units import format_size
from images.filesystems.detect import read_used
from images.model.extents import Extent
from images.sources import FileSource, open_source

#: The volume label; FAT and exFAT have room for eleven characters.
VOLUME_LABEL = "RESCUE-DATA"


class DataKind(StrEnum):
    """What a data partition holds."""

    EXFAT = "exfat"
    EXT4 = "ext4"
    FAT32 = "fat32"


#: The program that makes each, and the Debian package it is in.
_TOOLS = {
    DataKind.EXFAT: ("mkfs.exfat", "exfatprogs"),
    DataKind.EXT4: ("mkfs.ext4", "e2fsprogs"),
    DataKind.FAT32: ("mkfs.fat", "dosfstools"),
}


class NoMakerError(MissingToolError):
    """What makes a filesystem of the kind that was chosen is not installed."""


class DataImage(msgspec.Struct, frozen=True):
    """A filesystem that is ready to be written. ``source`` is as large as its partition; ``used``: bytes of it."""

    source: FileSource
    used: tuple[Extent, ...]
    uuid: str


@contextlib.contextmanager
def data_image(kind: DataKind, place: Extent, runner: Runner) -> Iterator[DataImage]:
    """An empty filesystem for the partition at ``place`` of a stick, in a sparse scratch file.

    Raises:
        NoMakerError: what makes such a filesystem is not installed.
        DeviceError: there is no room for the scratch file.
        ProcessError: the filesystem cannot be made.
    """
    program, package = _TOOLS[kind]
    if find_tool(program) is None:
        raise NoMakerError(f"The program {program} is not installed.", hint=f"It is in the package {package}.")
    with tempfile.NamedTemporaryFile(prefix="liferaft-stick-") as scratch:
        try:
            scratch.truncate(place.size)
        except OSError as error:
            raise DeviceError(
                f"A sparse file of {format_size(place.size)} cannot be made in {Path(scratch.name).parent}: "
                f"{error.strerror}.",
                hint="Set TMPDIR to a folder whose filesystem can hold such files.",
            ) from None
        runner.run(_argv(kind, place, scratch.name), timeout=300)
        with open_source(Path(scratch.name), sector_size=SECTOR) as source:
            found = read_used(source)
            if not found.trusted or found.filesystem.label != VOLUME_LABEL:
                raise DeviceError(f"{program} made a filesystem that liferaft does not read: {found.reason}.")
            yield DataImage(source, tuple(found.extents()), found.filesystem.uuid)


def _argv(kind: DataKind, place: Extent, path: str) -> list[str]:
    if kind is DataKind.EXFAT:
        return ["mkfs.exfat", "-L", VOLUME_LABEL, path]
    if kind is DataKind.FAT32:
        # The sectors in front of it: Windows' boot code and some firmware go by that (Microsoft, fatgen103).
        return ["mkfs.fat", "-F", "32", "-n", VOLUME_LABEL, "-h", str(place.start // SECTOR), path]
    # Packs are large: few inodes, a small journal, nothing kept for root. Lazy inode tables are zeroed by the kernel
    # when it mounts them, so that nothing relies on what lies in unused blocks of the stick.
    words = ["mkfs.ext4", "-q", "-F", "-m", "0", "-i", "1048576", "-J", "size=16", "-L", VOLUME_LABEL]
    return [*words, "-E", "lazy_itable_init=1,lazy_journal_init=0,nodiscard", path]
