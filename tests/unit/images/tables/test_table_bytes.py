"""From a table to its bytes and back: what is written is what is read, whatever a table may say.

That other tools read the same is asked in tests/flow/test_tables.py.
"""

import random
import struct
import zlib
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import RefusedError
from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind
from images.sources import BytesSource
from images.tables import c_gpt
from images.tables.detect import read_table
from images.tables.table_bytes import table_pieces
from tests.unit.images.tables.generated import SECTORS, dos_tables, gpts


def written(table: PartitionTable, sector_size: int = 512, sectors: int = SECTORS) -> bytearray:
    """A disk with the table on it and noise elsewhere, so that nothing passes by being zero."""
    disk = bytearray(random.Random(1).randbytes(4096) * (sectors * sector_size // 4096 + 1))[: sectors * sector_size]
    disk[:440] = bytes(440)  # noise at offset 3 or 11 could look like a volume's boot sector
    for piece in table_pieces(table, len(disk), sector_size):
        disk[piece.offset : piece.offset + len(piece.data)] = piece.data
    return disk


class Written:
    """A disk that is noise but for its table; as a source, since 4096-byte sectors make it large."""

    def __init__(self, table: PartitionTable, sector_size: int) -> None:
        self.size, self.sector_size = SECTORS * sector_size, sector_size
        self.lost: range = range(0)
        self._pieces = table_pieces(table, self.size, sector_size)
        self._noise = random.Random(1).randbytes(1 << 20)

    def read_at(self, offset: int, length: int) -> bytes:
        found = bytearray(440 if offset == 0 else 0)  # noise at the start could look like a volume's boot sector
        found += (self._noise * (length // len(self._noise) + 2))[: length - len(found)]
        for piece in self._pieces:
            start, end = max(offset, piece.offset), min(offset + length, piece.extent.end)
            if start < end and start not in self.lost:
                found[start - offset : end - offset] = piece.data[start - piece.offset : end - piece.offset]
        return bytes(found)


@pytest.mark.parametrize("sector_size", [512, 4096])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_gpt_is_read_as_it_was_written(sector_size: int, data: st.DataObject) -> None:
    table = data.draw(gpts(sector_size))
    disk = Written(table, sector_size)
    assert read_table(disk) == table
    # Each end alone says it all.
    disk.lost = range(sector_size, 2 * sector_size)
    saved = read_table(disk)
    assert saved is not None
    assert "the primary GPT is damaged, the backup was used" in saved.notes[0]
    assert msgspec.structs.replace(saved, notes=(), entries_lba=table.entries_lba) == table


@pytest.mark.parametrize("sector_size", [512, 4096])
@settings(max_examples=60, deadline=None)
@given(table=dos_tables())
def test_a_dos_table_is_read_as_it_was_written(sector_size: int, table: PartitionTable) -> None:
    assert read_table(Written(table, sector_size)) == table


def gpt(**changes: object) -> PartitionTable:
    table = PartitionTable(
        kind=TableKind.GPT,
        identifier="11111111-2222-3333-4444-555555555555",
        partitions=(part(1, 2048, 100), part(3, 3000, 200)),
        first_usable_lba=34,
        last_usable_lba=SECTORS - 34,
        entry_count=128,
    )
    return msgspec.structs.replace(table, **changes)


def part(number: int, start: int, count: int, **changes: object) -> Partition:
    made = Partition(
        id=f"part{number}",
        number=number,
        start_lba=start,
        sector_count=count,
        type="0fc63daf-8483-4772-8e79-3d69d8477de4",
        role=PartitionRole.PRIMARY,
        uuid=UUID(int=number),
    )
    return msgspec.structs.replace(made, **changes)


def dos(*parts: Partition, **changes: object) -> PartitionTable:
    plain = [msgspec.structs.replace(part, uuid=None) for part in parts]
    table = PartitionTable(kind=TableKind.DOS, identifier="0x1234abcd", partitions=tuple(plain))
    return msgspec.structs.replace(table, **changes)


def primary(number: int, start: int, count: int, kind: str = "0x83") -> Partition:
    return part(number, start, count, type=kind)


def logical(number: int, start: int, count: int) -> Partition:
    return part(number, start, count, type="0x83", role=PartitionRole.LOGICAL)


EXTENDED = part(2, 3000, 1000, type="0x05", role=PartitionRole.EXTENDED)
FAR = msgspec.structs.replace(EXTENDED, number=3, id="part3", start_lba=5000, sector_count=10)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (gpt(partitions=(part(1, 2048, 100), part(1, 3000, 100))), "partition number 1 stands there twice"),
        (gpt(partitions=(part(1, 2048, 100), part(2, 2100, 100))), "partition 2 starts at LBA 2100, inside"),
        (gpt(partitions=(part(129, 2048, 100),)), "partition 129 is beyond the table's 128 entries"),
        (gpt(partitions=(part(1, 33, 100),)), "partition 1 starts at LBA 33, where the table itself lies"),
        (gpt(partitions=(part(1, 5900, 67 + 1),)), "ends behind LBA 5966, where the backup table begins"),
        (gpt(partitions=(part(1, 5900, 1 << 40),)), "of a disk of 6000"),
        (gpt(partitions=(part(1, 2048, 0),)), "partition 1 has LBA 2048 to 2047"),
        (gpt(partitions=(part(1, 2048, 1, uuid=None),)), "partition 1 has no GUID"),
        (gpt(partitions=(part(1, 2048, 1, type="0x83"),)), "'0x83', which is no GUID"),
        (gpt(partitions=(part(1, 2048, 1, attributes=1 << 64),)), "more than 64 bits"),
        (gpt(partitions=(part(1, 2048, 1, name="x" * 37),)), "more than 36 UTF-16 units"),
        (gpt(partitions=(part(1, 2048, 1, name_utf16="zz" * 72),)), "expected 72 bytes in hex"),
        (gpt(entry_count=1 << 20), "1048576 GPT entries"),
        (gpt(entry_count=0), "0 GPT entries"),
        (gpt(entry_size=100), "GPT entries of 100 bytes"),
        (gpt(entries_lba=5950), "have no place"),
        (gpt(entries_lba=1), "have no place"),
        (gpt(last_usable_lba=SECTORS - 33), "usable LBAs 34 to 5967"),
        (gpt(identifier="disk"), "the disk's GUID is 'disk'"),
        (gpt(mbr="00" * 72), "expected an entry of type 0xee"),
        (gpt(mbr="00"), "mbr: expected 72 bytes"),
        (dos(primary(1, 0, 5)), "partition 1 has LBA 0"),
        (dos(primary(5, 10, 5)), "partition 5 is not logical"),
        (dos(primary(1, 10, 5, "0x05")), "partition 1 has type 0x05 and is primary"),
        (dos(primary(1, 10, 5, "0x1ff")), "does not fit the numbers of a dos table"),
        (dos(primary(1, 10, 5, "0xee")), "would make the disk a GPT disk"),
        (dos(primary(1, 10, 5, "linux")), "which is no number"),
        (dos(EXTENDED, logical(6, 3100, 5)), "not numbered from 5 without a gap: 6"),
        (dos(EXTENDED, logical(5, 2900, 5)), "outside the extended one"),
        (dos(EXTENDED, logical(5, 3990, 20)), "outside the extended one"),
        (dos(EXTENDED, logical(5, 3001, 9), logical(6, 3010, 9)), "no sector before it for its boot record"),
        (dos(EXTENDED, FAR, logical(5, 4500, 5)), "outside the extended one"),
        (dos(identifier="0x1ffffffff"), "is no disk signature"),
        (dos(mbr="zz" * 72), "mbr: expected 72 bytes"),
    ],
)
def test_a_table_that_contradicts_itself_or_the_disk_is_refused(table: PartitionTable, words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        table_pieces(table, SECTORS * 512, 512)
    assert words in caught.value.message


def test_a_table_of_more_than_the_dos_numbers_is_refused() -> None:
    with pytest.raises(RefusedError, match="does not fit the numbers of a dos table"):
        table_pieces(dos(primary(1, 1 << 32, 5)), 1 << 50, 512)


@pytest.mark.parametrize(
    "name",
    [
        b"r\0o\0o\0t\0\0\0o\0l\0d\0",  # text behind the end
        b"\x00\xd8x\0",  # half of a surrogate pair
        b"\x3d\xd8" * 36,
        "é".encode("utf-16-le") * 36,  # no NUL at all
        b"\xff\xff\xfe\xff",
    ],
)
def test_a_name_keeps_its_72_bytes(name: bytes) -> None:
    disk = written(gpt())
    field = name.ljust(72, b"\0")
    for array, header in ((2, 1), (SECTORS - 33, SECTORS - 1)):
        disk[array * 512 + 56 : array * 512 + 128] = field
        crc = zlib.crc32(disk[array * 512 : array * 512 + 128 * 128])
        struct.pack_into("<I", disk, header * 512 + 88, crc)
        struct.pack_into("<I", disk, header * 512 + 16, 0)
        struct.pack_into("<I", disk, header * 512 + 16, zlib.crc32(disk[header * 512 : header * 512 + 92]))
    table = read_table(BytesSource(bytes(disk)))
    assert table is not None
    assert table.notes == ()
    assert msgspec.json.decode(msgspec.json.encode(table), type=PartitionTable) == table
    assert written(table) == disk


def test_a_chain_is_kept_only_while_it_says_the_same() -> None:
    """The first record is empty and links on, as tools leave it when they delete the first logical partition."""
    table = dos(EXTENDED, logical(5, 3200, 50), logical(6, 3100, 50))
    disk = written(table)
    record = bytearray(512)
    record[510:] = b"\x55\xaa"
    struct.pack_into("<B3sB3sII", record, 446, 0, b"abc", 0x05, b"def", 180, 70)
    moved = bytearray(512)
    moved[:3] = b"OS2"
    moved[510:] = b"\x55\xaa"
    struct.pack_into("<B3sB3sII", moved, 446, 0, b"xyz", 0x83, b"uvw", 20, 50)
    struct.pack_into("<B3sB3sII", moved, 462, 0, b"123", 0x0F, b"456", 90, 60)
    last = bytearray(512)
    last[510:] = b"\x55\xaa"
    struct.pack_into("<B3sB3sII", last, 446, 0, b"789", 0x83, b"000", 10, 50)
    for lba, content in ((3000, record), (3180, moved), (3090, last)):
        disk[lba * 512 : (lba + 1) * 512] = content
    found = read_table(BytesSource(bytes(disk)))
    assert found is not None
    assert [(part.number, part.start_lba) for part in found.partitions[1:]] == [(5, 3200), (6, 3100)]
    assert [record.lba for record in found.records] == [3000, 3180, 3090]
    pieces = {piece.offset // 512: piece.data for piece in table_pieces(found, len(disk), 512)}
    assert (pieces[3000], pieces[3180], pieces[3090]) == (record, moved, last)
    grown = msgspec.structs.replace(
        found, partitions=(*found.partitions[:2], msgspec.structs.replace(found.partitions[2], sector_count=60))
    )
    assert read_table(BytesSource(bytes(written(grown)))) == msgspec.structs.replace(grown, records=())


def test_a_chain_with_two_partitions_in_one_record_is_kept() -> None:
    disk = written(dos(EXTENDED))
    struct.pack_into("<B3xB3xII", disk, 3000 * 512 + 446, 0, 0x83, 10, 20)
    struct.pack_into("<B3xB3xII", disk, 3000 * 512 + 462, 0, 0x83, 30, 20)
    found = read_table(BytesSource(bytes(disk)))
    assert found is not None
    assert [part.start_lba for part in found.partitions] == [3000, 3010, 3030]
    again = written(found)
    assert again == disk


def test_entries_of_a_dos_table_that_did_not_change_keep_their_geometry() -> None:
    disk = written(dos(primary(1, 63, 937), primary(2, 1000, 1000)))
    disk[447:450], disk[451:454] = b"\x01\x01\x00", b"\x0e\x3f\x10"  # 15 heads
    disk[463:466] = b"\x0f\x01\x02"
    disk[444:446] = b"\x5a\x5a"
    found = read_table(BytesSource(bytes(disk)))
    assert found is not None
    assert found.mbr
    moved = msgspec.structs.replace(found, partitions=(found.partitions[0], primary(2, 2048, 1000)))
    tail = next(piece.data for piece in table_pieces(moved, len(disk), 512) if piece.offset == 440)
    assert tail[:22] == disk[440:462]
    # LBA 2048 and 3047 by 255 heads and 63 sectors.
    assert tail[22:38] == struct.pack("<B3sB3sII", 0, bytes((32, 33, 0)), 0x83, bytes((48, 24, 0)), 2048, 1000)


def test_the_header_is_92_bytes_of_the_specification() -> None:
    """UEFI specification 2.10, table 5-5, field by field."""
    disk = written(gpt())
    header = disk[512:1024]
    assert header[:8] == b"EFI PART"
    assert struct.unpack_from("<II", header, 8) == (0x00010000, 92)
    assert struct.unpack_from("<IQQQQ", header, 20) == (0, 1, SECTORS - 1, 34, SECTORS - 34)
    assert UUID(bytes_le=bytes(header[56:72])) == UUID("11111111-2222-3333-4444-555555555555")
    assert struct.unpack_from("<QII", header, 72) == (2, 128, 128)
    assert struct.unpack_from("<I", header, 88)[0] == zlib.crc32(disk[1024 : 1024 + 16384])
    crc = struct.unpack_from("<I", header, 16)[0]
    assert crc == zlib.crc32(header[:16] + bytes(4) + header[20:92])
    assert header[92:] == bytes(420)
    assert struct.unpack_from("<QQ", disk, (SECTORS - 1) * 512 + 24) == (SECTORS - 1, 1)
    assert struct.unpack_from("<Q", disk, (SECTORS - 1) * 512 + 72) == (SECTORS - 33,)
    assert c_gpt.parse_header(bytes(header)).my_lba == 1
