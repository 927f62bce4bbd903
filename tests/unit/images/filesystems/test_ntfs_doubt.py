"""NTFS volumes whose map must not be believed, by the judgement of ntfs-3g and by the book."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.filesystems.ntfs import read_ntfs
from images.model.extents import Extent
from images.sources import BytesSource, open_source
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.ntfs_image import (
    BITMAP,
    DATA,
    LOG,
    MFT,
    RECORD,
    VOLUME,
    VOLUME_INFORMATION,
    Volume,
    copier,
    is_mountable,
    make_ntfs,
    put,
    spans,
)
from tests.unit.images.filesystems.real import MIB, CountingSource, run, used, whole

pytestmark = pytest.mark.skipif(
    bool(real.needs("mkntfs", "ntfscp", "ntfsinfo", "ntfs-3g.probe", "ntfsresize")), reason="ntfs-3g is not installed"
)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Makes copies of one small volume with a file in it."""
    return copier(tmp_path_factory.mktemp("blank"))


def restart_page(version: tuple[int, int], clients: int, flags: int, lsn: int = 1, magic: bytes = b"RSTR") -> bytes:
    """A restart page of $LogFile of 4 KiB (layout.h: RESTART_PAGE_HEADER, RESTART_AREA)."""
    page = bytearray(4096)
    checked = lsn if magic == b"CHKD" else 0
    struct.pack_into("<4sHHQIIHhh", page, 0, magic, 30, 9, checked, 4096, 4096, 48, version[1], version[0])
    size = 2 << 20
    area = struct.pack(
        "<QHHHHIHHQIHH", lsn, 1, 0xFFFF, clients, flags, 67 - size.bit_length(), 208, 48, size, 0, 48, 64
    )
    page[48 : 48 + len(area)] = area
    client = struct.pack("<QQHHH6xI", 0, 0, 0xFFFF, 0xFFFF, 1, 8) + "NTFS".encode("utf-16-le")
    page[96 : 96 + len(client)] = client
    struct.pack_into("<H", page, 30, 1)
    for end in range(512, 4097, 512):
        page[end - 2 : end] = b"\x01\x00"
    return bytes(page)


OPEN, CLOSED = (0, 0), (0xFFFF, 0)


@pytest.mark.parametrize(
    ("pages", "probe", "words"),
    [
        ([restart_page((1, 1), *OPEN)], 15, "($LogFile) is open"),
        ([restart_page((1, 1), 0, 2)], 0, ""),
        ([restart_page((1, 1), *CLOSED)], 0, ""),
        ([restart_page((1, 1), *CLOSED, lsn=5), restart_page((1, 1), *OPEN, lsn=6)], 15, "($LogFile) is open"),
        ([restart_page((1, 1), *CLOSED, lsn=7), restart_page((1, 1), *OPEN, lsn=6)], 0, ""),
        ([restart_page((1, 1), *OPEN, lsn=7), restart_page((1, 1), *CLOSED, lsn=8)], 0, ""),
        ([restart_page((2, 0), *CLOSED)], 14, "Fast Startup"),
        ([restart_page((1, 1), *CLOSED, lsn=5), restart_page((2, 0), *OPEN, lsn=6)], 14, "Fast Startup"),
        ([restart_page((1, 1), *CLOSED, magic=b"CHKD")], 0, ""),
        ([restart_page((1, 0), *CLOSED)], 15, "no valid restart page"),
        ([bytes(4096)], 15, "no valid restart page"),
        ([b"RCRD" + bytes(4092)], 15, "no valid restart page"),
    ],
)
def test_journal_is_judged_as_ntfs3g_does(
    tmp_path: Path, blank: Callable[[Path], Path], pages: list[bytes], probe: int, words: str
) -> None:
    volume = Volume(blank(tmp_path / "fs.img"))
    content = b"".join(pages)
    volume.content[volume.place(LOG) : volume.place(LOG) + len(content)] = content
    path = volume.save()
    answer, _ = used(path)
    assert answer.trusted == (not words)
    assert words in answer.reason
    found = is_mountable(path)
    # ntfs-3g 2022.10.3 does not tell the reasons apart in all cases, but refuses
    assert found == probe or (probe and found in (14, 15))


