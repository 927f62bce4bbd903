"""Partition tables: what liferaft reads against what sfdisk says of tables that real tools made."""

import gzip
import json
import re
import struct
import subprocess
import zlib
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import DamagedError, DeviceError
from images.model.layout import PartitionRole, PartitionTable, TableKind
from images.sources import BytesSource, open_source
from images.tables.detect import read_table

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
TRUTH = DATA / "_groundtruth"

GPT_SCRIPT = """label: gpt
label-id: 11111111-2222-3333-4444-555555555555
start=2048, size=4096, type=U, name="EFI System", uuid=AAAAAAAA-0000-4000-8000-000000000001
size=2048, type=21686148-6449-6E6F-744E-656564454649, name="größe ☃"
size=2048, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE
size=2048, type=DE94BBA4-06D1-4D40-A16A-BFD50179D6AC, attrs="RequiredPartition GUID:63"
7: size=2048, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, attrs="LegacyBIOSBootable"
"""
DOS_SCRIPT = """label: dos
label-id: 0x1234abcd
start=2048, size=4096, type=83, bootable
size=2048, type=ef
size=16384, type=f
4: size=2048, type=7
size=2048, type=82
size=2048, type=83
size=2048, type=8e
"""


def run(*argv: str, stdin: str = "", code: int = 0) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def make(tmp_path: Path, script: str, sector_size: int) -> Path:
    path = tmp_path / f"disk{sector_size}.img"
    with path.open("wb") as file:
        file.truncate(36 * sector_size * 1024)
    if sector_size == 512:
        run("sfdisk", "--no-tell-kernel", "--quiet", str(path), stdin=script)
    else:  # older sfdisk has no --sector-size, fdisk does and loads the same script
        (tmp_path / "script").write_text(script)
        run("fdisk", "-b", str(sector_size), str(path), stdin=f"I\n{tmp_path / 'script'}\nw\n")
    return path


def read(path: Path, sector_size: int = 512) -> PartitionTable | None:
    with open_source(path, sector_size=sector_size) as source:
        return read_table(source)


def assert_equals_sfdisk(table: PartitionTable | None, theirs: dict[str, object]) -> None:
    """Every field that sfdisk --json has, field by field."""
    assert table is not None
    assert table.kind == theirs["label"]
    assert table.identifier == str(theirs["id"]).lower()
    if table.kind is TableKind.GPT:
        assert (table.first_usable_lba, table.last_usable_lba) == (theirs["firstlba"], theirs["lastlba"])
    listed = theirs.get("partitions", [])
    assert isinstance(listed, list)
    assert len(table.partitions) == len(listed)
    for ours, partition in zip(table.partitions, listed, strict=True):
        assert partition["node"].endswith(str(ours.number))
        assert ours.id == f"part{ours.number}"
        assert (ours.start_lba, ours.sector_count) == (partition["start"], partition["size"])
        assert ours.active == partition.get("bootable", False)
        if table.kind is TableKind.GPT:
            assert ours.type == partition["type"].lower()
            assert ours.uuid == UUID(partition["uuid"])
            assert ours.name == partition.get("name", "")
            assert ours.attributes == attributes(partition.get("attrs", ""))
        else:
            assert int(ours.type, 16) == int(partition["type"], 16)


def attributes(text: str) -> int:
    named = {"RequiredPartition": 0, "NoBlockIOProtocol": 1, "LegacyBIOSBootable": 2}
    bits = 0
    for word in text.split():
        numbers = word.removeprefix("GUID:").split(",") if word.startswith("GUID:") else [str(named[word])]
        for number in numbers:
            bits |= 1 << int(number)
    return bits


def unescape(text: str) -> str:
    """The bytes of UTF-8 that a dump spells as ``\\xc3``."""
    return text.encode().decode("unicode_escape").encode("latin-1").decode()


