"""NTFS: real volumes against ntfs-3g's tools, partclone, dissect.ntfs and themselves."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import DamagedError
from images.filesystems.ntfs import read_ntfs
from images.filesystems.ntfs_runs import decode_runs
from images.model.extents import Extent, gaps
from images.sources import open_source
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.ntfs_image import (
    BITMAP,
    MFT,
    SMALL,
    copier,
    file_digests,
    is_mountable,
    make_ntfs,
    put,
    scatter,
)
from tests.unit.images.filesystems.real import MIB, CountingSource, run, used, whole

pytestmark = pytest.mark.skipif(
    bool(real.needs("mkntfs", "ntfscp", "ntfsinfo", "ntfs-3g.probe", "ntfsresize")), reason="ntfs-3g is not installed"
)

#: MiB, and what mkntfs is asked for.
LAYOUTS = {
    "default": (64, ""),
    "clusters-of-512": (20, "-c 512"),
    "clusters-of-64k": (64, "-c 65536"),
    "clusters-of-2m": (600, "-c 2097152"),
    "4k-sectors": (64, "-s 4096"),
    "4k-sectors-2m": (600, "-s 4096 -c 2097152"),
    "sectors-left-over": (33, "-c 16384"),
    "compressing": (20, "-C"),
}
#: Where partclone is asked too: it sleeps for a second.
BY_PARTCLONE = {"default", "4k-sectors"}


def fill(path: Path, tree: Path) -> None:
    for item in sorted(tree.rglob("*"))[:25]:
        if item.is_file():
            put(path, item.name, item.read_bytes())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real.make_tree(tmp_path_factory.mktemp("ntfs") / "tree", 5, size=MIB, accent="öß—名")


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Makes copies of one small volume with a file in it."""
    return copier(tmp_path_factory.mktemp("blank"))


def boot_sectors(path: Path) -> tuple[bytes, bytes]:
    """The boot sector, and what the last sector holds, 512 bytes of each."""
    with path.open("rb") as file:
        first = file.read(512)
        file.seek(path.stat().st_size - struct.unpack_from("<H", first, 11)[0])
        return first, file.read(512)


