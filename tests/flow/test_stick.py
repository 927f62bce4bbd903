"""Sticks as image files: the ISO comes through whole, starts nothing half-way, and the data stays where it is.

Witnesses: sfdisk and sgdisk for the table, fsck of each filesystem, blkid, xorriso.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner

from builder.stick.data import DataKind, data_image
from builder.stick.layout import (
    StickLayout,
    data_extent,
    data_start,
    iso_table,
    layout_keeping,
    layout_with_data,
    plain_layout,
    stick_table,
)
from builder.stick.stick import HEAD, UnprovenError, write_stick
from core.errors import DamagedError, DeviceError, RefusedError, UsageError
from core.events import ignore
from core.process import SystemRunner
from core.units import GIB, MIB
from images.sources import BytesSource, open_source
from rescue.cli.write_usb import command
from rescue.jobs.write_usb import StickChoices, StickReport, plan_stick, write_planned
from tests.flow.disks import need, run
from tests.flow.sticks import MemoryStick, PowerCutError, small_iso

_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
#: How each filesystem is proven, as a file of its own.
_FSCK = {
    DataKind.EXFAT: ("fsck.exfat", "-n"),
    DataKind.EXT4: ("e2fsck", "-f", "-n"),
    DataKind.FAT32: ("fsck.vfat", "-n"),
}


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("xorriso", "mkfs.fat", "mkfs.exfat", "mkfs.ext4", "sfdisk", "sgdisk", "blkid", "fsck.exfat", "e2fsck")
    return small_iso(tmp_path_factory.mktemp("small") / "iso")


def garbage(path: Path, size: int, *, ends: bool = False) -> Path:
    """A stick full of an earlier life; with ``ends`` only where anything may be looked for."""
    with path.open("wb") as stream:
        stream.truncate(size)
        places = [(0, 3 * MIB), (GIB, 32 * MIB), (size - 3 * MIB, 3 * MIB)] if ends else [(0, size)]
        for at, length in places:
            stream.seek(at)
            stream.write(b"\xa5" * length)
    return path


def write(iso: Path, stick: Path, choices: StickChoices | None = None) -> StickReport:
    runner = SystemRunner()
    plan = plan_stick(iso, stick, choices or StickChoices(), runner, ignore)
    return write_planned(plan, runner, ignore)


def table_of(path: Path) -> dict[str, object]:
    found = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    assert isinstance(found, dict)
    return found


def parts(path: Path) -> list[tuple[str, int, int, str]]:
    entries = table_of(path)["partitions"]
    assert isinstance(entries, list)
    return [(entry["name"], entry["start"], entry["size"], entry["type"]) for entry in entries]


def start_of(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(size)


def assert_sound_table(path: Path) -> None:
    assert "No errors detected" in run("sfdisk", "--verify", path)
    assert "No problems found" in run("sgdisk", "--verify", path)


def assert_iso_is_on(iso: Path, stick: Path) -> None:
    """All but LBA 0's entries and the tables at both ends: boot code, descriptors, files, EFI image."""
    wanted, found = iso.read_bytes(), start_of(stick, iso.stat().st_size)
    assert found[:440] == wanted[:440]
    assert found[510:512] == b"\x55\xaa"
    # The ISO's own backup table lies in its last sectors, and is nothing on a larger stick.
    assert found[32768:] == wanted[32768:]
    assert "LIFERAFT" in run("xorriso", "-indev", f"stdio:{stick}", "-pvd_info")


def test_the_iso_alone_with_its_table_at_both_ends(iso: Path, tmp_path: Path) -> None:
    stick = garbage(tmp_path / "stick.img", 20 * MIB + 1536)
    report = write(iso, stick)
    assert_sound_table(stick)
    assert_iso_is_on(iso, stick)
    assert parts(stick) == parts(iso)
    assert report.sha256 == hashlib.sha256(iso.read_bytes()).hexdigest()
    assert report.verified >= iso.stat().st_size
    head = stick.read_bytes()[:512]
    assert 0x80 in head[446:510:16], "no active entry: some BIOSes would not start it"
    assert int.from_bytes(head[458:462], "little") == stick.stat().st_size // 512 - 1


