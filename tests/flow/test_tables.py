"""Tables made again on plain files, judged by sfdisk, fdisk, sgdisk and libparted's own parted.

The sources are made by those tools, or come from other projects. A table that is made again must be equal to its
source in every byte that belongs to it, in every word of sfdisk, and in every word of sgdisk.
"""

import gzip
import json
import lzma
import random
import re
import struct
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from core.errors import DeviceError, RefusedError
from core.process import SystemRunner
from images.model.layout import PartitionTable, TableKind
from images.sources import open_source
from images.tables.detect import read_table
from images.tables.table_bytes import table_pieces
from restore.table.table import compare, create_table, rehearse_table
from restore.target.target import Target
from tests.flow.disks import MIB, need, run
from tests.unit.images.tables.generated import SECTORS, dos_tables, gpts

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TRUTH = DATA / "_groundtruth"
SIZE = 20 * MIB
Maker = Callable[[Path], None]


@pytest.fixture(autouse=True)
def tools() -> None:
    need("sfdisk", "fdisk", "sgdisk", "parted")


def blank(path: Path, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def read(path: Path, sector_size: int = 512) -> PartitionTable:
    with open_source(path, sector_size=sector_size) as source:
        table = read_table(source)
    assert table is not None
    return table


def make(path: Path, table: PartitionTable, size: int = SIZE, sector_size: int = 512) -> Path:
    """The table on a blank file."""
    with blank(path, size).open("r+b") as file:
        create_table(Target(str(path), file.fileno(), size, sector_size), table, sector_size, SystemRunner())
    return path


def in_sfdisks_words(path: Path) -> object:
    return json.loads(run("sfdisk", "--json", path).replace(str(path), "disk"))


def in_sgdisks_words(path: Path, table: PartitionTable) -> str:
    """``sgdisk -p`` and ``-i`` for each partition: first and last usable sector, place of the entries, flags, names."""
    lists = [word for part in table.partitions for word in ("-i", str(part.number))]
    return said_by_sgdisk("-p", *lists, path).replace(str(path), "disk")


def said_by_sgdisk(*words: str | Path) -> str:
    """Its output; names outside the basic plane it writes as bytes that are not UTF-8."""
    done = subprocess.run(["/usr/sbin/sgdisk", *map(str, words)], capture_output=True, timeout=60, check=True)
    return done.stdout.decode(errors="replace")


def assert_same(source: Path, target: Path, table: PartitionTable) -> None:
    """Every byte of the table, and every word of the tools."""
    one, other = source.read_bytes(), target.read_bytes()
    for piece in table_pieces(table, len(one), 512):
        assert one[piece.offset : piece.extent.end] == other[piece.offset : piece.extent.end], piece.offset
    assert in_sfdisks_words(target) == in_sfdisks_words(source)
    if table.kind is TableKind.GPT:
        assert in_sgdisks_words(target, table) == in_sgdisks_words(source, table)
        assert_clean(target)


def assert_clean(path: Path) -> None:
    found = said_by_sgdisk("-v", path)
    assert "No problems found" in found
    assert "Creating new GPT" not in found  # what it says when it could not read the one that is there


def sfdisk(script: str) -> Maker:
    return lambda path: void(run("sfdisk", "-q", path, stdin=script))


def sgdisk(*words: str) -> Maker:
    return lambda path: void(run("sgdisk", *words, path))


def parted(*words: str) -> Maker:
    return lambda path: void(run("parted", "--script", path, *words))


def void(_: str) -> None:
    """What a tool prints is not asked for."""


def many(path: Path) -> None:
    """More partitions than the usual array has entries for."""
    lines = "".join(f'start={2048 + 40 * number}, size=32, name="number {number}"\n' for number in range(1, 181))
    run("sfdisk", "-q", path, stdin=f"label: gpt\ntable-length: 200\n{lines}")


ESP = "type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
SOURCES: dict[str, Maker] = {
    "first usable 2048": sfdisk(f"label: gpt\nfirst-lba: 2048\nstart=2048,size=2048,{ESP}\n"),
    "first usable 34": sfdisk("label: gpt\nfirst-lba: 34\nstart=34,size=99\nstart=200,size=1\n"),
    "last usable far from the end": sfdisk("label: gpt\nlast-lba: 30000\nstart=2048,size=2048\n"),
    "one entry": sfdisk("label: gpt\ntable-length: 1\nfirst-lba: 3\nstart=3,size=2048\n"),
    "200 entries": many,
    "1024 entries": sfdisk("label: gpt\ntable-length: 1024\nsize=2048\n1000: size=4096\n"),
    "numbers with gaps, out of order": sfdisk("label: gpt\n128: start=2048,size=1\n7: start=9000,size=9\n1: size=50\n"),
    "names": sfdisk('label: gpt\nsize=9,name="größe ☃"\nsize=9,name="a \\\\x22 quote"\nsize=9,name="😀"\n'),
    "attributes": sfdisk('label: gpt\nsize=9,attrs="RequiredPartition,LegacyBIOSBootable,48,63"\nsize=9,attrs="51"\n'),
    "all attributes": sgdisk("-n1:0:+1M", "-A1:=:ffffffffffffffff", "-n2:0:+1M", "-A2:=:0000f00000000008"),
    "sgdisk's": sgdisk("-n1:0:+1M", "-t1:ef02", "-n2:0:+5M", "-c2:root", "-t2:8300"),
    "entries behind a boot area": sgdisk("-j64", "-n1:2048:+1M"),
    "hybrid": sgdisk("-n1:0:+2M", "-n2:0:+2M", "-n3:0:+2M", "-t1:0700", "-h1:3"),
    "hybrid, protective entry last": sgdisk("-n1:0:+2M", "-n2:0:+2M", "-h2:EE"),
    "parted's gpt": parted("mklabel", "gpt", "mkpart", "one", "1MiB", "5MiB", "mkpart", "two", "5MiB", "19MiB"),
    "parted's gpt with pmbr_boot": parted("mklabel", "gpt", "disk_set", "pmbr_boot", "on"),
    "empty gpt": sfdisk("label: gpt\n"),
    "dos": sfdisk("label: dos\nlabel-id: 0x1234abcd\nsize=9000,type=7,bootable\nsize=2048,type=ef\nsize=99,type=27\n"),
    "dos of the 63-sector time": sfdisk("label: dos\nstart=63,size=8001,type=6,bootable\n"
                                        "start=16065,size=16065,type=f\nstart=16128,size=4000,type=b\nstart=24193,size=4000,type=7\n"),
    "two active, slots 2 and 4": sfdisk("label: dos\n2: start=9000,size=99,bootable\n4: start=2048,size=50,bootable\n"),
    "chain out of order": sfdisk("label: dos\n3: start=2048,size=30000,type=5\n5: start=24000,size=900,type=82\n"
                                 "6: start=4096,size=900,bootable\n7: start=12000,size=900,type=8e\n"
                                 "1: start=36000,size=9\n"),
    "extended 0x85, tight": sfdisk("label: dos\nstart=2048,size=900,type=85\nstart=2049,size=99\nstart=2149,size=99\n"),
    "empty extended": sfdisk("label: dos\nlabel-id: 0x0\nstart=2048,size=9000,type=f\nstart=20000,size=99\n"),
    "parted's dos": parted("mklabel", "msdos", "mkpart", "primary", "fat32", "1MiB", "9MiB", "mkpart", "extended",
                           "10MiB", "19MiB", "mkpart", "logical", "11MiB", "14MiB", "mkpart", "logical",
                           "15MiB", "19MiB"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SOURCES)
def test_a_table_that_tools_made_is_made_again(kind: str, tmp_path: Path) -> None:
    source = blank(tmp_path / "source")
    SOURCES[kind](source)
    table = read(source)
    target = make(tmp_path / "target", table)
    assert read(target) == table
    assert_same(source, target, table)


def test_what_sfdisk_usually_makes_needs_no_bytes_kept(tmp_path: Path) -> None:
    """Protective MBR, geometry and places of boot records come out as it spells them, from the facts alone."""
    source = blank(tmp_path / "source")
    for script in (
        "label: gpt\nsize=2048\nsize=99\n",
        "label: dos\nstart=2048,size=30000,type=5\nsize=2048\nsize=4096,type=82\nsize=99\n",
        "label: dos\nstart=63,size=30000,bootable\nstart=33000,size=7000,type=f\nstart=33063,size=500\n",
    ):
        run("sfdisk", "-q", "--wipe=always", source, stdin=script)
        table = read(source)
        assert table.partitions
        assert (table.mbr, table.records) == ("", ())
        assert_same(source, make(tmp_path / "target", table), table)


def test_a_deleted_logical_partition_leaves_its_place_in_the_chain(tmp_path: Path) -> None:
    source = blank(tmp_path / "source")
    SOURCES["chain out of order"](source)
    run("sfdisk", "-q", "--delete", source, "5")
    table = read(source)
    assert [part.number for part in table.partitions] == [1, 3, 5, 6]
    assert_same(source, make(tmp_path / "target", table), table)


def real_tables() -> Iterator[tuple[str, bytes, int]]:
    """Name, content and sector size of the disks of other projects that are not large."""
    for path in sorted(TRUTH.rglob("*.gt.json")):
        truth = json.loads(path.read_text())
        if truth.get("container") is None and truth.get("sfdisk") and truth["size"] <= 64 * MIB:
            plain, packed = DATA / truth["image"], DATA / f"{truth['image']}.gz"
            if plain.exists() or packed.exists():
                content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
                yield truth["image"], content, truth["sfdisk"]["sectorsize"]
    for path in sorted((DATA / "util-linux+util-linux/tests/ts/blkid/images-pt").glob("*.xz")):
        yield path.name, lzma.decompress(path.read_bytes()), 512


@pytest.mark.skipif(not TRUTH.is_dir(), reason=f"{DATA} is not here: real inputs of other projects")
def test_tables_of_other_projects_are_made_again(tmp_path: Path) -> None:
    made = []
    for number, (name, content, sector_size) in enumerate(real_tables()):
        source = tmp_path / f"source{number}"
        source.write_bytes(content)
        with open_source(source, sector_size=sector_size) as opened:
            table = read_table(opened)
        if table is None:
            continue
        target = make(tmp_path / f"target{number}", table, len(content), sector_size)
        assert read(target, sector_size) == table, name
        if sector_size == 512:
            one, other = in_sfdisks_words(source), in_sfdisks_words(target)
            assert one == other, name
            if table.kind is TableKind.GPT:
                assert in_sgdisks_words(source, table) == in_sgdisks_words(target, table), name
        found = target.read_bytes()
        for piece in table_pieces(table, len(content), sector_size):
            # A boot record is 512 bytes; with larger sectors something else may follow it.
            size = len(piece.data) if table.kind is TableKind.GPT else min(len(piece.data), 512)
            assert found[piece.offset : piece.offset + size] == content[piece.offset : piece.offset + size], name
        made.append(name)
    assert len(made) >= 14


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=gpts(512))
def test_sfdisk_reads_a_generated_gpt(tmp_path: Path, table: PartitionTable) -> None:
    """create_table itself asks sfdisk for every field."""
    make(tmp_path / "target", table, SECTORS * 512)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=gpts(512, entry_sizes=(128,)))