@pytest.mark.parametrize(
    ("name", "content", "probe", "words"),
    [
        ("hiberfil.sys", b"hibr" + bytes(8000), 14, "Windows is hibernated"),
        ("hiberfil.sys", b"HIBR" + bytes(8000), 14, "Windows is hibernated"),
        ("hiberfil.sys", b"hibr" + bytes(40), 14, "another partition is hibernated"),
        ("hiberfil.sys", b"WAKE" + bytes(8000), 0, ""),
        ("hiberfil.sys", bytes(8000), 0, ""),
        # Windows does not mind the case; ntfs-3g does
        ("HiberFil.SYS", b"HIBR" + bytes(8000), 0, "Windows is hibernated"),
        ("hiberfil.sys.old", b"HIBR" + bytes(8000), 0, ""),
    ],
)
@pytest.mark.parametrize("crowd", [0, 40])
def test_hibernation_is_judged_as_ntfs3g_does(
    tmp_path: Path, blank: Callable[[Path], Path], name: str, content: bytes, probe: int, words: str, crowd: int
) -> None:
    """The file is looked up among few and among many others: in the index's root and in its blocks."""
    path = blank(tmp_path / "fs.img")
    for number in range(crowd):
        put(path, f"a file with a long name, number {number}", b"x")
    put(path, name, content)
    answer, _ = used(path)
    assert answer.trusted == (not words)
    assert words in answer.reason
    assert is_mountable(path) == probe


def test_scheduled_for_a_check(tmp_path: Path, blank: Callable[[Path], Path]) -> None:
    path = blank(tmp_path / "fs.img")
    run("ntfsfix", path)
    assert "not cleanly unmounted, or is scheduled for a check" in whole(path)
    run("ntfsfix", "--clear-dirty", path)
    assert used(path)[0].trusted


def clear(first: int, count: int) -> Callable[[Volume], None]:
    return lambda volume: volume.set_bits(first, first + count, False)


def clear_own(number: int, offset: int = 0) -> Callable[[Volume], None]:
    def change(volume: Volume) -> None:
        cluster = volume.runs[number][0][0] + offset
        volume.set_bits(cluster, cluster + 1, False)

    return change


def poke(offset: int, content: bytes) -> Callable[[Volume], None]:
    def change(volume: Volume) -> None:
        volume.content[offset : offset + len(content)] = content

    return change


def poke_record(number: int, offset: int, content: bytes, *, mirror: bool = False) -> Callable[[Volume], None]:
    def change(volume: Volume) -> None:
        at = (volume.mirror if mirror else volume.mft) + number * RECORD + offset
        volume.content[at : at + len(content)] = content

    return change


def poke_attribute(number: int, kind: int, offset: int, content: bytes) -> Callable[[Volume], None]:
    return lambda volume: volume.change(number, kind, offset, content)


def without_index_blocks(volume: Volume) -> None:
    """The root directory's $INDEX_ALLOCATION under another name: the entries in it would be overlooked."""
    record = volume.record(5)
    start = next(start for start, _ in spans(record) if struct.unpack_from("<I", record, start)[0] == 0xA0)
    at = start + struct.unpack_from("<H", record, start + 10)[0]
    assert record[at : at + 8].decode("utf-16-le") == "$I30"
    record[at] = ord("%")
    volume.put_record(5, record)


def index_block(volume: Volume) -> int:
    """Where the first block of the root directory's index lies."""
    return volume.content.index(b"INDX")


def torn_index_block(volume: Volume) -> None:
    volume.content[index_block(volume) + 510] ^= 0xFF


