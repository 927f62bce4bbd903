"""dos tables as GPT: types as sgdisk converts them."""

from pathlib import Path
from uuid import UUID

from images.model.layout import PartitionRole, PartitionTable, TableKind
from images.sources import BytesSource
from images.tables.detect import read_table
from images.tables.table_bytes import table_pieces
from restore.table.convert import to_gpt
from tests.flow.disks import need, run

TYPES = [
    *("01", "04", "06", "07", "0b", "0c", "0e", "11", "14", "16", "17", "1b", "1c", "1e", "27", "39", "41"),
    *("82", "83", "84", "8e", "a5", "a6", "a8", "af", "ea", "eb", "ef", "fb", "fc", "fd"),
]
SIZE = 32 << 20


def dos(path: Path, script: str) -> PartitionTable:
    need("sfdisk")
    with path.open("wb") as file:
        file.truncate(SIZE)
    run("sfdisk", "-q", path, stdin=f"label: dos\nlabel-id: 0x1234abcd\n{script}")
    table = read_table(BytesSource(path.read_bytes()))
    assert table is not None
    return table


def test_types_become_what_sgdisk_makes_of_them(tmp_path: Path) -> None:
    need("sgdisk")
    path = tmp_path / "disk"
    logical = "".join(f"start={1024 * (3 + at)},size=512,type={kind}\n" for at, kind in enumerate(TYPES))
    ours = to_gpt(dos(path, f"start=2048,size=60000,type=f\n{logical}")).table
    run("sgdisk", "-g", path)
    theirs = read_table(BytesSource(path.read_bytes()))
    assert theirs is not None
    assert len(theirs.partitions) == len(TYPES)
    assert [(part.number, part.start_lba, part.type, part.role) for part in ours.partitions] == [
        (part.number, part.start_lba, part.type, part.role) for part in theirs.partitions
    ]


def test_logical_partitions_become_ordinary_and_keep_their_numbers(tmp_path: Path) -> None:
    table = dos(
        tmp_path / "disk",
        "start=2048,size=2048,type=7,bootable\nstart=8192,size=40000,type=f\nstart=10240,size=2048\n"
        "start=20480,size=2048,type=82\n4: start=50000,size=99,type=17\n",
    )
    converted = to_gpt(table)
    assert converted.reasons == ()
    assert converted.notes == ()
    made = converted.table
    assert [(part.number, part.id) for part in made.partitions] == [
        (number, f"part{number}") for number in (1, 4, 5, 6)
    ]
    assert {part.role for part in made.partitions} == {PartitionRole.PRIMARY}
    assert not any(part.active or part.name for part in made.partitions)
    # Legacy BIOS bootable (UEFI 2.10, table 5-8); no drive letter (Microsoft's GPT_BASIC_DATA_ATTRIBUTE_HIDDEN).
    assert [part.attributes for part in made.partitions] == [1 << 2, 1 << 62, 0, 0]
    assert made.kind is TableKind.GPT
    assert (made.entry_count, made.entry_size, made.mbr, made.records) == (128, 128, "", ())


def test_guids_follow_from_the_signature_and_the_numbers(tmp_path: Path) -> None:
    table = dos(tmp_path / "disk", "size=2048\nsize=2048\n")
    one, again = to_gpt(table).table, to_gpt(table).table
    assert one == again
    guids = [UUID(one.identifier), *(part.uuid for part in one.partitions)]
    assert len(set(guids)) == 3
    assert {guid.version for guid in guids if guid} == {5}
    other = to_gpt(dos(tmp_path / "disk", "label-id: 0x1234abce\nsize=2048\nsize=2048\n")).table
    assert not {other.identifier, *(str(part.uuid) for part in other.partitions)} & {str(guid) for guid in guids}


def test_recovery_is_hidden_from_windows_and_unknown_types_are_said(tmp_path: Path) -> None:
    table = dos(tmp_path / "disk", "size=2048,type=27\nsize=2048,type=9f\n")
    converted = to_gpt(table)
    # Microsoft, "UEFI/GPT-based hard drive partitions": required, no drive letter.
    assert converted.table.partitions[0].attributes == 0x8000000000000001
    assert converted.table.partitions[0].role is PartitionRole.RECOVERY
    assert converted.notes == ("Partition 2 has type 0x9f, which GPT does not know: it becomes Linux data.",)


def test_a_dynamic_disk_is_refused(tmp_path: Path) -> None:
    assert "partition 1 belongs to a dynamic disk" in to_gpt(dos(tmp_path / "disk", "size=2048,type=42\n")).reasons[0]


def test_a_converted_table_is_one_that_sfdisk_reads(tmp_path: Path) -> None:
    table = dos(
        tmp_path / "disk", "start=2048,size=2048,type=7,bootable\nstart=8192,size=9000,type=f\nstart=9000,size=9\n"
    )
    made = to_gpt(table).table
    fitted = type(made)(
        kind=made.kind, identifier=made.identifier, partitions=made.partitions, entry_count=made.entry_count,
        first_usable_lba=34, last_usable_lba=SIZE // 512 - 34,
    )  # fmt: skip
    disk = tmp_path / "gpt"
    with disk.open("wb") as file:
        file.truncate(SIZE)
        for piece in table_pieces(fitted, SIZE, 512):
            file.seek(piece.offset)
            file.write(piece.data)
    assert "No errors detected" in run("sfdisk", "--verify", disk)