@pytest.mark.parametrize("kind", list(DataKind))
def test_a_data_partition_on_a_stick_full_of_garbage(kind: DataKind, iso: Path, tmp_path: Path) -> None:
    stick = garbage(tmp_path / "stick.img", GIB + 128 * MIB, ends=True)
    report = write(iso, stick, StickChoices(data=True, filesystem=kind))
    assert_sound_table(stick)
    assert_iso_is_on(iso, stick)
    name, start, size, _ = parts(stick)[2]
    assert (name, start * 512) == ("LIFERAFT-DATA", GIB)
    assert [part[3] for part in parts(stick)].count(_ESP) == 1
    assert report.data is not None
    assert (report.data.offset, report.data.size) == (start * 512, size * 512)
    volume = tmp_path / "volume"
    run("dd", f"if={stick}", f"of={volume}", "bs=1M", f"skip={start // 2048}", f"count={size // 2048}", "conv=sparse")
    run(*_FSCK[kind], volume)
    said = run("blkid", "--probe", "--output", "export", volume)
    assert "LABEL=RESCUE-DATA" in said
    assert f"UUID={report.data.uuid}".lower() in said.lower()


def test_keep_data_changes_the_iso_and_not_a_byte_of_the_data(iso: Path, tmp_path: Path) -> None:
    stick = garbage(tmp_path / "stick.img", GIB + 80 * MIB, ends=True)
    write(iso, stick, StickChoices(data=True))
    before, data = parts(stick), _data_bytes(stick)
    newer = small_iso(tmp_path / "newer", seed=2, mebibytes=7)
    report = write(newer, stick, StickChoices(keep_data=True))
    assert_sound_table(stick)
    assert_iso_is_on(newer, stick)
    assert parts(stick)[2] == before[2]
    assert _data_bytes(stick) == data
    assert report.data is not None
    assert report.data.kept


def _data_bytes(stick: Path) -> str:
    with stick.open("rb") as stream:
        stream.seek(GIB)
        return hashlib.blake2b(stream.read(79 * MIB)).hexdigest()


def test_keep_data_is_refused_where_there_is_none(iso: Path, tmp_path: Path) -> None:
    stick = garbage(tmp_path / "stick.img", 20 * MIB)
    content = stick.read_bytes()
    with pytest.raises(RefusedError, match="no GPT"):
        write(iso, stick, StickChoices(keep_data=True))
    assert stick.read_bytes() == content
    write(iso, stick)
    content = stick.read_bytes()
    with pytest.raises(RefusedError, match="no partitions named LIFERAFT-DATA"):
        write(iso, stick, StickChoices(keep_data=True))
    assert stick.read_bytes() == content


def test_keep_data_is_refused_when_the_iso_does_not_end_before_it(iso: Path) -> None:
    with open_source(iso) as source:
        table = iso_table(source)
    assert table is not None
    stick = layout_with_data(iso.stat().st_size, table, 2 * GIB, UUID(int=7), linux=False).table
    assert stick is not None
    with pytest.raises(RefusedError, match=r"1\.00 GiB, and the data on the stick begins at 1\.00 GiB"):
        layout_keeping(GIB + 2048, table, stick, 2 * GIB)
    assert layout_keeping(GIB, table, stick, 2 * GIB).kept


def test_the_data_leaves_room_for_larger_isos() -> None:
    assert data_start(5 * MIB) == data_start(800 * MIB) == GIB
    assert data_start(900 * MIB) == 2 * GIB


# What starts from a stick: BIOS runs LBA 0 when it ends in 55aa and has code; UEFI needs a GPT, and so the same mark.
def starts(stick: bytes | bytearray, iso: bytes) -> bool:
    return stick[:440] == iso[:440] or _names_esp(stick)


def _names_esp(stick: bytes | bytearray) -> bool:
    return bytes(stick[510:512]) == b"\x55\xaa" and UUID(_ESP).bytes_le in bytes(stick[1024:32768])


@pytest.fixture(scope="module")
def layouts(iso: Path) -> dict[str, StickLayout]:
    """On a stick of 12 MiB, with data behind the ISO rather than behind a GiB."""
    size = 12 * MIB
    with open_source(iso) as source:
        table = iso_table(source)
        assert table is not None
        plain = plain_layout(source.size, table, size)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("builder.stick.layout.AREA", MIB)
            patch.setattr("builder.stick.layout.LEAST_DATA", MIB)
            fresh = layout_with_data(source.size, table, size, UUID(int=7), linux=False)
        assert fresh.table is not None
        return {"plain": plain, "data": fresh, "kept": layout_keeping(source.size, table, fresh.table, size)}


