"""FAT12, FAT16, FAT32: real volumes against fsck.fat, mtools, partclone and themselves."""

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DeviceError
from images.filesystems.fat import read_fat
from images.model.extents import Extent, gaps
from images.sources import BytesSource
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, make_file, run, used, whole

pytestmark = pytest.mark.skipif(
    bool(real.needs("mkfs.vfat", "fsck.vfat", "mcopy", "mshowfat")), reason="dosfstools or mtools are not installed"
)

LAYOUTS = {
    "fat12-floppy": (1440, "-F 12"),
    "fat12-clusters-of-4k": (15000, "-F 12 -s 8"),
    "fat12-odd-count": (3001, "-F 12 -s 2 -f 1"),
    "fat16": (32768, "-F 16"),
    "fat16-4k-sectors": (100000, "-F 16 -S 4096"),
    "fat16-reserved": (33000, "-F 16 -R 64 -s 4"),
    "fat32": (70000, "-F 32"),
    "fat32-one-fat": (70000, "-F 32 -f 1 -s 1"),
    "fat32-4k-sectors": (300000, "-F 32 -S 4096 -s 1"),
    "fat32-mbr": (70000, "-F 32 --mbr=y"),
}

#: Where partclone is asked too. It sleeps for seconds; and 0.3.23 leaves out clusters of FAT12 that fsck.fat counts.
BY_PARTCLONE = {"fat16-reserved", "fat32-one-fat"}
#: FAT32 by its boot sector, FAT16 by its number of clusters: Linux and Windows take it for FAT32, mtools does not.
FEW_CLUSTERS = (20000, "-F 32 -s 8")


def make_fat(path: Path, kilobytes: int, options: str) -> Path:
    run("mkfs.vfat", *options.split(), "-n", "LIFERAFT", "-i", "12345678", make_file(path, kilobytes * 1024))
    return path


def fill(path: Path, tree: Path) -> None:
    """Copy files in, and take every third away again so that holes are left."""
    files = sorted(item for item in tree.rglob("*") if item.is_file() and item.stat().st_size < 100_000)[:30]
    run("mcopy", "-i", path, *files, "::/")
    run("mdel", "-i", path, *(f"::/{item.name}" for item in files[::3]))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real.make_tree(tmp_path_factory.mktemp("fat") / "tree", 2, size=MIB, accent="long name")


def expected_used(path: Path) -> list[Extent]:
    """By fsck.fat's geometry and mtools' cluster lists of every file: an account that reads no FAT entry of ours."""
    text = run("fsck.vfat", "-n", "-v", path)
    numbers = {name: int(value) for value, name in re.findall(r"(\d+) (bytes per cluster|data clusters)", text)}
    start = int(re.findall(r"Data area starts at byte (\d+)", text)[0])
    sector = int(re.findall(r"(\d+) bytes per logical sector", text)[0])
    total = int(re.findall(r"(\d+) sectors total", text)[0]) * sector
    clusters: set[int] = set()
    names = run("mdir", "-i", path, "-/", "-b", "::").splitlines()
    if "Root directory start at cluster" in text:
        names.append("::/")
    for first, last in re.findall(r"<(\d+)(?:-(\d+))?>", run("mshowfat", "-i", path, *names)):
        clusters |= set(range(int(first), int(last or first) + 1))
    size = numbers["bytes per cluster"]
    data = [Extent(start + (cluster - 2) * size, start + (cluster - 1) * size) for cluster in sorted(clusters)]
    tail = Extent(start + numbers["data clusters"] * size, total)
    return [Extent(0, start), *data, tail]


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_mtools_and_partclone(tmp_path: Path, tree: Path, name: str) -> None:
    path = make_fat(tmp_path / "fs.img", *LAYOUTS[name])
    fill(path, tree)
    answer, extents = used(path)
    assert answer.reason == ""
    assert answer.trusted
    assert answer.filesystem.kind.value == name[:5]
    assert answer.filesystem.label == "LIFERAFT"
    assert answer.filesystem.uuid == "1234-5678"
    expected = expected_used(path)
    real.assert_covers(extents, expected)
    assert sum(extent.size for extent in extents) == sum(extent.size for extent in expected)
    if name in BY_PARTCLONE and not real.needs("partclone.vfat"):
        real.assert_covers(extents, real.partclone_used("partclone.vfat", path))
        real.assert_covers(real.partclone_used("partclone.vfat", path), extents)


@pytest.mark.parametrize("name", ["fat12-clusters-of-4k", "fat16", "fat32"])
def test_copy_of_used_extents_is_clean_and_complete(tmp_path: Path, tree: Path, name: str) -> None:
    path = make_fat(tmp_path / "fs.img", *LAYOUTS[name])
    run("mcopy", "-s", "-i", path, *sorted(tree.iterdir()), "::/")
    copy = real.restore_copy(path, used(path)[1])
    run("fsck.vfat", "-n", copy)
    (tmp_path / "out").mkdir()
    run("mcopy", "-s", "-n", "-i", copy, "::/*", tmp_path / "out")
    assert real.digests(tmp_path / "out") == real.digests(tree)


