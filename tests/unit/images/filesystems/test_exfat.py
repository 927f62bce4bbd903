"""exFAT: real volumes against exfatprogs, partclone, the specification and themselves.

Files are written by the kernel's and FUSE's drivers in tests/disk; here they are placed by the book.
"""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.filesystems.exfat import read_exfat
from images.model.extents import Extent, gaps, merge
from images.sources import BytesSource, open_source
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.exfat_image import END, Volume, make_exfat, scattered_file, with_4k_sectors
from tests.unit.images.filesystems.real import MIB, CountingSource, run, used, whole

pytestmark = pytest.mark.skipif(
    bool(real.needs("mkfs.exfat", "fsck.exfat", "dump.exfat")), reason="exfatprogs is not installed"
)

#: MiB, and what mkfs.exfat is asked for.
LAYOUTS = {
    "default": (64, ""),
    "clusters-of-512": (16, "-c 512"),
    "clusters-of-32m": (200, "-c 32M"),
    "packed-bitmap": (64, "--pack-bitmap"),
    "boundary-of-4m": (64, "-b 4M -c 128K"),
}
BY_PARTCLONE = {"default"}
SMALL = (4, "-c 512 -b 512")


def expected_used(path: Path, files: dict[str, bytes]) -> list[Extent]:
    """By dump.exfat's account of the volume and by where the files were put."""
    facts = {
        name.strip(): value
        for name, value in re.findall(r"^([^:\n]+):\s+(\S+)$", run("dump.exfat", path), re.MULTILINE)
    }
    sector = 1 << int(facts["Sector Size Bits"])
    cluster = int(facts["Cluster size"])
    heap, count = int(facts["Cluster Heap Offset (sector offset)"]) * sector, int(facts["Total Clusters"])
    assert int(facts["Cluster Count"]) == count
    taken = {int(facts["Root Cluster (cluster offset)"])}
    for name in ("Bitmap", "Upcase table"):
        first, size = int(facts[f"{name} start cluster"]), int(facts[f"{name} size"])
        taken |= set(range(first, first + -(-size // cluster)))
    for number, content in enumerate(files.values()):
        taken |= {count + 1 - number - 3 * index for index in range(-(-len(content) // cluster))}
    assert count - len(taken) == int(facts["Free Clusters"])
    extents = [Extent(0, heap)]
    extents += [Extent(heap + (number - 2) * cluster, heap + (number - 1) * cluster) for number in sorted(taken)]
    return list(merge([*extents, Extent(heap + count * cluster, int(facts["Volume Length(sectors)"]) * sector)]))


@pytest.mark.parametrize(
    ("name", "sectors"),
    [(name, sectors) for name in LAYOUTS for sectors in (512, 4096) if (name, sectors) != ("clusters-of-512", 4096)],
)
def test_equals_dump_exfat_and_partclone(tmp_path: Path, name: str, sectors: int) -> None:
    path = make_exfat(tmp_path / "fs.img", *LAYOUTS[name])
    if sectors == 4096:
        with_4k_sectors(path)
    files = scattered_file(path) if name in ("default", "clusters-of-512", "packed-bitmap") else {}
    answer, extents = used(path)
    assert answer.reason == ""
    assert answer.trusted
    assert (answer.filesystem.kind.value, answer.filesystem.detail) == ("exfat", "exfat")
    assert answer.filesystem.label == "räft"
    assert answer.filesystem.uuid == run("blkid", "-p", "-o", "value", "-s", "UUID", path).strip()
    assert extents == expected_used(path, files)
    if name in BY_PARTCLONE and not real.needs("partclone.exfat"):
        real.assert_covers(extents, real.partclone_used("partclone.exfat", path))


@pytest.mark.parametrize("name", ["default", "clusters-of-512", "packed-bitmap"])
def test_copy_of_used_extents_is_sound_and_complete(tmp_path: Path, name: str) -> None:
    path = make_exfat(tmp_path / "fs.img", *LAYOUTS[name])
    files = scattered_file(path)
    run("fsck.exfat", "-n", path)
    copy = real.restore_copy(path, used(path)[1])
    assert "files 2" in run("fsck.exfat", "-n", copy)
    volume = Volume(copy.read_bytes())
    for number, content in enumerate(files.values()):
        top = volume.clusters + 1 - number
        places = [volume.place(top - 3 * index) for index in range(-(-len(content) // volume.cluster))]
        found = b"".join(volume.content[place : place + volume.cluster] for place in places)
        assert found[: len(content)] == content


def test_a_full_volume(tmp_path: Path) -> None:
    path = make_exfat(tmp_path / "fs.img", *SMALL)
    volume = Volume(path.read_bytes())
    taken = Volume(path.read_bytes()).root + 1
    volume.put(
        "fill.bin", b"!" * volume.cluster * (volume.clusters + 2 - taken), list(range(taken, volume.clusters + 2))
    )
    path.write_bytes(volume.content)
    assert re.search(r"Free Clusters:\s+0\n", run("dump.exfat", path))
    answer, extents = used(path)
    assert answer.trusted
    assert extents == [Extent(0, 4 * MIB)]


def test_a_partition_larger_than_its_volume(tmp_path: Path) -> None:
    path = make_exfat(tmp_path / "fs.img", *SMALL)
    before = used(path)
    with path.open("ab") as file:
        file.write(b"?" * MIB)
    after = used(path)
    assert after[0].trusted
    assert (after[0].filesystem, after[1]) == (before[0].filesystem, before[1])


def test_a_scattered_bitmap(tmp_path: Path) -> None:
    """The bitmap is a chain like any other: here its last cluster lies at the end of the volume."""
    path = make_exfat(tmp_path / "fs.img", *SMALL)
    volume = Volume(path.read_bytes())
    first, size = volume.first_cluster(0x81), struct.unpack_from("<Q", volume.content, volume.entry(0x81) + 24)[0]
    assert size > volume.cluster
    last, new = first + -(-size // volume.cluster) - 1, volume.clusters + 1
    part = slice(volume.place(new), volume.place(new) + volume.cluster)
    volume.content[part] = volume.content[volume.place(last) : volume.place(last) + volume.cluster]
    volume.content[volume.place(last) : volume.place(last) + volume.cluster] = bytes(volume.cluster)
    bit = new - 2 - (last - first) * volume.cluster * 8
    volume.content[part.start + bit // 8] |= 1 << bit % 8
    volume.set_fat(last - 1, new)
    volume.set_fat(new, END)
    path.write_bytes(volume.content)
    before = make_exfat(tmp_path / "other.img", *SMALL)
    answer, extents = used(path)
    assert answer.reason == ""
    # the old place of that cluster stays marked: a superset by one cluster
    assert [gap for extent in extents for gap in gaps(used(before)[1], extent)] == [
        Extent(volume.place(new), volume.place(new) + volume.cluster)
    ]


def test_a_large_volume_is_read_in_pieces(tmp_path: Path) -> None:
    path = make_exfat(tmp_path / "fs.img", 1 << 20, "-c 64K")
    with open_source(path) as source:
        counted = CountingSource(source)
        answer = read_exfat(counted)
        assert answer is not None
        assert answer.trusted
        kept = sum(extent.size for extent in answer.extents())
    clusters = int(re.findall(r"Total Clusters:\s+(\d+)", text := run("dump.exfat", path))[0])
    assert (1 << 40) - kept == int(re.findall(r"Free Clusters:\s+(\d+)", text)[0]) << 16
    assert counted.longest <= 1 << 16 < clusters // 8
    assert counted.total < 3 * clusters // 8 + MIB


def poke(offset: int, content: bytes) -> Callable[[Volume], None]:
    def change(volume: Volume) -> None:
        volume.content[offset : offset + len(content)] = content
        volume.sign()

    return change


def poke_entry(kind: int, offset: int, content: bytes) -> Callable[[Volume], None]:
    def change(volume: Volume) -> None:
        at = volume.entry(kind) + offset
        volume.content[at : at + len(content)] = content

    return change


def free_own(kind: int) -> Callable[[Volume], None]:
    return lambda volume: volume.set_bit(volume.first_cluster(kind) if kind else volume.root, False)


def chain(kind: int, value: int) -> Callable[[Volume], None]:
    return lambda volume: volume.set_fat(volume.first_cluster(kind) if kind else volume.root, value)


def loop(volume: Volume) -> None:
    """The root directory, full of files, goes on where it began."""
    volume.set_fat(volume.root, volume.root)
    for at in range(volume.place(volume.root), volume.place(volume.root) + volume.cluster, 32):
        if volume.content[at] == 0:
            volume.content[at] = 0x05


def unsigned(volume: Volume) -> None:
    volume.content[100] ^= 1


def unsigned_both(volume: Volume) -> None:
    unsigned(volume)
    volume.content[12 * 512 + 100] ^= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (poke(106, b"\x02"), "it is mounted, or was not cleanly unmounted"),
        (poke(106, b"\x04"), "failures of its medium"),
        (poke(106, b"\x08"), ""),
        (poke(112, b"\x63"), ""),
        (poke(106, b"\x01"), "TexFAT"),
        (poke(110, b"\x02"), "clusters from sector"),
        (poke(110, b"\x03"), "it has 3 FATs"),
        (poke(105, b"\x02"), "its revision 2.00 is unknown"),
        (poke(108, b"\x08"), "its sectors have 1 << 8 bytes"),
        (poke(109, b"\x1f"), "its clusters have 1 << 31 sectors"),
        (poke(20, b"\x01"), "fields of FAT's boot sector"),
        (poke(72, struct.pack("<Q", 1 << 40)), "but the volume has"),
        (poke(72, struct.pack("<Q", 1000)), "clusters from sector"),
        (poke(84, struct.pack("<I", 1)), "FAT of 1 sectors"),
        (poke(92, struct.pack("<I", 0)), "at cluster"),
        (poke(96, struct.pack("<I", 1)), "root directory at cluster 1"),
        (unsigned, "does not match its checksum, its backup does"),
        (unsigned_both, "neither does its backup"),
        (free_own(0x81), "its bitmap says that 1 clusters"),
        (free_own(0x82), "its bitmap says that 1 clusters"),
        (free_own(0), "its bitmap says that 1 clusters"),
        (chain(0, 1), "leads to cluster 0x1"),
        (chain(0x81, 0xFFFFFFF7), "leads to cluster 0xfffffff7"),
        (chain(0x81, END), "its allocation bitmap has 1 clusters"),
        (loop, "its root directory does not end"),
        (poke_entry(0x81, 24, struct.pack("<Q", 900)), "its bitmap has 900 bytes"),
        (poke_entry(0x81, 24, struct.pack("<Q", 1 << 60)), "its allocation bitmap has 2 clusters"),
        (poke_entry(0x82, 24, struct.pack("<Q", 0)), "its up-case table has 0 bytes"),
        (poke_entry(0x81, 0, b"\x01"), "0 allocation bitmaps and 1 up-case tables"),
        (poke_entry(0x83, 0, b"\x81"), "2 allocation bitmaps"),
    ],
)
def test_doubt_is_captured_whole_and_said(tmp_path: Path, change: Callable[[Volume], None], words: str) -> None:
    volume = Volume(make_exfat(tmp_path / "fs.img", *SMALL).read_bytes())
    change(volume)
    answer = read_exfat(BytesSource(bytes(volume.content)))
    assert answer is not None
    assert words in answer.reason
    assert answer.trusted == (not words)
    if words:
        assert list(answer.extents()) == [Extent(0, len(volume.content))]


def test_truncated_and_foreign_sources(tmp_path: Path) -> None:
    content = make_exfat(tmp_path / "fs.img", *SMALL).read_bytes()
    assert read_exfat(BytesSource(content[:6000])) is None
    assert read_exfat(BytesSource(bytes(MIB))) is None
    for size in (12 * 512, 20 * 512, MIB):
        cut = read_exfat(BytesSource(content[:size]))
        assert cut is not None
        assert f"the volume has {size}" in cut.reason


@pytest.mark.parametrize("part", ["backup", "fat", "root", "bitmap"])
def test_bad_sectors_are_doubt(tmp_path: Path, part: str) -> None:
    """Where a part of what must be believed cannot be read, the volume is captured whole; the backup is not needed."""
    path = make_exfat(tmp_path / "fs.img", *SMALL)
    volume = Volume(path.read_bytes())
    places = {"backup": 12 * 512, "fat": volume.fat, "root": volume.place(volume.root)}
    place = places.get(part, volume.place(volume.first_cluster(0x81)))
    with open_source(path) as source:
        answer = read_exfat(CountingSource(source, Extent(place, place + 512)))
    assert answer is not None
    assert answer.trusted == (part == "backup")
    assert answer.trusted or "cannot be read" in answer.reason


#: What fsck.exfat 1.2.0 and dump.exfat say of exfatprogs' damaged volumes, where the map itself is concerned.
DAMAGED = {
    "2tb_disk": "its bitmap says that 1 clusters of itself",
    "bad_bitmap_size": "its bitmap has 142 bytes",
    "bad_root": "the chain of its root directory leads to",
    "bs_bad_csum": "its main boot region does not match its checksum",
    "bad_dentries": "not cleanly unmounted",
    "de_bad_csum": "not cleanly unmounted",
}
#: Where dump.exfat 1.2.0 looks for the bitmap in the wrong entry of the root directory: partclone is asked.
NOT_DUMPED = {"duplicated_name", "unused-dentries"}
EXFATPROGS = real.DATA / "exfatprogs+exfatprogs" / "tests"


@pytest.mark.skipif(not EXFATPROGS.is_dir(), reason=real.NO_DATA)
@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXFATPROGS.glob("*/exfat.img.tar.xz")))
def test_damaged_volumes_of_exfatprogs(tmp_path: Path, name: str) -> None:
    """Doubt where the map is concerned; a volume whose damage lies in its files keeps every cluster of its bitmap."""
    run("tar", "-C", tmp_path, "-xf", EXFATPROGS / name / "exfat.img.tar.xz", "exfat.img")
    path = tmp_path / "exfat.img"
    if name in DAMAGED:
        assert DAMAGED[name] in whole(path)
        return
    answer, extents = used(path)
    assert answer.trusted, answer.reason
    if name in NOT_DUMPED:
        if real.needs("partclone.exfat"):
            pytest.skip(real.needs("partclone.exfat"))
        assert extents == real.partclone_used("partclone.exfat", path)
        return
    with open_source(path) as source:
        free = int(re.findall(r"Free Clusters:\s+(\d+)", run("dump.exfat", path))[0])
        assert source.size - sum(extent.size for extent in extents) == free * answer.filesystem.block_size


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[Extent], list[Extent]]:
    """A small volume with two files, its extents in use, and where its metadata lies."""
    path = make_exfat(tmp_path_factory.mktemp("mutants") / "fs.img", *SMALL)
    scattered_file(path)
    answer, extents = used(path)
    assert answer.trusted
    volume = Volume(path.read_bytes())
    starts = (0, volume.fat, volume.place(volume.root), volume.place(volume.first_cluster(0x81)))
    return path.read_bytes(), extents, [Extent(start, start + 512) for start in starts]


@settings(max_examples=200, deadline=2000)
@given(
    changes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=4),
    signed=st.booleans(),
)
def test_any_damage_is_doubt_or_a_superset(
    pieces: tuple[bytes, list[Extent], list[Extent]], changes: list[tuple[int, int, int]], signed: bool
) -> None:
    """Whatever bytes of the metadata change: no error; without a forged checksum the map covers what it did before."""
    original, before, places = pieces
    content = bytearray(original)
    for place, offset, value in changes:
        position = places[place].start + offset
        content[position] = value | original[position] if place == 3 else value
    if signed and 9 <= content[108] <= 12:
        volume = Volume(original)
        volume.content, volume.sector = content, 1 << content[108]
        volume.sign()
    answer = read_exfat(BytesSource(bytes(content)))
    if answer is None:
        assert content[3:11] != original[3:11]
        return
    extents = list(answer.extents())
    real.assert_sound(extents, len(content))
    assert answer.trusted or (answer.reason and extents == [Extent(0, len(content))])
    if not signed:
        real.assert_covers(extents, before)