def _written(iso: Path, stick: MemoryStick, layout: StickLayout, *, suspect: bool = True) -> None:
    place = data_extent(layout)
    with ExitStack() as stack:
        source = stack.enter_context(open_source(iso))
        new = place is not None and not layout.kept
        data = stack.enter_context(data_image(DataKind.EXFAT, place, SystemRunner())) if new and place else None
        write_stick(source, stick, layout, data, ignore, suspect=suspect)


@pytest.mark.parametrize("name", ["plain", "data", "kept"])
def test_a_stick_that_was_pulled_out_starts_nothing(name: str, iso: Path, layouts: dict[str, StickLayout]) -> None:
    whole, layout = iso.read_bytes(), layouts[name]
    first = MemoryStick(layout.size)
    _written(iso, first, layouts["data"])
    data = data_extent(layouts["data"])
    assert data is not None
    kept = bytes(first.content[data.start : data.end])
    again = MemoryStick(layout.size, content=bytes(first.content))
    _written(iso, again, layout)
    assert starts(again.content, whole)
    for cut in _cuts(again.writes):
        stick = MemoryStick(layout.size, cut=cut, content=bytes(first.content))
        with pytest.raises(PowerCutError):
            _written(iso, stick, layout)
        if cut < again.writes - 1:
            # The very first write is half done: then LBA 0 is gone already.
            assert not starts(stick.content, whole), f"cut at write {cut}"
        if layout.kept:
            assert bytes(stick.content[data.start : data.end]) == kept
            assert b"LIFERAFT-DATA".decode().encode("utf-16-le") in stick.content
        # Doing it again is all that is needed.
        healed = MemoryStick(layout.size, content=bytes(stick.content))
        if not layout.kept:
            _written(iso, healed, layout)
            assert starts(healed.content, whole)


def _cuts(writes: int) -> Iterator[int]:
    """Every write of the beginning and of the end, some of the many marks between."""
    yield from (cut for cut in range(writes) if cut < 6 or cut > writes - 14 or cut % 40 == 0)


@pytest.mark.parametrize(("cut", "torn"), [(0, 512), (0, 1024), (0, 1536), (0, -1), (1, -1), (1, 0), (2, -1), (4, -1)])
def test_a_stick_that_was_pulled_out_can_be_written_again_with_its_data(
    cut: int, torn: int, iso: Path, layouts: dict[str, StickLayout]
) -> None:
    layout = layouts["kept"]
    stick = MemoryStick(layout.size)
    _written(iso, stick, layouts["data"])
    pulled = MemoryStick(layout.size, cut=cut, torn=torn, content=bytes(stick.content))
    with pytest.raises(PowerCutError):
        _written(iso, pulled, layout)
    table = stick_table(BytesSource(bytes(pulled.content)))
    with open_source(iso) as source:
        own = iso_table(source)
    assert table is not None and own is not None
    again = layout_keeping(layout.iso, own, table, layout.size)
    assert again.data is not None and layouts["data"].data is not None
    assert (again.data.start_lba, again.data.uuid) == (layouts["data"].data.start_lba, layouts["data"].data.uuid)
    _written(iso, pulled_in := MemoryStick(layout.size, content=bytes(pulled.content)), again)
    assert starts(pulled_in.content, iso.read_bytes())


def test_a_stick_with_a_cache_keeps_its_data_when_it_is_pulled_out(iso: Path, layouts: dict[str, StickLayout]) -> None:
    class Caching(MemoryStick):
        """Of the first write that was not flushed, all behind LBA 1 is lost: caches are emptied in any order."""

        def __init__(self, size: int, *, cut: int, content: bytes) -> None:
            super().__init__(size, cut=cut, torn=0, content=content)
            self._before: list[tuple[int, bytes]] = []

        def write_at(self, offset: int, data: bytes | memoryview) -> None:
            self._before.append((offset, bytes(self.content[offset : offset + len(data)])))
            try:
                super().write_at(offset, data)
            except PowerCutError:
                at, old = self._before[0]
                self.content[at + 1024 : at + len(old)] = old[1024:]
                raise

        def flush(self) -> None:
            self._before = []

    layout, stick = layouts["kept"], MemoryStick(layouts["kept"].size)
    _written(iso, stick, layouts["data"])
    whole = MemoryStick(layout.size, content=bytes(stick.content))
    _written(iso, whole, layout)
    for cut in range(whole.writes):
        pulled = Caching(layout.size, cut=cut, content=bytes(stick.content))
        with pytest.raises(PowerCutError):
            _written(iso, pulled, layout)
        table = stick_table(BytesSource(bytes(pulled.content)))
        assert table is not None and "LIFERAFT-DATA" in [part.name for part in table.partitions], f"cut at write {cut}"


