"""Files of an ISO 9660 volume with Rock Ridge names, and its El Torito boot images, out of any source.

Reads what xorriso writes for a medium: one volume descriptor set, files of one or more extents (level 3), names in
``NM``. It is no general reader: no Joliet, no links, no zisofs, no multi-session.

Sources: ECMA-119 (the field names are its), the Rock Ridge Interchange Protocol 1.12 (``NM``), SUSP 1.12 (``SP``,
``CE``), El Torito 1.0.
"""

import struct
from collections.abc import Iterator

import msgspec

from core.errors import DamagedError, DeviceError
from images.model.extents import Extent
from images.sources import BlockSource

BLOCK = 2048
_FIRST_DESCRIPTOR, _LAST_DESCRIPTOR = 16, 48
_PRIMARY, _BOOT_RECORD, _TERMINATOR = 1, 0, 255
_FLAG_FOLDER, _FLAG_MORE = 0x02, 0x80
_FOLDER_LIMIT, _FILES_LIMIT, _DEPTH_LIMIT = 4 << 20, 100_000, 16
#: Bytes of folders and continued names that are read at most: folders may lie over each other, so that a small file
#: could ask for terabytes. A medium with a thousand folders of Windows drivers has 2 MiB. A read counts as one record
#: at least.
_STRUCTURE_LIMIT, _LEAST_READ = 16 << 20, 64
#: Areas of a record's system use that CE entries may chain.
_CONTINUATIONS = 8
_EL_TORITO = b"EL TORITO SPECIFICATION"
#: Bytes of a sector as El Torito counts a boot image's size.
_VIRTUAL_SECTOR = 512


class Platform:
    """El Torito's platform ids (1.0, figure 3; UEFI 2.10, 13.3.2.1)."""

    BIOS = 0x00
    UEFI = 0xEF