def test_sgdisk_finds_no_fault_in_a_generated_gpt(tmp_path: Path, table: PartitionTable) -> None:
    """It knows entries of 128 bytes only, and shows all 64 attribute bits."""
    target = make(tmp_path / "target", table, SECTORS * 512)
    assert_clean(target)
    for part in table.partitions:
        lines = said_by_sgdisk("-i", str(part.number), target).split("\n")
        words = dict(line.split(": ", 1) for line in lines if ": " in line)
        assert words["First sector"].split()[0] == str(part.start_lba)
        assert words["Last sector"].split()[0] == str(part.end_lba - 1)
        assert words["Partition unique GUID"].lower() == str(part.uuid)
        assert words["Partition GUID code"].split()[0].lower() == part.type
        assert int(words["Attribute flags"], 16) == part.attributes


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=dos_tables())
def test_sfdisk_reads_a_generated_dos_table(tmp_path: Path, table: PartitionTable) -> None:
    make(tmp_path / "target", table, SECTORS * 512)


@pytest.mark.parametrize("kind", ["gpt", "dos"])
def test_4096_byte_sectors_on_a_file(kind: str, tmp_path: Path) -> None:
    """fdisk makes the source and dumps both; sfdisk here knows no sector size of a file."""
    scripts = {
        "gpt": f'label: gpt\ntable-length: 300\nstart=256,size=99,{ESP},name="größe"\n'
        '9: start=1024,size=9,attrs="GUID:60"\n',
        "dos": "label: dos\nstart=256,size=99,type=7,bootable\nstart=512,size=4000,type=f\n"
        "start=520,size=9\nstart=900,size=9\n",
    }
    (tmp_path / "script").write_text(scripts[kind])
    source = blank(tmp_path / "source")
    run("fdisk", "-b", "4096", source, stdin=f"I\n{tmp_path / 'script'}\nw\n")
    table = read(source, 4096)
    target = make(tmp_path / "target", table, SIZE, 4096)
    assert source.read_bytes() == target.read_bytes()
    dumps = []
    for path in (source, target):
        run("fdisk", "-b", "4096", path, stdin=f"O\n{path}.dump\nq\n")
        dumps.append(Path(f"{path}.dump").read_text().replace(str(path), "disk"))
    assert dumps[0] == dumps[1]
    assert "sector-size: 4096" in dumps[0]