def test_a_stick_whose_first_page_does_not_hold_starts_nothing(iso: Path) -> None:
    class Faulty(MemoryStick):
        def write_at(self, offset: int, data: bytes | memoryview) -> None:
            super().write_at(offset, data)
            if offset == 0:
                self.content[100] ^= 1

    with open_source(iso) as source:
        layout = plain_layout(source.size, iso_table(source), 16 * MIB)
    stick = Faulty(16 * MIB)
    with pytest.raises(UnprovenError, match=r"LBA 0 \(byte 0\)"):
        _written(iso, stick, layout)
    assert bytes(stick.content[510:512]) == bytes(2)


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("true", [6 * MIB, 7 * MIB + 4096, 8 * MIB, 11 * MIB])
def test_a_stick_that_is_smaller_than_it_says(true: int, wraps: bool, iso: Path) -> None:
    with open_source(iso) as source:
        layout = plain_layout(source.size, iso_table(source), 32 * MIB)
    stick = MemoryStick(layout.size, true=true, wraps=wraps)
    with pytest.raises(DeviceError, match=r"(does|do) not hold") as caught:
        _written(iso, stick, layout)
    assert "Do not use this stick" in caught.value.hint
    assert not starts(stick.content, iso.read_bytes())


def test_a_stick_that_forgets_a_sector(iso: Path) -> None:
    class Forgetful(MemoryStick):
        def write_at(self, offset: int, data: bytes | memoryview) -> None:
            super().write_at(offset, data)
            if offset <= 3 * MIB < offset + len(data):
                self.content[3 * MIB + 512] ^= 1

    with open_source(iso) as source:
        layout = plain_layout(source.size, iso_table(source), 16 * MIB)
    with pytest.raises(DeviceError, match=rf"LBA {(3 * MIB + 512) // 512} \(byte {3 * MIB + 512}\) does not hold"):
        _written(iso, Forgetful(16 * MIB), layout)