def clusters_in_use(path: Path) -> int:
    """By ntfsinfo's count of free clusters."""
    text = run("ntfsinfo", "-m", "-f", path)
    facts = {name: int(value) for name, value in re.findall(r"(Volume Size in Clusters|Free Clusters): (\d+)", text)}
    return facts["Volume Size in Clusters"] - facts["Free Clusters"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_ntfsinfo_and_partclone(tmp_path: Path, tree: Path, name: str) -> None:
    path = make_ntfs(tmp_path / "fs.img", *LAYOUTS[name])
    fill(path, tree)
    answer, extents = used(path)
    assert answer.reason == ""
    assert answer.trusted
    assert (answer.filesystem.kind.value, answer.filesystem.detail) == ("ntfs", "ntfs")
    assert answer.filesystem.label == "lift räft"
    assert answer.filesystem.uuid == run("blkid", "-p", "-o", "value", "-s", "UUID", path).strip()
    first, last = boot_sectors(path)
    (sector,), (sectors,) = struct.unpack_from("<H", first, 11), struct.unpack_from("<Q", first, 40)
    cluster = answer.filesystem.block_size
    assert cluster == int(run("ntfsinfo", "-m", path).partition("Cluster Size: ")[2].split()[0])
    clusters = sectors * sector // cluster
    tail = path.stat().st_size - clusters * cluster
    assert tail >= sector
    assert extents[-1].end == path.stat().st_size == answer.filesystem.size
    assert first == last
    assert sum(extent.size for extent in extents) == clusters_in_use(path) * cluster + tail
    if name in BY_PARTCLONE and not real.needs("partclone.ntfs"):
        theirs = real.partclone_used("partclone.ntfs", path)
        real.assert_covers(extents, theirs)
        ours = [gap for extent in extents for gap in gaps(theirs, extent)]
        assert all(extent.start >= clusters * cluster for extent in ours)


@pytest.mark.parametrize("name", ["default", "clusters-of-512", "clusters-of-64k", "4k-sectors", "sectors-left-over"])
def test_copy_of_used_extents_is_sound_and_complete(tmp_path: Path, tree: Path, name: str) -> None:
    path = make_ntfs(tmp_path / "fs.img", *LAYOUTS[name])
    fill(path, tree)
    copy = real.restore_copy(path, used(path)[1])
    run("ntfsresize", "--info", "--force", copy)  # compares every file's clusters with $Bitmap
    run("ntfsfix", "--no-action", copy)
    assert is_mountable(copy) == 0
    expected = {
        path.name: digest for path, digest in ((Path(name), value) for name, value in real.digests(tree).items())
    }
    found = file_digests(copy)
    assert len(found) > 10
    assert found == {name: expected[name] for name in found}


def test_a_full_volume(tmp_path: Path) -> None:
    path = make_ntfs(tmp_path / "fs.img", *SMALL)
    source = tmp_path / "fill"
    for number, clusters in enumerate([4000, 1000, 100, 100, 100, 20, 20, 20, 20, 4, 4, 4, 4, 1, 1, 1, 1]):
        source.write_bytes(b"fill" * 128 * clusters)
        run("ntfscp", "-q", path, source, f"fill{number}", codes=(0, 1))  # 1: no space left
    answer, extents = used(path)
    assert answer.trusted
    assert sum(extent.size for extent in extents) == clusters_in_use(path) * 512 + 512
    assert sum(gap.size for gap in gaps(extents, Extent(0, 4 * MIB))) < 64 * 512
    assert file_digests(real.restore_copy(path, extents)) == file_digests(path)


def test_a_partition_larger_than_its_volume(tmp_path: Path, blank: Callable[[Path], Path]) -> None:
    """The copy of the boot sector may be at the end of either; what is between belongs to nobody."""
    path = blank(tmp_path / "fs.img")
    before = used(path)[1]
    with path.open("ab") as file:
        file.write(b"?" * 3 * MIB)
    answer, after = used(path)
    assert answer.trusted
    assert answer.filesystem.size == 4 * MIB
    assert after == [*before, Extent(7 * MIB - 512, 7 * MIB)]


def test_resized(tmp_path: Path, tree: Path) -> None:
    """ntfsresize schedules a check: whole until it was made. Then the map is the new one, shrunk and grown."""
    path = make_ntfs(tmp_path / "fs.img", *LAYOUTS["default"])
    fill(path, tree)
    expected = file_digests(path)
    for size in (20 * MIB, 48 * MIB):
        run("ntfsresize", "-f", "-f", "--size", str(size), path)
        assert "scheduled for a check" in whole(path)
        run("ntfsfix", "--clear-dirty", path, codes=(0, 1))  # 1: the new copy of the boot sector has no place yet
        answer, extents = used(path)
        assert answer.reason == ""
        assert answer.filesystem.size <= size
        clusters = answer.filesystem.size // 4096
        inside = sum(min(extent.end, clusters * 4096) - extent.start for extent in extents if extent.start < size)
        assert 0 <= inside - clusters_in_use(path) * 4096 <= 4096
        copy = real.restore_copy(path, extents)
        run("ntfsresize", "--info", "--force", copy)
        assert file_digests(copy) == expected


@pytest.mark.parametrize("numbers", [(MFT,), (BITMAP,), (MFT, BITMAP)])
def test_scattered_system_files(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """$MFT and $Bitmap in several runs, some of them in extension records; ntfs-3g reads these too."""
    path = make_ntfs(tmp_path / "fs.img", 24, "-c 512")
    put(path, "file", bytes(range(256)) * 400)
    for number in numbers:
        scatter(path, number)
    assert is_mountable(path) == 0
    with_ntfs3g = clusters_in_use(path)
    answer, extents = used(path)
    assert answer.reason == ""
    assert sum(extent.size for extent in extents) == with_ntfs3g * 512 + 512
    assert file_digests(real.restore_copy(path, extents)) == file_digests(path)


def test_a_large_volume_is_read_in_pieces(tmp_path: Path) -> None:
    path = make_ntfs(tmp_path / "fs.img", 1 << 19, "-c 4096")
    with open_source(path) as source:
        counted = CountingSource(source)
        answer = read_ntfs(counted)
        assert answer is not None
        assert answer.trusted
        kept = sum(extent.size for extent in answer.extents())
    assert kept == (clusters_in_use(path) + 1) * 4096
    bitmap = (1 << 39) // 4096 // 8
    assert counted.longest <= 1 << 16 < bitmap
    assert counted.total < 2 * bitmap + 4 * MIB


def test_runs_by_the_book() -> None:
    """The examples of the Linux-NTFS documentation (Data Runs), and one with a hole and a step back."""
    [one] = decode_runs(bytes.fromhex("2118345600"), 0, 1 << 20, "x")
    assert (one.vcn, one.clusters, one.lcn) == (0, 0x18, 0x5634)
    runs = list(decode_runs(bytes.fromhex("3138732534321401e511023142aa000300"), 7, 1 << 24, "x"))
    assert [(run.vcn, run.clusters, run.lcn) for run in runs] == [
        (7, 0x38, 0x342573),
        (0x3F, 0x114, 0x363758),
        (0x153, 0x42, 0x393802),
    ]
    runs = list(decode_runs(bytes.fromhex("1130600110" + "1108e0" + "00"), 0, 1 << 20, "x"))
    assert [(run.vcn, run.clusters, run.lcn) for run in runs] == [(0, 0x30, 0x60), (0x30, 0x10, None), (0x40, 8, 0x40)]
    for bad in ("2118345600", "11", "1100", "1180", "9900", "00ff"):
        clusters = 0x5634 if bad == "2118345600" else 1 << 20
        if bad == "00ff":
            assert list(decode_runs(bytes.fromhex(bad), 0, clusters, "x")) == []
        else:
            with pytest.raises(DamagedError):
                list(decode_runs(bytes.fromhex(bad), 0, clusters, "x"))