def poke(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


@pytest.mark.parametrize(
    ("name", "offset", "content", "words"),
    [
        ("fat12-floppy", 0x25, b"\x01", "not cleanly unmounted"),
        ("fat16", 0x25, b"\x01", "not cleanly unmounted"),
        ("fat16", 0x25, b"\x02", "not cleanly unmounted"),
        ("fat32", 0x41, b"\x01", "not cleanly unmounted"),
        ("fat16", "fat+2", b"\xff\x7f", "not cleanly unmounted"),
        ("fat16", "fat+2", b"\xff\xbf", "recorded disk errors"),
        ("fat32", "fat+4", b"\xff\xff\xff\x07", "not cleanly unmounted"),
        ("fat32", "fat+4", b"\xff\xff\xff\x0b", "recorded disk errors"),
        ("fat16", "fat+0", b"\x00", "media byte"),
        ("fat16", "fat+8", b"\xf0\xfe", "points outside"),
        ("fat32", "fat+16", b"\x00\x00\x00\x08", "points outside"),
        ("fat16", "fat+8", b"\xff\xff", "FATs differ"),
        ("fat32", 0x2A, b"\x01\x00", "its version 0x1 is unknown"),
        ("fat32", 0x28, b"\x85\x00", "FAT 5 of 2"),
        ("fat16", 0x16, b"\x01\x00", "a FAT of 512 bytes"),
    ],
)
def test_doubt_is_captured_whole_and_said(
    tmp_path: Path, name: str, offset: int | str, content: bytes, words: str
) -> None:
    path = make_fat(tmp_path / "fs.img", *LAYOUTS[name])
    reserved = struct.unpack_from("<H", path.read_bytes(), 14)[0] * 512
    poke(path, offset if isinstance(offset, int) else reserved + int(offset[4:]), content)
    reason = whole(path)
    assert words in reason
    assert reason.endswith("")


def test_bad_clusters_are_not_used(tmp_path: Path) -> None:
    path = make_fat(tmp_path / "fs.img", *LAYOUTS["fat32"])
    before = used(path)[1]
    content = path.read_bytes()
    reserved, size = struct.unpack_from("<H", content, 14)[0] * 512, struct.unpack_from("<I", content, 36)[0] * 512
    for copy in (0, 1):
        poke(path, reserved + copy * size + 4 * 100, b"\xf7\xff\xff\x0f\xff\xff\xff\xff")
    after = used(path)[1]
    cluster = content[13] * 512
    data = reserved + 2 * size
    assert [gap for extent in after for gap in gaps(before, extent)] == [
        Extent(data + 99 * cluster, data + 100 * cluster)
    ]


def test_active_fat_without_mirroring(tmp_path: Path, tree: Path) -> None:
    """FAT32 may keep only one of its FATs up to date: the boot sector says which."""
    path = make_fat(tmp_path / "fs.img", *LAYOUTS["fat32"])
    fill(path, tree)
    good = used(path)[1]
    content = path.read_bytes()
    reserved = struct.unpack_from("<H", content, 14)[0] * 512
    poke(path, reserved + 8, bytes(3000))
    assert "FATs differ" in whole(path)
    poke(path, 0x28, b"\x81\x00")
    assert used(path)[1] == good


def test_fat32_of_few_clusters_is_fat32(tmp_path: Path) -> None:
    path = make_fat(tmp_path / "fs.img", *FEW_CLUSTERS)
    answer, extents = used(path)
    assert answer.trusted
    assert answer.filesystem.kind.value == "fat32"
    run("fsck.vfat", "-n", real.restore_copy(path, extents))


def test_truncated_and_foreign_sources(tmp_path: Path) -> None:
    content = make_fat(tmp_path / "fs.img", *LAYOUTS["fat16"]).read_bytes()
    assert read_fat(BytesSource(content[:511])) is None
    cut = read_fat(BytesSource(content[: 10 * MIB]))
    assert cut is not None
    assert f"it claims {32 * MIB} bytes, but the volume has {10 * MIB}" in cut.reason
    assert read_fat(BytesSource(bytes(MIB))) is None


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["fat12-floppy", "fat12-odd-count", "fat32"]),
    changes=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255)), min_size=1, max_size=5),
    deep=st.lists(st.tuples(st.integers(512, 20000), st.integers(0, 255)), max_size=3),
)
def test_any_damage_is_doubt_or_extents_inside(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    changes: list[tuple[int, int]],
    deep: list[tuple[int, int]],
) -> None:
    path = tmp_path_factory.getbasetemp() / f"property-{kind}.img"
    if not path.exists():
        make_fat(path, *(LAYOUTS | {"fat32": FEW_CLUSTERS})[kind])
    content = bytearray(path.read_bytes())
    for offset, value in (*changes, *deep):
        content[offset] = value
    try:
        answer = read_fat(BytesSource(bytes(content)))
        if answer is None:
            return
        extents = list(answer.extents())
    except DeviceError as error:
        assert error.message
        return
    real.assert_sound(extents, len(content))
    assert answer.trusted or extents == [Extent(0, len(content))]


@pytest.mark.skipif(not real.DATA.is_dir(), reason=real.NO_DATA)
def test_images_of_dosfstools(tmp_path: Path) -> None:
    """Its check-*.fsck are damaged, the .xxd are what its fsck makes of them: clean, labels as blkid."""
    checked = 0
    for dump in sorted((real.DATA / "dosfstools+dosfstools" / "tests").glob("*.xxd")):
        path = make_file(tmp_path / "fs.img", 0)
        run("xxd", "-r", dump, path)
        facts = dict(
            line.split("=", 1) for line in run("blkid", "-p", "-o", "export", path).splitlines() if "=" in line
        )
        with path.open("rb") as file:
            content = file.read(34 * MIB)
        answer = read_fat(BytesSource(content)) if path.stat().st_size <= len(content) else None
        path.unlink()
        if answer is None:
            continue
        assert answer.trusted, dump.name
        assert answer.filesystem.label == facts.get("LABEL", "").replace("\\ ", " "), dump.name
        assert answer.filesystem.uuid == facts["UUID"]
        checked += 1
    assert checked >= 20
