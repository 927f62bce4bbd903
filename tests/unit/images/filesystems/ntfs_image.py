"""NTFS volumes to experiment with: made and filled by ntfs-3g's tools, then changed by the book.

Offsets: ntfs-3g's include/ntfs-3g/layout.h. Nothing here comes from liferaft's reader;
dissect.ntfs says where files lie.
"""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

from dissect.ntfs import NTFS
from dissect.ntfs.mft import MftRecord

from tests.unit.images.filesystems.real import MIB, make_file, run

DATA, VOLUME_NAME, VOLUME_INFORMATION, ATTRIBUTE_LIST, END = 0x80, 0x60, 0x70, 0x20, 0xFFFFFFFF
MFT, MIRROR, LOG, VOLUME, BITMAP = 0, 1, 2, 3, 6
RECORD = 1024
#: MiB, and what mkntfs is asked for.
SMALL = (4, "-c 512")


def make_ntfs(path: Path, mebibytes: int, options: str = "") -> Path:
    """A quickly formatted volume in a plain file, without the boot code's wish to know a disk's geometry."""
    make_file(path, mebibytes * MIB)
    run("mkntfs", "-F", "-Q", "-q", "-L", "lift räft", *options.split(), path)
    return path


def put(path: Path, name: str, content: bytes) -> None:
    """Write a file into the root directory."""
    source = path.with_suffix(".put")
    source.write_bytes(content)
    run("ntfscp", "-q", path, source, name)


def copier(folder: Path) -> Callable[[Path], Path]:
    """A function that makes copies of one small volume with a file in it."""
    content = make_ntfs(folder / "fs.img", *SMALL)
    put(content, "file", bytes(range(256)) * 400)

    def copy(place: Path) -> Path:
        place.write_bytes(content.read_bytes())
        return place

    return copy


def is_mountable(path: Path) -> int:
    """What ntfs-3g says before it mounts for writing: 0 yes, 13 damaged, 14 hibernated, 15 not closed."""
    codes = {code: code for code in (0, 12, 13, 14, 15)}
    for code in codes:
        try:
            run("ntfs-3g.probe", "--readwrite", path, codes=(code,))
        except AssertionError:
            continue
        return code
    raise AssertionError(f"ntfs-3g.probe cannot look at {path}")


def file_digests(path: Path) -> dict[str, str]:
    """Every file below the root directory and its digest, as dissect.ntfs reads it."""
    found: dict[str, str] = {}
    with path.open("rb") as file:
        root = NTFS(file).mft.root
        folders: list[tuple[str, MftRecord]] = [("", root)]
        while folders:
            prefix, folder = folders.pop()
            for name, entry in folder.listdir(ignore_dos=True).items():
                if name == "." or (not prefix and name.startswith("$")):
                    continue
                record = entry.dereference()
                if record.is_dir():
                    folders.append((f"{prefix}{name}/", record))
                else:
                    found[prefix + name] = hashlib.sha256(record.open().read()).hexdigest()
    return found


