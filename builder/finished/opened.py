"""A finished medium, opened without root: the ISO (or a stick it was written to), or the folder of a netboot set.

Files by path, as sources of which any range can be read; nothing is mounted, no program is started and nothing is
written. What a file should be is not judged here (``inspection`` does): only a structure that cannot be followed is
an error.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from builder.document import MEDIUM_DOCUMENT, MediumDocument, parse_medium
from builder.finished.iso9660 import IsoFile, Platform, Volume, read_volume
from builder.netboot_document import NETBOOT_DOCUMENT, NetbootDocument, parse_netboot
from core.errors import DamagedError, DeviceError, RefusedError, UsageError
from core.units import MIB, format_size
from images.browse.entry import Entry, Filesystem, Kind
from images.model.extents import Extent
from images.sources import BlockSource, WindowSource, open_source

#: Documents and lists of a medium are smaller.
SMALL_FILE = 16 * MIB
_PIECE = MIB
_BOOT_FILE_LIMIT = 64 * MIB
_BOOT_DEPTH = 8
#: What every medium has, also those from before media described themselves.
_MARKS = (MEDIUM_DOCUMENT, "liferaft/packages.txt")


class JoinedSource:
    """The extents of one file as a source of their own."""

    def __init__(self, inner: BlockSource, extents: tuple[Extent, ...]) -> None:
        self._inner = inner
        self._extents = extents
        self._size = sum(extent.size for extent in extents)

    @property
    def size(self) -> int:
        return self._size

    @property
    def sector_size(self) -> int:
        return self._inner.sector_size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self._size:
            raise DeviceError(f"{length} bytes at {offset} are outside a file of {self._size} bytes.")
        parts, start = [], 0
        for extent in self._extents:
            low, high = max(offset - start, 0), min(offset + length - start, extent.size)
            if low < high:
                parts.append(self._inner.read_at(extent.start + low, high - low))
            start += extent.size
        return b"".join(parts)


class OpenedMedium:
    """A medium that is open; made by :func:`open_medium`.

    Attributes:
        name: what errors call it.
        document: its own document; None on a medium from before there was one.
        around: what a netboot set has beside the medium's files; None for an ISO, and for a set from before that was
            written down.
        volume: the ISO's structure; None for a folder.
        size: bytes of the ISO, or of all files of the folder.
        cut: bytes that the ISO should have and the file lacks.
    """

    def __init__(self, name: str, source: BlockSource | None, volume: Volume | None, files: dict[str, Path]) -> None:
        self.name = name
        self.volume = volume
        self.document: MediumDocument | None = None
        self.around: NetbootDocument | None = None
        self._source = source
        self._folder = files
        # A stick is bigger than the ISO on it.
        self.size = (
            min(source.size, volume.size)
            if source is not None and volume is not None
            else sum(path.stat().st_size for path in files.values())
        )
        self.cut = max(volume.size - source.size, 0) if source is not None and volume is not None else 0

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file, sorted."""
        return tuple(sorted(self.volume.files if self.volume is not None else self._folder))

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return path in (self.volume.files if self.volume is not None else self._folder)

    def file_size(self, path: str) -> int:
        """Bytes of a file, as the medium's own structure says; it may be cut short.

        Raises:
            DamagedError: there is no such file.
        """
        return self._folder[self._known(path)].stat().st_size if self.volume is None else self._entry(path).size

    def place(self, path: str) -> int:
        """Offset in the ISO of the first byte of a file; 0 for a folder's."""
        return 0 if self.volume is None or not self._entry(path).extents else self._entry(path).extents[0].start

    def ends_inside(self, path: str) -> bool:
        """Whether the end of the ISO cuts this file."""
        if self.volume is None or self._source is None:
            return False
        return any(extent.end > self._source.size for extent in self._entry(path).extents)

    @contextlib.contextmanager
    def source(self, path: str) -> Iterator[BlockSource]:
        """The bytes of a file.

        Raises:
            DamagedError: no such file, or the ISO ends inside it.
        """
        if self.volume is None or self._source is None:
            with open_source(self._folder[self._known(path)]) as opened:
                yield opened
            return
        if self.ends_inside(path):
            raise DamagedError(
                f"{self.name} is cut short: {path} lies at offset {self.place(path)} to "
                f"{self.place(path) + self.file_size(path)}, and the file ends at {self._source.size}.",
                hint="Copy or download it again.",
            )
        yield JoinedSource(self._source, self._entry(path).extents)

    def read(self, path: str, limit: int = SMALL_FILE) -> bytes:
        """The content of a small file.

        Raises:
            DamagedError: no such file, larger than ``limit`` bytes, or cut.
        """
        if (size := self.file_size(path)) > limit:
            raise DamagedError(f"{self.name}: {path} has {size} bytes, expected at most {format_size(limit)}.")
        if size == 0:
            return b""
        with self.source(path) as source:
            return source.read_at(0, size)

    def pieces(self, path: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of a range of a file, 1 MiB at a time."""
        end = self.file_size(path) if end is None else end
        if start >= end:
            return
        with self.source(path) as source:
            for offset in range(start, end, _PIECE):
                yield source.read_at(offset, min(_PIECE, end - offset))

    def extract(self, path: str, target: Path) -> str:
        """Copy a file out to ``target``, which must not exist; returns the SHA-256 of what was copied.

        Raises:
            DamagedError: no such file, or cut. DeviceError: ``target`` cannot be written. Then it does not exist.
        """
        digest = hashlib.sha256()
        try:
            with target.open("xb") as stream:
                try:
                    for piece in self.pieces(path):
                        digest.update(piece)
                        stream.write(piece)
                except BaseException:
                    target.unlink(missing_ok=True)
                    raise
        except OSError as error:
            hint = "Make room there, or name a folder on another disk." if error.errno == errno.ENOSPC else ""
            raise DeviceError(f"{target} cannot be written: {error.strerror}.", hint=hint) from None
        return digest.hexdigest()

    def efi_image(self) -> BlockSource:
        """The FAT image that UEFI starts from.

        Raises:
            DamagedError: there is none, or the ISO ends inside it. RefusedError: a folder has none.
        """
        return self.boot_image(Platform.UEFI)

    def efi_files(self) -> dict[str, bytes]:
        """Every file of the EFI image, by path (``EFI/BOOT/BOOTX64.EFI``)."""
        # Libraries that most commands on a medium never need: a third of the time they take to start.
        from images.browse.fat import FatFilesystem
        from images.browse.tree import broken

        image = self.efi_image()
        try:
            return dict(_fat_files(FatFilesystem(image), 0, "", _BOOT_DEPTH))
        except DeviceError as error:
            raise DamagedError(f"{self.name}: the EFI image cannot be read: {error}") from None
        except broken() as error:
            raise DamagedError(f"{self.name}: the EFI image cannot be read: {error}") from None

    def boot_image(self, platform: int, size: int = 0) -> BlockSource:
        """The image that El Torito gives to a platform.

        Args:
            size: bytes, when they are known: the catalog names only what firmware loads first.

        Raises:
            DamagedError: there is none, or the ISO ends inside it. RefusedError: a folder has none.
        """
        if self.volume is None or self._source is None:
            raise RefusedError(f"{self.name} is a folder: it has no boot images.")
        found = next((image.extent for image in self.volume.boot_images if image.platform == platform), None)
        if found is None:
            raise DamagedError(f"{self.name}: the boot catalog has no image for platform {platform:#04x}.")
        if size:
            found = Extent(found.start, found.start + size)
        if found.end > self._source.size:
            raise DamagedError(
                f"{self.name} is cut short: a boot image lies at offset {found.start} to {found.end}, "
                f"and the file ends at {self._source.size}.",
                hint="Copy or download it again.",
            )
        return WindowSource(self._source, found.start, found.size)

    def _entry(self, path: str) -> IsoFile:
        assert self.volume is not None
        return self.volume.files[self._known(path)]

    def _known(self, path: str) -> str:
        if not self.has(path):
            raise DamagedError(f"{self.name} has no file {path}.")
        return path


@contextlib.contextmanager
def open_medium(path: Path) -> Iterator[OpenedMedium]:
    """Open an ISO, a stick or a netboot folder that liferaft made, of any age.

    An ISO that is cut short opens as long as its folders can be read: ``cut`` says how much is missing.

    Raises:
        UsageError: there is no such path, or nothing in it.
        DeviceError: it cannot be opened.
        DamagedError: empty, not an ISO, not liferaft's, or its structure or document is damaged.
    """
    if path.is_dir():
        medium = OpenedMedium(str(path), None, None, dict(_walk(path)))
        _take_document(medium)
        yield medium
        return
    if not path.exists():
        raise UsageError(f"{path} does not exist.", hint="Name an ISO, a stick or the folder of a netboot set.")
    if path.is_file() and path.stat().st_size == 0:
        raise DamagedError(f"{path} is empty: it is no ISO.", hint="Copy or download it again.")
    with open_source(path) as source:
        medium = OpenedMedium(str(path), source, read_volume(source, str(path)), {})
        _take_document(medium)
        yield medium


def _take_document(medium: OpenedMedium) -> None:
    if not any(medium.has(mark) for mark in _MARKS):
        label = f" (its label is {medium.volume.label!r})" if medium.volume is not None else ""
        raise DamagedError(
            f"{medium.name} is no liferaft medium: it has no {MEDIUM_DOCUMENT}{label}.",
            hint="liferaft build makes one.",
        )
    if medium.has(MEDIUM_DOCUMENT):
        medium.document = parse_medium(medium.read(MEDIUM_DOCUMENT), name=f"{medium.name}: {MEDIUM_DOCUMENT}")
    if medium.volume is None and medium.has(NETBOOT_DOCUMENT):
        medium.around = parse_netboot(medium.read(NETBOOT_DOCUMENT), name=f"{medium.name}: {NETBOOT_DOCUMENT}")


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, _, names in os.walk(folder):
        for name in names:
            found = Path(root) / name
            if found.is_file():
                yield found.relative_to(folder).as_posix(), found


def _fat_files(filesystem: Filesystem, node: int, path: str, depth: int) -> Iterator[tuple[str, bytes]]:
    if depth == 0:
        raise DamagedError(f"EFI image: the folder {path} is too deep.")
    for child in filesystem.children(node):
        entry: Entry = filesystem.entry(child.node)
        inside = f"{path}/{child.name}".lstrip("/")
        if entry.kind is Kind.FOLDER:
            yield from _fat_files(filesystem, child.node, inside, depth - 1)
        else:
            yield inside, filesystem.content(child.node).read(_BOOT_FILE_LIMIT)