def sfdisk_json(path: Path, sector_size: int) -> dict[str, object]:
    """``sfdisk --json``; for other sector sizes the same facts from fdisk's dump of the table."""
    if sector_size == 512:
        table = json.loads(run("sfdisk", "--json", str(path)))["partitiontable"]
        assert isinstance(table, dict)
        return table
    dump = path.with_suffix(".dump")
    dump.unlink(missing_ok=True)
    run("fdisk", "-b", str(sector_size), str(path), stdin=f"O\n{dump}\nq\n")
    header, _, body = dump.read_text().partition("\n\n")
    facts = dict(line.split(": ", 1) for line in header.splitlines())
    assert facts["sector-size"] == str(sector_size)
    partitions: list[dict[str, object]] = []
    for line in body.splitlines():
        node, _, rest = line.partition(" : ")
        fields = dict(re.findall(r'(\w+)=\s*("[^"]*"|[^,]*)', rest))
        partition: dict[str, object] = {name: unescape(value.strip('"')) for name, value in fields.items()}
        sizes = {"start": int(fields["start"]), "size": int(fields["size"])}
        partitions.append(partition | sizes | {"node": node, "bootable": rest.endswith("bootable")})
    lbas = {"firstlba": int(facts.get("first-lba", 0)), "lastlba": int(facts.get("last-lba", 0))}
    return {"label": facts["label"], "id": facts["label-id"], "partitions": partitions, **lbas}


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_gpt_is_read_as_sfdisk_reads_it(tmp_path: Path, sector_size: int) -> None:
    path = make(tmp_path, GPT_SCRIPT, sector_size)
    table = read(path, sector_size)
    assert_equals_sfdisk(table, sfdisk_json(path, sector_size))
    assert table is not None
    assert table.notes == ()
    assert table.entry_count == 128
    assert [partition.role for partition in table.partitions] == [
        PartitionRole.ESP,
        PartitionRole.BIOS_BOOT,
        PartitionRole.MSR,
        PartitionRole.RECOVERY,
        PartitionRole.PRIMARY,
    ]
    assert table.partitions[1].name == "größe ☃"
    assert table.partitions[0].extent(sector_size).start == 2048 * sector_size


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_dos_is_read_as_sfdisk_reads_it(tmp_path: Path, sector_size: int) -> None:
    path = make(tmp_path, DOS_SCRIPT, sector_size)
    table = read(path, sector_size)
    assert_equals_sfdisk(table, sfdisk_json(path, sector_size))
    assert table is not None
    assert table.identifier == "0x1234abcd"
    assert [(partition.number, partition.role) for partition in table.partitions] == [
        (1, PartitionRole.PRIMARY),
        (2, PartitionRole.ESP),
        (3, PartitionRole.EXTENDED),
        (4, PartitionRole.PRIMARY),
        (5, PartitionRole.LOGICAL),
        (6, PartitionRole.LOGICAL),
        (7, PartitionRole.LOGICAL),
    ]
    assert [partition.type for partition in table.partitions][:3] == ["0x83", "0xef", "0x0f"]


def test_empty_tables_and_no_table(tmp_path: Path) -> None:
    assert_equals_sfdisk(read(path := make(tmp_path, "label: gpt\n", 512)), sfdisk_json(path, 512))
    assert_equals_sfdisk(read(path := make(tmp_path, "label: dos\n", 512)), sfdisk_json(path, 512))
    assert read_table(BytesSource(bytes(1 << 20))) is None
    assert read_table(BytesSource(b"x")) is None
    assert read_table(BytesSource(b"x" * 4095, 4096)) is None


def test_superfloppy_is_no_table(tmp_path: Path) -> None:
    for name, argv in {
        "fat16": ("mkfs.vfat", "-F16"),
        "fat32": ("mkfs.vfat", "-F32", "-s1"),
        "fat with a fake table": ("mkfs.vfat", "--mbr=y"),
        "ext4": ("mkfs.ext4", "-q", "-F"),
    }.items():
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(48 << 20)
        run(*argv, str(path))
        assert read(path) is None, name


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_gpt_backup_is_used_and_named(tmp_path: Path, sector_size: int) -> None:
    path = make(tmp_path, GPT_SCRIPT, sector_size)
    good = read(path, sector_size)
    content = bytearray(path.read_bytes())
    content[sector_size + 56] ^= 1
    table = read_table(BytesSource(bytes(content), sector_size))
    assert table is not None
    assert good is not None
    assert table.partitions == good.partitions
    assert "the primary GPT is damaged, the backup was used" in table.notes[0]
    assert "CRC of the header" in table.notes[0]
    content[-1 - sector_size] ^= 1  # the entries of the backup
    with pytest.raises(DamagedError, match=r"neither copy .* CRC of the header.*CRC of the entries"):
        read_table(BytesSource(bytes(content), sector_size))


