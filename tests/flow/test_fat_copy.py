"""FAT volumes made anew in other sizes and sectors: judged by fsck.fat, mtools, blkid, and mkfs.fat's own limits."""

import os
import random
import struct
from pathlib import Path

import pytest

from core.errors import DamagedError, DeviceError, RefusedError
from images.browse.fat import FatFilesystem
from images.sources import open_source
from restore.filesystems.fat_copy import FatCopy, gathered
from restore.filesystems.fat_proof import prove_equal
from restore.filesystems.fat_shape import LEAST_FAT16, LEAST_FAT32, parse_shape, shapes_for
from tests.flow.disks import MIB, need, run
from tests.unit.images.filesystems.real import digests

TOOLS = ("mkfs.fat", "fsck.fat", "mcopy", "mattrib", "mdir", "minfo", "blkid")
OLD_LBA, NEW_LBA = 63, 256


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long names, deep folders, a folder of several clusters, empty and large files."""
    need(*TOOLS)
    rng = random.Random(4)
    top = tmp_path_factory.mktemp("tree") / "EFI"
    deep = top / "Boot" / "a folder with a long name" / "größe 漢字"
    deep.mkdir(parents=True)
    (top / "empty folder").mkdir()
    for number in range(120):
        place = rng.choice([top, top / "Boot", deep]) / f"File number {number} of many.bin"
        place.write_bytes(rng.randbytes(rng.choice([0, 1, 511, 4096, 70_000])))
        os.utime(place, (1_000_000_000 + 86_400 * number, 1_000_000_000 + 86_400 * number))
    return top


def volume(path: Path, tree: Path, bits: int, mebibytes: int, sector_size: int) -> Path:
    with path.open("wb") as stream:
        stream.truncate(mebibytes * MIB)
    run("mkfs.fat", "-F", str(bits), "-S", str(sector_size), "-n", "LIFTED", "-i", "CAFEBABE", "-h", str(OLD_LBA), path)
    run("mcopy", "-s", "-m", "-i", path, tree, "::")
    run("mattrib", "+h", "+s", "+r", "-a", "-i", path, "::EFI/Boot")
    # What was deleted is not copied, and its name does not come back.
    run("mcopy", "-i", path, "/etc/hostname", "::a file that is deleted again.txt")
    run("mdel", "-i", path, "::a file that is deleted again.txt")
    return path


def remade(path: Path, out: Path, mebibytes: int, sector_size: int) -> tuple[FatCopy, Path]:
    with open_source(path) as source:
        copy = FatCopy(source, FatFilesystem(source), mebibytes * MIB, sector_size, old_lba=OLD_LBA, new_lba=NEW_LBA)
        written = 0
        # The partition holds noise behind what the copy writes.
        with out.open("wb") as stream:
            for piece in gathered(copy.pieces()):
                written += stream.write(piece)
            assert written == copy.size
            assert written % sector_size == 0
            stream.write(b"\xa5" * min(MIB, mebibytes * MIB - written))
            stream.truncate(mebibytes * MIB)
    return copy, out


def files(path: Path, folder: Path) -> dict[str, str]:
    folder.mkdir()
    run("mcopy", "-s", "-n", "-m", "-i", path, "::", folder)
    times = {str(found.relative_to(folder)): str(found.stat().st_mtime) for found in folder.rglob("*")}
    return digests(folder) | {f"time of {name}": time for name, time in times.items()}


def listing(path: Path) -> list[str]:
    """mtools' own words for attributes and short and long names."""
    return run("mattrib", "-s", "-i", path, "::").splitlines() + [
        line for line in run("mdir", "-/", "-a", "-i", path, "::").splitlines() if "bytes" not in line
    ]