@pytest.mark.parametrize(
    "lost", ["primary header", "primary entries", "backup header", "backup entries", "both backups"]
)
def test_a_damaged_end_of_a_gpt_is_made_good(lost: str, tmp_path: Path) -> None:
    source = blank(tmp_path / "source")
    SOURCES["hybrid"](source)
    whole = source.read_bytes()
    damaged = bytearray(whole)
    places = {
        "primary header": 512 + 60,
        "primary entries": 1024 + 20,
        "backup header": -512 + 60,
        "backup entries": -33 * 512,
    }
    for name, place in places.items():
        if name == lost or (lost == "both backups" and "backup" in name):
            damaged[place] ^= 1
    source.write_bytes(damaged)
    table = read(source)
    said = "the primary GPT is damaged, the backup was used" if "primary" in lost else "the backup GPT is damaged"
    assert said in table.notes[0]
    field = "CRC of the header" if "header" in lost or lost == "both backups" else "CRC of the entries"
    assert field in table.notes[0]
    target = make(tmp_path / "target", table)
    found = target.read_bytes()
    for piece in table_pieces(table, SIZE, 512):
        assert found[piece.offset : piece.extent.end] == whole[piece.offset : piece.extent.end]


def test_a_misplaced_backup_is_found_through_a_damaged_primary(tmp_path: Path) -> None:
    """An image that was made larger: the backup lies where the damaged primary says, and not at the end."""
    source = blank(tmp_path / "source")
    SOURCES["sgdisk's"](source)
    damaged = bytearray(source.read_bytes())
    damaged[1024 + 20] ^= 1
    source.write_bytes(bytes(damaged) + bytes(MIB))
    table = read(source)
    assert "the primary GPT is damaged, the backup was used" in table.notes[0]
    assert f"the backup GPT lies at LBA {SIZE // 512 - 1}, not in the last sector of the disk" in table.notes[1]
    assert [part.number for part in table.partitions] == [1, 2]


