"""Odd tables on the whole road: captured, planned onto a larger file, restored; the tools agree about both."""

import json
import os
import random
import struct
from pathlib import Path

import pytest

from core.documents import encode
from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from tests.flow.disks import MIB, blank, need, run
from tests.flow.test_tables import SOURCES, in_sfdisks_words, read, said_by_sgdisk

SIZE, LARGER = 20 * MIB, 64 * MIB


@pytest.fixture(autouse=True)
def tools() -> None:
    need("sfdisk", "fdisk", "sgdisk", "parted")


def restored(source: Path, tmp_path: Path) -> Path:
    """The source on a larger file that was full of noise."""
    runner, repo = SystemRunner(), str(tmp_path / "repo")
    capture_disks([source], repo, name="", runner=runner, sink=ignore)
    target = blank(tmp_path / "target", LARGER)
    plan = plan_restore(repo, "latest", [target], RestoreChoices(), runner)
    run_plan(plan, plan.digest, runner, ignore)
    return target


def made(kind: str, path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(SIZE)
    SOURCES[kind](path)
    return path


@pytest.mark.parametrize("kind", ["hybrid", "entries behind a boot area", "1024 entries", "chain out of order"])
def test_an_odd_table_arrives_on_a_larger_disk(kind: str, tmp_path: Path) -> None:
    source = made(kind, tmp_path / "source")
    boot_area = random.Random(4).randbytes(1024)
    with source.open("r+b") as file:
        file.seek(1024 if kind == "entries behind a boot area" else 0)
        file.write(boot_area if kind == "entries behind a boot area" else boot_area[:440])
    target = restored(source, tmp_path)
    one, other = in_sfdisks_words(source), in_sfdisks_words(target)
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    if "lastlba" in one["partitiontable"]:
        # The only difference: the end of the disk lies elsewhere, as far from the last usable LBA as before.
        one["partitiontable"]["lastlba"] += (LARGER - SIZE) // 512
        assert "No problems found" in said_by_sgdisk("-v", target)
    assert one == other
    with source.open("rb") as old, target.open("rb") as new:
        # Boot code, and for the hybrid its four entries: its protective one ends at the first partition. Others reach
        # to the end of the disk.
        kept = 512 if kind in ("hybrid", "chain out of order") else 440
        assert old.read(512)[:kept] == new.read(512)[:kept]
        if kind == "entries behind a boot area":
            new.seek(1024)
            assert new.read(1024) == boot_area


def test_a_table_saved_by_its_backup_is_whole_on_both_ends(tmp_path: Path) -> None:
    source = made("numbers with gaps, out of order", tmp_path / "source")
    before = read(source)
    with source.open("r+b") as file:
        file.seek(1024)
        file.write(bytes(16384))
    target = restored(source, tmp_path)
    assert "No problems found" in said_by_sgdisk("-v", target)
    assert read(target).partitions == before.partitions


def test_4096_byte_sectors_come_back_to_a_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(SIZE)
    (tmp_path / "script").write_text(
        "label: gpt\ntable-length: 300\nstart=256,size=512,name=one\n9: start=1024,size=9,attrs=GUID:60\n"
    )
    run("fdisk", "-b", "4096", source, stdin=f"I\n{tmp_path / 'script'}\nw\n")
    content = random.Random(6).randbytes(2 * MIB)
    with source.open("r+b") as file:
        file.seek(MIB)
        file.write(content)
    target = restored(source, tmp_path)
    dumps = []
    for path in (source, target):
        run("fdisk", "-b", "4096", path, stdin=f"O\n{path}.dump\nq\n")
        lines = Path(f"{path}.dump").read_text().replace(str(path), "disk").splitlines()
        dumps.append([line for line in lines if not line.startswith("last-lba")])
    assert dumps[0] == dumps[1]
    assert "table-length: 300" in dumps[0]
    with target.open("rb") as file:
        file.seek(MIB)
        assert file.read(2 * MIB) == content


def test_the_plan_says_what_the_table_will_be(tmp_path: Path) -> None:
    """parted marks the protective entry of such a disk active; it reaches to the end of the disk."""
    source = made("parted's gpt with pmbr_boot", tmp_path / "source")
    runner, repo = SystemRunner(), str(tmp_path / "repo")
    capture_disks([source], repo, name="", runner=runner, sink=ignore)
    target = blank(tmp_path / "target", LARGER)
    plan = plan_restore(repo, "latest", [target], RestoreChoices(), runner)
    table = next(step["table"] for step in json.loads(encode(plan))["steps"] if step["do"] == "create-table")
    old, new = source.read_bytes()[446:462], bytes.fromhex(table["mbr"])[6:22]
    assert old[0] == 0x80
    assert new[:12] == old[:12]
    assert (old[12:], new[12:]) == tuple((size // 512 - 1).to_bytes(4, "little") for size in (SIZE, LARGER))
    assert table["last_usable_lba"] == LARGER // 512 - 34


def test_a_disk_with_two_extended_partitions_arrives(tmp_path: Path) -> None:
    """No tool makes two; the kernel follows the chain of each (block/partitions/msdos.c)."""
    source = tmp_path / "source"
    source.touch()
    os.truncate(source, SIZE)
    first, second, size = 2048, 20480, 16384
    # status, place, kind, place, start, sectors: 16 bytes an entry (UEFI specification 2.10, table 5-1)
    entry = struct.Struct("<B3sB3sII")
    with source.open("r+b") as file:
        file.seek(440)
        file.write(b"\1\2\3\4")
        file.seek(446)
        for start in (first, second):
            file.write(entry.pack(0, b"\xfe\xff\xff", 0x05, b"\xfe\xff\xff", start, size))
        for record in (0, first, second):
            file.seek(record * 512 + 446)
            if record:
                file.write(entry.pack(0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", 2048, 4096))
            file.seek(record * 512 + 510)
            file.write(b"\x55\xaa")
    target = restored(source, tmp_path)
    table = read(target)
    assert [(part.number, part.start_lba) for part in table.partitions] == [
        (1, 2048),
        (2, 20480),
        (5, 4096),
        (6, 22528),
    ]