def unused_index_block(volume: Volume) -> None:
    """A damaged block that the directory's own bitmap says is not in use: nobody reads it."""
    torn_index_block(volume)
    volume.change(5, 0xB0, 24 + 8, b"\x00")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (clear(0, 1), "clusters 0 to 16"),
        (clear_own(MFT), "of attribute 0x80 of MFT record 0 are free"),
        (clear_own(MFT, 9), "of attribute 0x80 of MFT record 0 are free"),
        (clear_own(LOG), "of attribute 0x80 of MFT record 2 are free"),
        (clear_own(BITMAP, 1), "of attribute 0x80 of MFT record 6 are free"),
        (poke_attribute(VOLUME, VOLUME_INFORMATION, 24 + 8, b"\x04"), "its version 4.1 is unknown"),
        (poke_attribute(VOLUME, VOLUME_INFORMATION, 24 + 9, b"\x00"), ""),
        (poke_attribute(VOLUME, VOLUME_INFORMATION, 24 + 8, b"\x01\x02"), ""),
        (poke_attribute(VOLUME, VOLUME_INFORMATION, 24 + 10, b"\x80"), ""),
        (poke_attribute(VOLUME, VOLUME_INFORMATION, 24 + 10, b"\x01"), "not cleanly unmounted"),
        (poke_attribute(VOLUME, VOLUME_INFORMATION, 24 + 11, b"\x40"), "chkdsk has not finished"),
        (poke_attribute(BITMAP, DATA, 48, struct.pack("<Q", 1000)), "its $Bitmap has 1000 bytes"),
        (poke_attribute(BITMAP, DATA, 56, struct.pack("<Q", 1016)), "its $Bitmap has 1016 bytes"),
        (poke_attribute(BITMAP, DATA, 48, struct.pack("<QQ", 1 << 40, 1 << 40)), "too many for the"),
        (poke_attribute(BITMAP, DATA, 12, b"\x01"), "compressed, encrypted or sparse"),
        (poke_attribute(BITMAP, DATA, 24, struct.pack("<q", 7)), "a segment of"),
        (poke_attribute(BITMAP, DATA, 64, bytes.fromhex("4102ffffff7f00")), "has a run of 2 clusters at 2147483647"),
        (poke_attribute(BITMAP, DATA, 64, b"\x01\x02\x00"), "has holes"),
        (poke_record(BITMAP, 510, b"\xaa\xaa"), "MFT record 6 is torn"),
        (poke_record(BITMAP, 0, b"BAAD"), "begins with b'BAAD'"),
        (poke_record(BITMAP, 22, b"\x00"), "MFT record 6 is not in use"),
        (poke_record(1, 100, b"\x55", mirror=True), "$MFTMirr does not match"),
        (poke_record(0, 600, b"\x55", mirror=True), ""),  # behind what is used of the record
        (poke_record(BITMAP, 24, b"\xff\xff"), "MFT record 6 claims to use 65535 of 1024 bytes"),
        (poke_record(BITMAP, 29, b"\x05"), "of 1280 bytes, but has 1024"),
        (poke_attribute(BITMAP, 0x30, 0, b"\x31"), "an attribute of type 0x31"),
        (poke_attribute(BITMAP, 0x30, 0, b"\x90"), "an attribute of type 0x80 behind one of 0x90"),
        (without_index_blocks, "blocks of the root directory's index are missing"),
        (unused_index_block, ""),
        (torn_index_block, "of the root directory is torn"),
        (poke(22, b"\x09"), "fields of FAT's boot sector"),
        (poke(32, b"\x09"), "fields of FAT's boot sector"),
        (poke(11, b"\x00\x03"), "its sectors have 768 bytes"),
        (poke(13, b"\x81"), "its clusters have 0x81 sectors"),
        (poke(13, b"\xf3"), "its clusters have 0xf3 sectors"),
        (poke(40, struct.pack("<Q", 1 << 40)), "it claims"),
        (poke(40, struct.pack("<Q", 4096)), "but the volume has 4096"),
        (poke(40, bytes(8)), "it has 0 sectors"),
        (poke(48, struct.pack("<Q", 1 << 60)), "$MFT begins at cluster"),
        (poke(48, struct.pack("<Q", 5)), "MFT record 0"),
        (poke(64, b"\x80"), "its MFT records have"),
        (poke(64, b"\x00"), "its MFT records have"),
    ],
)
def test_doubt_is_captured_whole_and_said(
    tmp_path: Path, blank: Callable[[Path], Path], change: Callable[[Volume], None], words: str
) -> None:
    volume = Volume(blank(tmp_path / "fs.img"))
    change(volume)
    volume.save()
    answer = read_ntfs(BytesSource(bytes(volume.content)))
    assert answer is not None
    assert answer.trusted == (not words), answer.reason
    if words:
        assert list(answer.extents()) == [Extent(0, len(volume.content))]
    assert words in answer.reason