def test_gpt_damaged_backup_and_moved_backup_are_notes(tmp_path: Path) -> None:
    content = bytearray(make(tmp_path, GPT_SCRIPT, 512).read_bytes())
    grown = read_table(BytesSource(bytes(content) + bytes(1 << 20)))
    assert grown is not None
    assert "not in the last sector" in grown.notes[0]
    cut = read_table(BytesSource(bytes(content[:-512])))
    assert cut is not None
    assert "the backup GPT is damaged, the primary was used" in cut.notes[0]
    content[-512] ^= 1
    table = read_table(BytesSource(bytes(content)))
    assert table is not None
    assert "the backup GPT is damaged" in table.notes[0]


def test_gpt_of_another_sector_size_says_so(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"written with sectors of 4096 bytes, but is read with sectors of 512"):
        read(make(tmp_path, GPT_SCRIPT, 4096), 512)
    with pytest.raises(DamagedError, match=r"written with sectors of 512 bytes"):
        read(make(tmp_path, GPT_SCRIPT, 512), 4096)


def test_gpt_without_protective_mbr_is_damage_but_a_stale_backup_is_not(tmp_path: Path) -> None:
    content = bytearray(make(tmp_path, GPT_SCRIPT, 512).read_bytes())
    content[:512] = bytes(512)
    with pytest.raises(DamagedError, match="no protective MBR"):
        read_table(BytesSource(bytes(content)))
    content[512:1024] = bytes(512)
    assert read_table(BytesSource(bytes(content))) is None


def test_hybrid_mbr_is_a_note(tmp_path: Path) -> None:
    content = bytearray(make(tmp_path, GPT_SCRIPT, 512).read_bytes())
    content[462:478] = struct.pack("<B3xB3xII", 0x80, 0x0C, 2048, 4096)
    table = read_table(BytesSource(bytes(content)))
    assert table is not None
    assert table.kind is TableKind.GPT
    assert "hybrid" in table.notes[0]


def test_gpt_overlap_and_out_of_disk_are_damage(tmp_path: Path) -> None:
    path = make(tmp_path, GPT_SCRIPT, 512)
    for first, last, words in (
        (2048 + 4095, 2048 + 4095, "start of partition 2: expected not below LBA 6144"),
        (1 << 40, 1 << 41, "LBAs of partition 2"),
        (9000, 8999, "LBAs of partition 2"),
    ):
        content = bytearray(path.read_bytes())
        struct.pack_into("<QQ", content, 1024 + 128 + 32, first, last)
        seal(content)
        with pytest.raises(DamagedError, match=words):
            read_table(BytesSource(bytes(content)))


def seal(content: bytearray) -> None:
    """Make the CRCs of the primary right again, so that the reader looks behind them."""
    struct.pack_into("<I", content, 512 + 88, zlib.crc32(content[1024 : 1024 + 128 * 128]))
    struct.pack_into("<I", content, 512 + 16, 0)
    struct.pack_into("<I", content, 512 + 16, zlib.crc32(content[512 : 512 + 92]))


@pytest.mark.parametrize(("offset", "value"), [(80, 1 << 31), (84, 1 << 31), (84, 0), (72, 1 << 60), (12, 1 << 30)])
def test_gpt_numbers_are_bounded_before_allocation(tmp_path: Path, offset: int, value: int) -> None:
    content = bytearray(make(tmp_path, GPT_SCRIPT, 512).read_bytes())
    struct.pack_into("<Q" if offset == 72 else "<I", content, 512 + offset, value)
    if offset != 12:
        seal(content)
    table = read_table(BytesSource(bytes(content)))
    assert table is not None
    assert "the primary GPT is damaged" in table.notes[0]