def test_nothing_but_the_table_is_written(tmp_path: Path) -> None:
    noise = random.Random(3).randbytes(MIB) * (SIZE // MIB)
    for kind in ("hybrid", "entries behind a boot area", "one entry", "chain out of order", "parted's dos"):
        source = blank(tmp_path / "source")
        SOURCES[kind](source)
        table = read(source)
        target = tmp_path / "target"
        target.write_bytes(noise)
        with target.open("r+b") as file:
            create_table(Target(str(target), file.fileno(), SIZE, 512), table, 512, SystemRunner())
        found = bytearray(target.read_bytes())
        for piece in table_pieces(table, SIZE, 512):
            found[piece.offset : piece.extent.end] = noise[piece.offset : piece.extent.end]
        assert found == noise, kind


def test_what_differs_is_named(tmp_path: Path) -> None:
    source = blank(tmp_path / "source")
    SOURCES["names"](source)
    table = read(source)
    assert compare(str(source), table, SystemRunner()) == ()
    first = table.partitions[0]
    for changes, words in (
        ({"sector_count": 8}, "partition 1 size is 9, expected 8"),
        ({"start_lba": first.start_lba + 1, "sector_count": 8}, "partition 1 start is"),
        ({"name": "other"}, "partition 1 name is größe ☃, expected other"),
        ({"attributes": 1 << 60}, "partition 1 attributes is 0"),
        ({"uuid": uuid.UUID(int=1)}, "partition 1 GUID is"),
        ({"type": str(uuid.UUID(int=1))}, "partition 1 type is"),
    ):
        other = msgspec.structs.replace(
            table, partitions=(msgspec.structs.replace(first, **changes), *table.partitions[1:])
        )
        found = "; ".join(compare(str(source), other, SystemRunner()))
        assert words in found
        assert "byte 512 is" not in found
        assert re.search(r"byte 5(28|29|30|31) is", found)  # the header's checksum: one of its bytes may stay
    fewer = msgspec.structs.replace(table, partitions=table.partitions[1:])
    assert "partitions [1, 2, 3], expected [2, 3]" in "; ".join(compare(str(source), fewer, SystemRunner()))


class Forgetful(Target):
    """A disk that loses writes to its last sector."""

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        if offset + len(data) < self.size:
            super().write_at(offset, data)


def test_a_disk_that_keeps_something_else_is_found(tmp_path: Path) -> None:
    source = blank(tmp_path / "source")
    SOURCES["entries behind a boot area"](source)  # which libparted does not make
    table = read(source)
    target = blank(tmp_path / "target")
    with target.open("r+b") as file, pytest.raises(DeviceError, match=rf"byte {SIZE - 512} is 0x00, expected 0x45"):
        create_table(Forgetful(str(target), file.fileno(), SIZE, 512), table, 512, SystemRunner())


def test_a_rehearsal_refuses_what_cannot_be(tmp_path: Path) -> None:
    source = blank(tmp_path / "source")
    SOURCES["sgdisk's"](source)
    table = read(source)
    rehearse_table(table, SIZE, SystemRunner())
    rehearse_table(table, 1 << 42, SystemRunner())
    rehearse_table(table, 1 << 62, SystemRunner())  # no filesystem has room for the hole
    with pytest.raises(RefusedError, match="of a disk of 8192"):
        rehearse_table(table, 4 * MIB, SystemRunner())
    beyond = msgspec.structs.replace(table, entries_lba=1)
    with pytest.raises(RefusedError, match="have no place"):
        rehearse_table(beyond, 1 << 62, SystemRunner())


def test_several_extended_partitions(tmp_path: Path) -> None:
    """The kernel follows each chain; sfdisk only one, so that the bytes judge alone."""
    source = blank(tmp_path / "source")
    SOURCES["chain out of order"](source)
    second = bytearray(512)
    second[510:] = b"\x55\xaa"
    struct.pack_into("<B3xB3xII", second, 446, 0, 0x83, 10, 500)
    with source.open("r+b") as file:
        file.seek(446 + 16)
        file.write(struct.pack("<B3xB3xII", 0, 0x05, 37000, 1000))
        file.seek(37000 * 512)
        file.write(second)
    table = read(source)
    # Chains are followed in the order of their entries: the one of partition 2 comes first.
    assert [(part.number, part.start_lba) for part in table.partitions[3:]] == [
        (5, 37010), (6, 24000), (7, 4096), (8, 12000),
    ]  # fmt: skip
    target = make(tmp_path / "target", table)
    assert read(target) == table
    assert target.read_bytes() == source.read_bytes()
