"""exFAT volumes to experiment with: made by mkfs.exfat, then changed by the book.

The book: Microsoft's exFAT file system specification. Nothing here comes from liferaft's reader.
"""

import struct
from pathlib import Path

from tests.unit.images.filesystems.real import MIB, make_file, run

END = 0xFFFFFFFF


def make_exfat(path: Path, mebibytes: int, options: str = "") -> Path:
    run("mkfs.exfat", "-L", "räft", *options.split(), make_file(path, mebibytes * MIB))
    return path


class Volume:
    """The bytes of a volume, with the fields of its boot sector (specification, section 3.1)."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.sector = 1 << content[108]
        self.cluster = self.sector << content[109]
        fields = struct.unpack_from("<IIIII", content, 80)
        self.fat, self.heap = fields[0] * self.sector, fields[2] * self.sector
        self.clusters, self.root = fields[3], fields[4]

    def place(self, cluster: int) -> int:
        return self.heap + (cluster - 2) * self.cluster

    def entry(self, kind: int) -> int:
        """Where the root directory's first entry of a kind lies."""
        return next(at for at in range(self.place(self.root), len(self.content), 32) if self.content[at] == kind)

    def first_cluster(self, kind: int) -> int:
        return int(struct.unpack_from("<I", self.content, self.entry(kind) + 20)[0])

    def set_fat(self, cluster: int, value: int) -> None:
        struct.pack_into("<I", self.content, self.fat + 4 * cluster, value)

    def set_bit(self, cluster: int, value: bool) -> None:
        index, mask = self.place(self.first_cluster(0x81)) + (cluster - 2) // 8, 1 << (cluster - 2) % 8
        self.content[index] = self.content[index] | mask if value else self.content[index] & ~mask

    def sign(self, region: int = 0) -> None:
        """Make the checksum of a boot region right again (specification, section 3.4)."""
        start, value = region * 12 * self.sector, 0
        for index in range(11 * self.sector):
            if index not in (106, 107, 112):
                value = (((value & 1) << 31) + (value >> 1) + self.content[start + index]) & 0xFFFFFFFF
        end = start + 11 * self.sector
        self.content[end : end + self.sector] = struct.pack("<I", value) * (self.sector // 4)

    def put(self, name: str, content: bytes, clusters: list[int]) -> None:
        """Add a file to the root directory, in these clusters (sections 6.2.4, 7.4, 7.6, 7.7)."""
        at = self.entry(0x00)
        for index, cluster in enumerate(clusters):
            part = content[index * self.cluster : (index + 1) * self.cluster]
            self.content[self.place(cluster) : self.place(cluster) + len(part)] = part
            self.set_fat(cluster, clusters[index + 1] if index + 1 < len(clusters) else END)
            self.set_bit(cluster, True)
        entries = bytearray(96)
        entries[0], entries[1], entries[32], entries[64] = 0x85, 2, 0xC0, 0xC1
        struct.pack_into("<HxxIII", entries, 4, 0x20, 0x5A210000, 0x5A210000, 0x5A210000)
        hash_ = 0
        for byte in name.upper().encode("utf-16-le"):
            hash_ = (((hash_ & 1) << 15) + (hash_ >> 1) + byte) & 0xFFFF
        struct.pack_into("<BxBHxxQxxxxIQ", entries, 33, 1, len(name), hash_, len(content), clusters[0], len(content))
        entries[66 : 66 + 2 * len(name)] = name.encode("utf-16-le")
        value = 0
        for index, byte in enumerate(entries):
            if index not in (2, 3):
                value = (((value & 1) << 15) + (value >> 1) + byte) & 0xFFFF
        struct.pack_into("<H", entries, 2, value)
        self.content[at : at + 96] = entries


def scattered_file(path: Path) -> dict[str, bytes]:
    """Two files whose clusters alternate, from the end of the volume backwards: its last cluster is in use."""
    volume = Volume(path.read_bytes())
    files = {"one.bin": b"1234567" * (volume.cluster // 2), "two.bin": b"abcd" * (volume.cluster * 2)}
    top = volume.clusters + 1
    for number, (name, content) in enumerate(files.items()):
        count = -(-len(content) // volume.cluster)
        volume.put(name, content, [top - number - 3 * index for index in range(count)])
    path.write_bytes(volume.content)
    return files


def with_4k_sectors(path: Path) -> None:
    """The same volume described in sectors of 4096 bytes, its boot regions written anew (section 3)."""
    volume = Volume(path.read_bytes())
    boot = bytearray(volume.content[:512])
    for form, offset in (("<Q", 72), ("<I", 80), ("<I", 84), ("<I", 88)):
        (sectors,) = struct.unpack_from(form, boot, offset)
        assert sectors % 8 == 0
        struct.pack_into(form, boot, offset, sectors // 8)
    boot[108] += 3
    boot[109] -= 3
    assert volume.fat >= 24 * 4096
    volume.sector = 4096
    for region in (0, 1):
        start = region * 12 * 4096
        volume.content[start : start + 12 * 4096] = boot + bytes(12 * 4096 - 512)
        for index in range(1, 9):
            volume.content[start + (index + 1) * 4096 - 4 : start + (index + 1) * 4096] = b"\x00\x00\x55\xaa"
        volume.sign(region)
    path.write_bytes(volume.content)