CASES = {
    "esp-to-4096": (32, 300, 512, 300, 4096, "FAT32"),
    "esp-from-4096": (32, 300, 4096, 300, 512, "FAT32"),
    "small-esp-to-4096": (32, 64, 512, 64, 4096, "FAT16"),
    "fat16-to-4096": (16, 40, 512, 40, 4096, "FAT16"),
    "fat12-to-4096": (12, 12, 512, 12, 4096, "FAT12"),
    "fat32-grows": (32, 64, 512, 200, 512, "FAT32"),
    "fat32-shrinks": (32, 300, 512, 48, 512, "FAT32"),
    "fat32-shrinks-to-fat16": (32, 64, 512, 16, 512, "FAT16"),
    "fat16-grows": (16, 40, 512, 300, 512, "FAT16"),
    "fat16-shrinks": (16, 60, 512, 20, 512, "FAT16"),
    "fat12-grows": (12, 12, 512, 30, 512, "FAT12"),
    "fat12-grows-to-fat16": (12, 12, 512, 300, 512, "FAT16"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_copy_is_sound_and_holds_the_same(case: str, tmp_path: Path, tree: Path) -> None:
    bits, before, old_sectors, after, new_sectors, kind = CASES[case]
    old = volume(tmp_path / "old.img", tree, bits, before, old_sectors)
    _, new = remade(old, tmp_path / "new.img", after, new_sectors)
    run("fsck.fat", "-n", new)
    identity = run("blkid", "-p", "-o", "export", new)
    for word in ("UUID=CAFE-BABE", "LABEL=LIFTED", f"VERSION={kind}", f"BLOCK_SIZE={new_sectors}"):
        assert word in identity
    told = run("minfo", "-i", new, "::")
    assert f"sector size: {new_sectors} bytes" in told
    assert f"hidden sectors: {NEW_LBA}" in told
    # No sector of the partition is left over, but for a part of a cluster.
    with open_source(new) as source:
        assert parse_shape(source.read_at(0, 512)).sectors * new_sectors == after * MIB
    assert files(new, tmp_path / "after") == files(old, tmp_path / "before")
    assert listing(new) == listing(old)


def test_free_clusters_are_counted_as_fsck_counts_them(tmp_path: Path, tree: Path) -> None:
    old = volume(tmp_path / "old.img", tree, 32, 64, 512)
    _, new = remade(old, tmp_path / "new.img", 80, 512)
    content = new.read_bytes()
    (free,) = struct.unpack_from("<I", content, 512 + 488)
    told = run("fsck.fat", "-n", "-v", new)
    used, total = (int(word) for word in told.strip().splitlines()[-1].split()[-2].split("/"))
    assert free == total - used
    assert content[:512] == content[6 * 512 : 7 * 512]


def test_boot_code_stays_where_sectors_keep_their_size(tmp_path: Path, tree: Path) -> None:
    old = volume(tmp_path / "old.img", tree, 32, 64, 512)
    code = random.Random(5).randbytes(400)
    with old.open("r+b") as stream:
        for start in (0, 6 * 512):
            stream.seek(start + 90)
            stream.write(code)
        stream.seek(12 * 512)
        stream.write(code)
    _, new = remade(old, tmp_path / "new.img", 80, 512)
    content = new.read_bytes()
    assert content[90:490] == content[6 * 512 + 90 : 6 * 512 + 490] == content[12 * 512 : 12 * 512 + 400] == code


def test_files_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path, tree: Path) -> None:
    old = volume(tmp_path / "old.img", tree, 16, 40, 512)
    with open_source(old) as source, pytest.raises(RefusedError, match="The files of the FAT volume need"):
        FatCopy(source, FatFilesystem(source), MIB, 512, old_lba=0, new_lba=0)
    with open_source(old) as source, pytest.raises(RefusedError, match="cannot have"):
        FatCopy(source, FatFilesystem(source), 8 << 30, 512, old_lba=0, new_lba=0)


def test_a_folder_that_contains_itself_ends(tmp_path: Path, tree: Path) -> None:
    old = volume(tmp_path / "old.img", tree, 16, 40, 512)
    with open_source(old) as source:
        filesystem = FatFilesystem(source)
        efi = next(child for child in filesystem.children(0) if child.name == "EFI")
        boot = next(child for child in filesystem.children(efi.node) if child.name == "Boot")
        cluster = source.read_at(efi.node + 26, 2)
    with old.open("r+b") as stream:
        stream.seek(boot.node + 26)
        stream.write(cluster)
    with open_source(old) as source, pytest.raises(DamagedError, match="in the tree twice"):
        FatCopy(source, FatFilesystem(source), 40 * MIB, 512, old_lba=0, new_lba=0)


@pytest.mark.parametrize("what", ["content", "time", "name"])
def test_the_proof_finds_a_turned_bit(what: str, tmp_path: Path, tree: Path) -> None:
    old = volume(tmp_path / "old.img", tree, 16, 40, 512)
    _, new = remade(old, tmp_path / "new.img", 60, 512)
    with open_source(old) as one, open_source(new) as other:
        assert prove_equal(FatFilesystem(one), FatFilesystem(other), lambda size: None) > MIB
        filesystem = FatFilesystem(other)
        efi = next(child for child in filesystem.children(0) if child.name == "EFI")
        file = next(
            child
            for child in filesystem.children(efi.node)
            if child.kind == "file" and filesystem.entry(child.node).size
        )
        segments = filesystem.content(file.node).segments
        assert segments
        place = {"content": segments[0].place, "time": file.node + 22, "name": file.node - 32 + 1}[what]
        byte = other.read_at(place, 1)[0]
    with new.open("r+b") as stream:
        stream.seek(place)
        stream.write(bytes([byte ^ 1]))
    with open_source(old) as one, open_source(new) as other, pytest.raises(DeviceError, match="read back"):
        prove_equal(FatFilesystem(one), FatFilesystem(other), lambda size: None)


def test_every_shape_keeps_the_rules_of_its_kind() -> None:
    """FAT specification 3.5: the number of clusters decides; a table has an entry for every cluster."""
    boot = bytearray(512)
    struct.pack_into("<HBHBH", boot, 11, 512, 8, 32, 2, 0)
    struct.pack_into("<I", boot, 32, 1 << 20)
    struct.pack_into("<I", boot, 36, 1025)
    fat32 = parse_shape(bytes(boot))
    struct.pack_into("<H", boot, 17, 512)
    struct.pack_into("<H", boot, 22, 200)
    struct.pack_into("<I", boot, 32, 200_000)
    fat16 = parse_shape(bytes(boot))
    assert (fat32.bits, fat16.bits) == (32, 16)
    found = 0
    for old in (fat32, fat16):
        for sector_size in (512, 4096):
            for size in [step * 3 * MIB // 2 for step in range(2, 300, 7)] + [5 << 30, 100 << 30, 1 << 40]:
                try:
                    shapes = list(shapes_for(old, size, sector_size, 20))
                except RefusedError:
                    assert old is fat16
                    continue
                for shape in shapes:
                    found += 1
                    assert shape.bits == 32 or (shape.bits == 16) == (shape.clusters >= LEAST_FAT16)
                    assert (shape.bits == 32) == (shape.clusters >= LEAST_FAT32)
                    assert shape.fat_sectors * sector_size * 8 >= (shape.clusters + 2) * shape.bits
                    assert shape.data_offset + shape.clusters * shape.cluster_size <= size
                    assert shape.cluster_size % sector_size == 0
    assert found > 500