class IsoFile(msgspec.Struct, frozen=True):
    """A file: its path without a leading slash, and where its bytes lie in the ISO, in order."""

    path: str
    extents: tuple[Extent, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(extent.size for extent in self.extents)


class BootImage(msgspec.Struct, frozen=True):
    """An El Torito image: the platform that starts it and its place in bytes."""

    platform: int
    extent: Extent


class Volume(msgspec.Struct, frozen=True):
    """An ISO's volume.

    Attributes:
        label: the volume identifier.
        size: bytes that it claims to have.
        files: by path, in the order of their folders.
        boot_images: in the order of the catalog.
    """

    label: str
    size: int
    files: dict[str, IsoFile]
    boot_images: tuple[BootImage, ...]


def read_volume(source: BlockSource, name: str) -> Volume:
    """Read the structure of the ISO in ``source``; the content of files is not touched.

    Args:
        name: what errors call it.

    Raises:
        DamagedError: not an ISO, cut short inside its own structure, or contradicting itself: file, offset, field,
            expected and found.
    """
    return _Reader(source, name).volume()


class _Reader:
    def __init__(self, source: BlockSource, name: str) -> None:
        self._source = source
        self._name = name
        self._seen: set[int] = set()
        self._left = _STRUCTURE_LIMIT
        self._skip = 0

    def volume(self) -> Volume:
        primary, catalog = self._descriptors()
        root = primary[156:190]
        files: dict[str, IsoFile] = {}
        self._skip = self._system_use_start(root)
        for file in self._folder(root, "", _DEPTH_LIMIT):
            if len(files) >= _FILES_LIMIT:
                raise DamagedError(f"{self._name} has more than {_FILES_LIMIT} files; a medium has a few dozen.")
            files[file.path] = file
        return Volume(
            label=primary[40:72].decode("ascii", "replace").rstrip(),
            size=int.from_bytes(primary[80:84], "little") * BLOCK,
            files=files,
            boot_images=tuple(self._boot_images(catalog)) if catalog else (),
        )

    def _descriptors(self) -> tuple[bytes, int]:
        """The primary volume descriptor, and the block of the boot catalog (0 when there is none)."""
        primary, catalog = b"", 0
        for number in range(_FIRST_DESCRIPTOR, _LAST_DESCRIPTOR):
            offset = number * BLOCK
            if offset + BLOCK > self._source.size:
                break
            raw = self._read(offset, BLOCK, "volume descriptor")
            if raw[1:6] != b"CD001":
                break
            if raw[0] == _PRIMARY and not primary:
                primary = raw
            elif raw[0] == _BOOT_RECORD and raw[7:39].rstrip(b"\0") == _EL_TORITO:
                catalog = int.from_bytes(raw[71:75], "little")
            elif raw[0] == _TERMINATOR:
                break
        place = _FIRST_DESCRIPTOR * BLOCK
        if not primary:
            if self._source.size < place + BLOCK:
                found = f"the file ends at {self._source.size}"
            else:
                found = repr(self._read(place, 6, "volume descriptor"))
            raise DamagedError(
                f"{self._name} is not an ISO: offset {place}, expected \\x01CD001, found {found}.",
                hint="Was it copied or downloaded whole?",
            )
        self._both(primary, 80, 4, place, "volume space size")
        if (size := int.from_bytes(primary[128:130], "little")) != BLOCK:
            raise DamagedError(
                f"{self._name}, offset {place + 128}, logical block size: expected {BLOCK}, found {size}."
            )
        return primary, catalog

    def _folder(self, record: bytes, path: str, depth: int) -> Iterator[IsoFile]:
        """Every file below the folder of a directory ``record``."""
        start, size = self._extent(record)
        if size > _FOLDER_LIMIT or depth == 0 or start in self._seen:
            why = "is in itself" if start in self._seen else "is too deep" if depth == 0 else f"has {size} bytes"
            raise DamagedError(f"{self._name}: the folder /{path} at offset {start} {why}.")
        self._seen.add(start)
        content = self._read(start, size, f"folder /{path}")
        pending: list[Extent] = []
        position = number = 0
        while position < size:
            length = content[position]
            if length == 0:
                # Records do not cross a block; the rest of this one is empty.
                position = (position // BLOCK + 1) * BLOCK
                continue
            child = content[position : position + length]
            if length < 34 or len(child) < length or child[32] + 33 > length:
                raise DamagedError(
                    f"{self._name}, offset {start + position}, directory record of /{path}: "
                    f"expected at least {34} bytes that lie in the folder, found {length}."
                )
            position += length
            number += 1
            if number <= 2:  # The folder itself and its parent.
                continue
            inside = f"{path}/{self._name_of(child, start)}".lstrip("/")
            if child[25] & _FLAG_FOLDER:
                yield from self._folder(child, inside, depth - 1)
                continue
            place, bytes_ = self._extent(child)
            pending.append(Extent(place, place + bytes_))
            if not child[25] & _FLAG_MORE:
                yield IsoFile(inside, tuple(extent for extent in pending if extent.size))
                pending = []

    def _extent(self, record: bytes) -> tuple[int, int]:
        """Offset and size in bytes of what a directory record stands for."""
        block = int.from_bytes(record[2:6], "little")
        size = int.from_bytes(record[10:14], "little")
        for at in (2, 10):
            if record[at : at + 4] != record[at + 4 : at + 8][::-1]:
                raise DamagedError(
                    f"{self._name}: a directory record gives {record[at : at + 4].hex()} and, in the other byte order, "
                    f"{record[at + 4 : at + 8].hex()} for the same number."
                )
        return (block + record[1]) * BLOCK, size

    def _system_use_start(self, root: bytes) -> int:
        """Bytes to skip in each record's system use field: SUSP's SP, in the root's own record."""
        start, _ = self._extent(root)
        first = self._read(start, 256, "root folder")
        begin = 33 + first[32] + (1 - first[32] % 2)
        found = first[begin : begin + 7]
        return found[6] if len(found) == 7 and found[:2] == b"SP" else 0

    def _name_of(self, record: bytes, place: int) -> str:
        plain = record[33 : 33 + record[32]]
        use = record[33 + record[32] + (1 - record[32] % 2) + self._skip :]
        parts: list[bytes] = []
        for _ in range(_CONTINUATIONS):
            following: tuple[int, int] | None = None
            while len(use) >= 4 and 4 <= use[2] <= len(use):
                signature, length = use[:2], use[2]
                if signature == b"NM" and length >= 5:
                    parts.append(use[5:length])
                elif signature == b"CE" and length >= 28:
                    block, offset, size = struct.unpack_from("<I4xI4xI", use, 4)
                    following = (block * BLOCK + offset, size)
                use = use[length:]
            if following is None:
                break
            if following[1] > BLOCK:
                raise DamagedError(f"{self._name}, offset {place}: a name is continued with {following[1]} bytes.")
            use = self._read(*following, "continued name")
        name = b"".join(parts).decode("utf-8", "surrogateescape") or plain.split(b";")[0].decode("ascii", "replace")
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise DamagedError(f"{self._name}: the folder at offset {place} has a file with the name {name!r}.")
        return name

    def _boot_images(self, catalog: int) -> Iterator[BootImage]:
        """Initial entry and section entries; see El Torito 1.0, section 2."""
        place = catalog * BLOCK
        raw = self._read(place, BLOCK, "boot catalog")
        if raw[0] != 1 or raw[30:32] != b"\x55\xaa" or sum(struct.unpack("<16H", raw[:32])) & 0xFFFF:
            raise DamagedError(
                f"{self._name}, offset {place}, boot catalog: expected a validation entry with a sum of 0, "
                f"found {raw[:32].hex()}."
            )
        platform, left = raw[1], 1
        for at in range(32, BLOCK, 32):
            kind = raw[at]
            if left == 0:
                if kind not in (0x90, 0x91):
                    return
                platform, left = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "little")
                continue
            left -= 1
            if kind != 0x88:  # Not bootable.
                continue
            sectors, block = struct.unpack_from("<HI", raw, at + 6)
            yield BootImage(platform, Extent(block * BLOCK, block * BLOCK + max(sectors, 1) * _VIRTUAL_SECTOR))

    def _both(self, raw: bytes, at: int, width: int, place: int, field: str) -> None:
        """A number is kept in both byte orders (ECMA-119 7.3.3): they must agree."""
        if raw[at : at + width] != raw[at + width : at + 2 * width][::-1]:
            raise DamagedError(
                f"{self._name}, offset {place + at}, {field}: expected both byte orders to agree, "
                f"found {raw[at : at + 2 * width].hex()}."
            )

    def _read(self, offset: int, length: int, what: str) -> bytes:
        self._left -= max(length, _LEAST_READ)
        if self._left < 0:
            raise DamagedError(
                f"{self._name}, offset {offset}, {what}: its folders and names have more than {_STRUCTURE_LIMIT} bytes "
                "together, expected a few thousand."
            )
        if offset + length > self._source.size:
            raise DamagedError(
                f"{self._name} is cut short: its {what} lies at offset {offset} to {offset + length}, "
                f"and the file ends at {self._source.size}.",
                hint="Copy or download it again.",
            )
        try:
            return self._source.read_at(offset, length)
        except DeviceError as error:
            raise DamagedError(f"{self._name}, {what}: {error.message}") from None