def test_truncated_and_foreign_sources(tmp_path: Path, blank: Callable[[Path], Path]) -> None:
    content = blank(tmp_path / "fs.img").read_bytes()
    assert read_ntfs(BytesSource(content[:511])) is None
    assert read_ntfs(BytesSource(bytes(MIB))) is None
    cut = read_ntfs(BytesSource(content[:MIB]))
    assert cut is not None
    assert "but the volume has 1048576" in cut.reason
    without_copy = read_ntfs(BytesSource(content[:-512]))
    assert without_copy is not None
    assert without_copy.trusted


@pytest.mark.parametrize("number", [MFT, LOG, BITMAP])
def test_bad_sectors_are_doubt(tmp_path: Path, blank: Callable[[Path], Path], number: int) -> None:
    """Where a part of what must be believed cannot be read, the volume is captured whole, not left out."""
    path = blank(tmp_path / "fs.img")
    place = Volume(path).place(number)
    with open_source(path) as source:
        answer = read_ntfs(CountingSource(source, Extent(place, place + 512)))
    assert answer is not None
    assert not answer.trusted
    assert "cannot be read" in answer.reason


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[Extent], list[Extent]]:
    """A small volume, its extents in use, and where its metadata lies."""
    path = make_ntfs(tmp_path_factory.mktemp("mutants") / "fs.img", 2, "-c 512")
    for number in range(12):
        put(path, f"a file with a long name, number {number}", bytes(range(256)) * 100)
    answer, extents = used(path)
    assert answer.trusted
    volume = Volume(path)
    bitmap, log = volume.place(BITMAP), volume.place(LOG)
    metadata = [Extent(0, 512), Extent(volume.mft, volume.mft + 12 * RECORD), Extent(bitmap, bitmap + 512)]
    mirror = Extent(volume.mirror, volume.mirror + 4 * RECORD)
    return path.read_bytes(), extents, [*metadata, Extent(log, log + 512), mirror]


@settings(max_examples=250, deadline=2000)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 1 << 20), st.sampled_from(range(256))), min_size=1, max_size=4
    )
)
def test_any_damage_is_doubt_or_a_superset(
    pieces: tuple[bytes, list[Extent], list[Extent]], changes: list[tuple[int, int, int]]
) -> None:
    """Whatever bytes of the metadata change: no error, and a map that is believed covers what it did before.

    Free bits in $Bitmap itself are left out: nothing contradicts them when they belong to a user's file.
    """
    original, before, places = pieces
    content = bytearray(original)
    for place, offset, value in changes:
        extent = places[place]
        position = extent.start + offset % extent.size
        content[position] = value | original[position] if place == 2 else value
    answer = read_ntfs(BytesSource(bytes(content)))
    if answer is None:
        assert content[3:11] != original[3:11]
        return
    extents = list(answer.extents())
    real.assert_sound(extents, len(content))
    real.assert_covers(extents, before)
    assert answer.trusted or (answer.reason and extents == [Extent(0, len(content))])