def test_dos_chain_that_loops_or_leaves_is_damage(tmp_path: Path) -> None:
    path = make(tmp_path, DOS_SCRIPT, 512)
    content = bytearray(path.read_bytes())
    extended = struct.unpack_from("<I", content, 446 + 32 + 8)[0] * 512
    link = extended + 446 + 16 + 8
    struct.pack_into("<I", content, link, 0)
    with pytest.raises(DamagedError, match="chain of logical partitions"):
        read_table(BytesSource(bytes(content)))
    struct.pack_into("<I", content, link, 1 << 30)
    with pytest.raises(DamagedError, match="next boot record"):
        read_table(BytesSource(bytes(content)))
    content = bytearray(path.read_bytes())
    second = extended + struct.unpack_from("<I", content, link)[0] * 512
    content[second + 510] = 0
    with pytest.raises(DamagedError, match="signature of a boot record: expected 55aa, found 00aa"):
        read_table(BytesSource(bytes(content)))
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, extended + 446 + 12, 1 << 30)
    with pytest.raises(DamagedError, match="partition 5: expected inside the extended partition"):
        read_table(BytesSource(bytes(content)))


def test_dos_overlap_and_out_of_disk_are_damage(tmp_path: Path) -> None:
    path = make(tmp_path, DOS_SCRIPT, 512)
    for start, count, words in ((2048, 10, "ends, found 2048"), (1 << 31, 9, "partition 2: expected inside 36864")):
        content = bytearray(path.read_bytes())
        struct.pack_into("<II", content, 446 + 16 + 8, start, count)
        with pytest.raises(DamagedError, match=words):
            read_table(BytesSource(bytes(content)))


def test_dos_extended_that_was_never_written_is_empty(tmp_path: Path) -> None:
    path = make(tmp_path, "label: dos\nstart=2048, size=4096, type=5\n", 512)
    content = bytearray(path.read_bytes())
    content[2048 * 512 : 2049 * 512] = bytes(512)
    table = read_table(BytesSource(bytes(content)))
    assert table is not None
    assert [partition.role for partition in table.partitions] == [PartitionRole.EXTENDED]
    assert "it is empty" in table.notes[0]


@pytest.mark.parametrize("script", [GPT_SCRIPT, DOS_SCRIPT], ids=["gpt", "dos"])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_an_error_or_a_table_inside_the_disk(
    tmp_path_factory: pytest.TempPathFactory, script: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / f"property-{len(script)}"
    if not path.exists():
        path.mkdir()
        make(path, script, 512)
    content = bytearray((path / "disk512.img").read_bytes())
    size = data.draw(st.integers(512, len(content)))
    for offset, value in data.draw(
        st.lists(st.tuples(st.integers(440, 2048), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        content[offset] = value
    try:
        table = read_table(BytesSource(bytes(content[:size])))
    except (DamagedError, DeviceError) as error:
        assert error.message
        return
    for partition in table.partitions if table is not None else ():
        assert 0 < partition.start_lba < partition.end_lba <= size // 512


def shared_tables() -> list[tuple[str, int]]:
    names = []
    for path in sorted(TRUTH.rglob("*.gt.json")) if TRUTH.is_dir() else []:
        truth = json.loads(path.read_text())
        if truth.get("container") is None and truth.get("sfdisk") and truth["size"] <= 64 << 20:
            names.append((truth["image"], truth["sfdisk"]["sectorsize"]))
    return names


@pytest.mark.skipif(not TRUTH.is_dir(), reason=f"{DATA} is not here: real inputs of other projects")
def test_tables_of_other_projects() -> None:
    checked = 0
    for name, sector_size in shared_tables():
        theirs = json.loads((TRUTH / f"{name}.gt.json").read_text())["sfdisk"]
        plain, packed = DATA / name, DATA / f"{name}.gz"
        if not plain.exists() and not packed.exists():
            continue
        content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        table = read_table(BytesSource(content, sector_size))
        if content[3:11] in (b"EXFAT   ", b"NTFS    "):  # sfdisk reports a volume's boot sector as an empty table
            assert table is None, name
        else:
            assert_equals_sfdisk(table, theirs)
        checked += 1
    assert checked >= 10