def test_an_image_file_is_not_suspected(iso: Path, tmp_path: Path) -> None:
    stick = tmp_path / "stick.img"
    with stick.open("wb") as stream:
        stream.truncate(64 * GIB)
    write(iso, stick)
    assert stick.stat().st_blocks * 512 < 2 * iso.stat().st_size + 2 * HEAD
    assert_sound_table(stick)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut", "cut short"),
        ("altered", r"altered or damaged: live/base\.squashfs, offset"),
        ("text", "is not an ISO"),
        ("empty", "is empty"),
    ],
)
def test_a_bad_iso_costs_nobody_a_stick(damage: str, words: str, iso: Path, tmp_path: Path) -> None:
    content = bytearray(iso.read_bytes())
    if damage == "cut":
        content = content[: 3 * MIB]
    elif damage == "altered":
        content[3 * MIB] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(b"hello, world\n" * (4 * MIB // 13 + 1))[: 4 * MIB]
    bad = tmp_path / "bad.iso"
    bad.write_bytes(content)
    stick = garbage(tmp_path / "stick.img", 20 * MIB)
    with pytest.raises(DamagedError, match=words):
        write(bad, stick)
    assert stick.read_bytes() == b"\xa5" * (20 * MIB)


def test_another_systems_image_is_written_when_asked(iso: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(bytes(range(256)) * (3 * MIB // 256))
    stick = garbage(tmp_path / "stick.img", 20 * MIB)
    write(other, stick, StickChoices(any_iso=True))
    assert stick.read_bytes()[: 3 * MIB] == other.read_bytes()
    with pytest.raises(RefusedError, match="no GPT"):
        write(other, stick, StickChoices(any_iso=True, data=True))


def test_every_reason_at_once_and_no_byte_is_written(iso: Path, tmp_path: Path) -> None:
    stick = garbage(tmp_path / "stick.img", 2 * MIB + 1)
    stick.chmod(0o444)
    with pytest.raises(RefusedError) as caught:
        write(iso, stick)
    assert any("too small" in reason for reason in caught.value.reasons)
    assert any("not whole sectors of 512" in reason for reason in caught.value.reasons)
    assert stick.read_bytes() == b"\xa5" * (2 * MIB + 1)


def test_the_iso_is_not_its_own_stick(iso: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.iso"
    copy.write_bytes(iso.read_bytes())
    (tmp_path / "link").hardlink_to(copy)
    with pytest.raises(RefusedError, match="is the ISO itself"):
        write(copy, tmp_path / "link")


def test_too_small_for_data(iso: Path, tmp_path: Path) -> None:
    stick = garbage(tmp_path / "stick.img", 20 * MIB)
    with pytest.raises(RefusedError, match=r"needs at least 1\.06 GiB"):
        write(iso, stick, StickChoices(data=True))
    assert stick.read_bytes() == b"\xa5" * (20 * MIB)


def test_a_table_without_a_place_for_one_more_partition_is_told_before(iso: Path, tmp_path: Path) -> None:
    """Another system's image whose table has room for the partitions that are in it."""
    other = tmp_path / "other.img"
    other.write_bytes(bytes(4 * MIB))
    run("sfdisk", "-q", other, stdin="label: gpt\ntable-length: 4\n" + "start=,size=512K\n" * 4)
    stick = garbage(tmp_path / "stick.img", GIB + 80 * MIB, ends=True)
    with pytest.raises(RefusedError, match="partition 5 is beyond the table's 4 entries") as caught:
        plan_stick(other, stick, StickChoices(any_iso=True, data=True), SystemRunner(), ignore)
    assert "Nothing was written" in caught.value.hint
    assert start_of(stick, 3 * MIB) == b"\xa5" * (3 * MIB)


def test_a_stick_that_changed_since_it_was_looked_at(iso: Path, tmp_path: Path) -> None:
    stick = garbage(tmp_path / "stick.img", 20 * MIB)
    plan = plan_stick(iso, stick, StickChoices(), SystemRunner(), ignore)
    garbage(tmp_path / "other.img", 20 * MIB).rename(stick)
    with pytest.raises(RefusedError, match="is not what it was"):
        write_planned(plan, SystemRunner(), ignore)
    assert stick.read_bytes() == b"\xa5" * (20 * MIB)


def test_an_iso_that_changed_since_it_was_looked_at(iso: Path, tmp_path: Path) -> None:
    stick, copy = garbage(tmp_path / "stick.img", 20 * MIB), tmp_path / "copy.iso"
    copy.write_bytes(iso.read_bytes())
    plan = plan_stick(copy, stick, StickChoices(), SystemRunner(), ignore)
    content = bytearray(copy.read_bytes())
    content[2 * MIB] ^= 1
    copy.write_bytes(content)
    with pytest.raises(RefusedError, match="is not what it was"):
        write_planned(plan, SystemRunner(), ignore)
    assert stick.read_bytes() == b"\xa5" * (20 * MIB)


def test_choices_that_contradict_each_other(iso: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="made anew or left alone, not both"):
        write(iso, garbage(tmp_path / "stick.img", 20 * MIB), StickChoices(data=True, keep_data=True))


def test_the_command_asks_and_prints_one_document(iso: Path, tmp_path: Path) -> None:
    stick = garbage(tmp_path / "stick.img", 20 * MIB)
    refused = CliRunner().invoke(command, [str(iso), str(stick)], standalone_mode=False)
    assert isinstance(refused.exception, RefusedError)
    assert "Nobody can be asked" in refused.exception.message
    assert stick.read_bytes() == b"\xa5" * (20 * MIB)
    done = CliRunner().invoke(command, [str(iso), str(stick), "--yes", "--json"], standalone_mode=False)
    assert done.exception is None
    report = json.loads(done.stdout)
    assert report["node"] == str(stick)
    assert report["sha256"] == hashlib.sha256(iso.read_bytes()).hexdigest()