class Volume:
    """The bytes of a volume: records can be taken out without protection, changed, and put back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = bytearray(path.read_bytes())
        sector, per_cluster = struct.unpack_from("<HB", self.content, 11)
        self.cluster = sector * (per_cluster if per_cluster <= 128 else 1 << (256 - per_cluster))
        self.mft, self.mirror = (lcn * self.cluster for lcn in struct.unpack_from("<QQ", self.content, 48))
        with path.open("rb") as file:
            ntfs = NTFS(file)
            self.runs = {number: ntfs.mft.get(number).dataruns() for number in (MFT, LOG, BITMAP)}

    def place(self, number: int) -> int:
        """Where the content of a system file begins, in bytes."""
        return int(self.runs[number][0][0]) * self.cluster

    def record(self, number: int) -> bytearray:
        """A record with its update sequence undone."""
        record = self.content[self.mft + number * RECORD : self.mft + (number + 1) * RECORD]
        (offset,) = struct.unpack_from("<H", record, 4)
        for step in range(RECORD // 512):
            record[512 * step + 510 : 512 * step + 512] = record[offset + 2 + 2 * step : offset + 4 + 2 * step]
        return record

    def put_record(self, number: int, record: bytearray) -> None:
        """Protect a record and write it, the first four to the mirror too."""
        (offset,) = struct.unpack_from("<H", record, 4)
        protected = bytearray(record)
        for step in range(RECORD // 512):
            end = 512 * step + 512
            protected[offset + 2 + 2 * step : offset + 4 + 2 * step] = record[end - 2 : end]
            protected[end - 2 : end] = record[offset : offset + 2]
        self.content[self.mft + number * RECORD : self.mft + (number + 1) * RECORD] = protected
        if number < 4:
            self.content[self.mirror + number * RECORD : self.mirror + (number + 1) * RECORD] = protected

    def change(self, number: int, kind: int, offset: int, content: bytes) -> None:
        """Overwrite bytes of an attribute, counted from its start."""
        record = self.record(number)
        start = next(start for start, end in spans(record) if struct.unpack_from("<I", record, start)[0] == kind)
        record[start + offset : start + offset + len(content)] = content
        self.put_record(number, record)

    def set_bits(self, first: int, end: int, value: bool) -> None:
        """Set or clear clusters in $Bitmap, which lies in one piece."""
        for cluster in range(first, end):
            index = self.place(BITMAP) + cluster // 8
            mask = 1 << cluster % 8
            self.content[index] = self.content[index] | mask if value else self.content[index] & ~mask

    def save(self) -> Path:
        self.path.write_bytes(self.content)
        return self.path


def spans(record: bytearray) -> list[tuple[int, int]]:
    """Start and end of every attribute of a record."""
    (offset,) = struct.unpack_from("<H", record, 20)
    found = []
    while struct.unpack_from("<I", record, offset)[0] != END:
        (length,) = struct.unpack_from("<I", record, offset + 4)
        found.append((offset, offset + length))
        offset += length
    return found


def rebuild(record: bytearray, attributes: list[bytes]) -> bytearray:
    """The record with other attributes."""
    (first,) = struct.unpack_from("<H", record, 20)
    content = b"".join(attributes) + struct.pack("<II", END, 0)
    built = bytearray(record[:first] + content)
    assert len(built) <= RECORD
    struct.pack_into("<I", built, 24, len(built))
    return built + bytes(RECORD - len(built))


def extension(number: int, base: int, sequence: int, attribute: bytes) -> bytearray:
    """An extension record: one attribute, and the file it belongs to."""
    header = bytearray(56)
    struct.pack_into("<4sHHQHHHHIIQHHI", header, 0, b"FILE", 48, 3, 0, 1, 0, 56, 1, 0, RECORD, base, 1, 0, number)
    struct.pack_into("<Q", header, 32, base | sequence << 48)
    struct.pack_into("<H", header, 48, 1)
    return rebuild(header + bytes(RECORD - 56), [attribute])


def mapped(kind: int, runs: list[tuple[int, int]], first_vcn: int, sizes: tuple[int, int, int], instance: int) -> bytes:
    """A non-resident attribute without a name: ``runs`` are pairs of first cluster and length."""
    pairs, previous = b"", 0
    for lcn, clusters in runs:
        pairs += b"\x44" + struct.pack("<ii", clusters, lcn - previous)
        previous = lcn
    pairs += b"\0"
    pairs += bytes(-len(pairs) % 8)
    last = first_vcn + sum(clusters for _, clusters in runs) - 1
    header = struct.pack("<IIBBHHH", kind, 64 + len(pairs), 1, 0, 64, 0, instance)
    allocated, size, initialized = sizes if first_vcn == 0 else (0, 0, 0)
    return header + struct.pack("<QQHHIQQQ", first_vcn, last, 64, 0, 0, allocated, size, initialized) + pairs


def resident(kind: int, value: bytes, instance: int) -> bytes:
    """A resident attribute without a name."""
    length = 24 + len(value) + -len(value) % 8
    header = struct.pack("<IIBBHHH", kind, length, 0, 0, 24, 0, instance)
    return header + struct.pack("<IHBB", len(value), 24, 0, 0) + value + bytes(-len(value) % 8)


def list_entry(kind: int, first_vcn: int, record: int, sequence: int, instance: int) -> bytes:
    """An entry of an attribute list for an attribute without a name."""
    return struct.pack("<IHBBQQH6x", kind, 32, 0, 26, first_vcn, record | sequence << 48, instance)


def scatter(path: Path, number: int) -> None:
    """Break the one run of $MFT or $Bitmap in three, the last two described by extension records of their own.

    The list of attributes of $Bitmap is resident, that of $MFT lies in a cluster. The last runs have three clusters
    each: of 512 bytes, then a record of the MFT lies in two of them.
    """
    volume = Volume(path)
    lcn, clusters = volume.runs[number][0]
    place = len(volume.content) // volume.cluster * 3 // 4
    runs = [(lcn, clusters - 6), (place, 3), (place - 50, 3)]  # backwards: a negative step
    _scatter_records(volume, number, runs, place + 10)
    for piece in runs[1:]:
        volume.set_bits(piece[0], sum(piece), True)
    start = sum(runs[0]) * volume.cluster
    for lcn, _ in runs[1:]:
        content = volume.content[start : start + 3 * volume.cluster]
        volume.content[lcn * volume.cluster : (lcn + 3) * volume.cluster] = content
        volume.content[start : start + 3 * volume.cluster] = bytes(3 * volume.cluster)
        start += 3 * volume.cluster
    volume.save()


def _scatter_records(volume: Volume, number: int, runs: list[tuple[int, int]], spare: int) -> None:
    """Rewrite the base record, with an attribute list, and the extension records from 16 on."""
    record = volume.record(number)
    (sequence,) = struct.unpack_from("<H", record, 16)
    attributes = [bytes(record[start:end]) for start, end in spans(record)]
    data = next(item for item in attributes if struct.unpack_from("<I", item)[0] == DATA)
    sizes = struct.unpack_from("<QQQ", data, 40)
    first = 16 if number == MFT else 20
    entries, vcn, changed = [], 0, []
    for item in attributes:
        kind, instance = struct.unpack_from("<I", item)[0], struct.unpack_from("<H", item, 14)[0]
        if kind != DATA:
            entries.append((kind, 0, number, sequence, instance))
            changed.append(item)
            continue
        for index, piece in enumerate(runs):
            attribute = mapped(DATA, [piece], vcn, sizes, instance)
            holder = number if index == 0 else first + index - 1
            entries.append((DATA, vcn, holder, sequence if index == 0 else 1, instance))
            if index == 0:
                changed.append(attribute)
            else:
                volume.put_record(holder, extension(holder, number, sequence, attribute))
            vcn += piece[1]
    content = b"".join(list_entry(*entry) for entry in entries)
    if number == MFT:
        volume.content[spare * volume.cluster : spare * volume.cluster + len(content)] = content
        volume.set_bits(spare, spare + 1, True)
        attribute_list = mapped(ATTRIBUTE_LIST, [(spare, 1)], 0, (volume.cluster, len(content), len(content)), 99)
    else:
        attribute_list = resident(ATTRIBUTE_LIST, content, 99)
    position = next(index for index, item in enumerate(changed) if struct.unpack_from("<I", item)[0] > ATTRIBUTE_LIST)
    changed.insert(position, attribute_list)
    volume.put_record(number, rebuild(record, changed))
