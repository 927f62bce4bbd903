"""Check finds damage with its address and what it hits, and repairs what can be repaired.

Places in packs and indexes are read here as docs/image-format.md has them (tests/flow/sealed.py), not by liferaft.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from core.errors import UsageError
from core.events import Event, ignore
from images.store.access import Access
from images.store.backend import LocalBackend
from images.store.check import Depth, check
from images.store.findings import CheckResult, DamageKind
from images.store.locks import LockedError, LockKind, locked
from rescue.jobs.check import check_repository
from tests.flow.sealed import flip, records
from tests.flow.servers import serving
from tests.flow.small import CHUNK, START, access, make, noise_disk, opened, restored, take

DATA = Depth(data=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recovery points that share most chunks, a third that shares none; in ``disks`` what they must restore to."""
    base = tmp_path_factory.mktemp("sound")
    folder = make(base / "repo")
    for name, seed, changed in (("one", 1, ()), ("two", 1, (3, 4)), ("other", 7, ())):
        take(folder, noise_disk(base / f"{name}.img", seed=seed, changed=changed, mebibytes=2), name)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "repo")


def run(folder: Path, depth: Depth = DATA, *, repair: bool = False) -> CheckResult:
    return check_repository(str(folder), depth, repair=repair, sink=ignore)


def chunk_record(folder: Path, sound: Path, number: int, name: str = "one"):  # type: ignore[no-untyped-def]
    """The record that holds chunk ``number`` of the partition, found by its content: noise is stored as it is."""
    disk = (sound.parent / f"{name}.img").read_bytes()
    plain = disk[START + number * CHUNK : START + (number + 1) * CHUNK]
    for record in records(folder):
        data = record.pack.read_bytes()[record.offset + 80 : record.offset + 80 + record.payload_length]
        if data == plain:
            return record
    raise AssertionError("not stored")


def test_a_sound_repository(folder: Path) -> None:
    result = run(folder)
    assert (result.points, result.damage_count, result.hits, result.repaired) == (3, 0, (), ())
    assert result.proven_records == result.records == len(list(records(folder)))
    assert result.garbage.records == result.garbage.packs == result.garbage.leftovers == 0
    assert not list((folder / "locks").iterdir())
    # 16 chunks of noise and one of the head, twice 2 of them changed; one page each.
    assert result.stored == sum(path.stat().st_size for path in folder.rglob("*.pack"))


def test_a_flipped_bit_has_an_address_and_what_it_hits(folder: Path, sound: Path) -> None:
    record = chunk_record(folder, sound, 6)
    flip(record.pack, record.offset + 80 + 1000)
    assert run(folder, Depth()).damage_count == 0
    result = run(folder)
    (damage,) = result.damages
    assert damage.kind is DamageKind.RECORD
    assert damage.file == record.pack.relative_to(folder).as_posix()
    assert (damage.offset, damage.record) == (record.offset, record.id.hex())
    assert {hit.name for hit in result.hits} == {"one", "two"}
    for hit in result.hits:
        assert (hit.volume, hit.offset, hit.size) == ("disk0-part1", 6 * CHUNK, CHUNK)
        assert (hit.first_lba, hit.sector_count) == ((START + 6 * CHUNK) // 512, CHUNK // 512)
    assert len(result.affected) == 2
    assert not result.harmless


@pytest.mark.parametrize("place", [0, 4, 12, 16, 76])
def test_every_field_of_a_record_header_counts(folder: Path, sound: Path, place: int) -> None:
    record = chunk_record(folder, sound, 6)
    flip(record.pack, record.offset + place)
    result = run(folder)
    assert [(damage.kind, damage.offset) for damage in result.damages] == [(DamageKind.RECORD, record.offset)]
    assert {hit.name for hit in result.hits} == {"one", "two"}


def test_a_damaged_page_takes_all_below_it(folder: Path) -> None:
    pages = [record for record in records(folder) if record.kind == 1]
    flip(pages[0].pack, pages[0].offset + 100)
    result = run(folder, Depth())
    assert DamageKind.PAGE in {damage.kind for damage in result.damages}
    (hit,) = {(hit.volume, hit.offset, hit.size) for hit in result.hits}
    assert hit in {("disk0-head", 0, START), ("disk0-part1", 0, 1 << 20)}


def test_a_truncated_pack(folder: Path, sound: Path) -> None:
    record = chunk_record(folder, sound, 14)
    os.truncate(record.pack, record.offset + 200)
    result = run(folder, Depth())
    assert [damage.kind for damage in result.damages if damage.kind is not DamageKind.PAGE] == [DamageKind.PACK]
    assert f"{record.offset + 200} bytes" in result.damages[0].message
    assert not result.harmless


def test_a_missing_pack(folder: Path) -> None:
    pack = max(folder.rglob("*.pack"), key=lambda path: path.stat().st_size)
    pack.unlink()
    result = run(folder)
    assert any(damage.kind is DamageKind.PACK and "missing" in damage.message for damage in result.damages)
    assert result.affected


def test_a_damaged_index_and_its_repair(folder: Path, sound: Path) -> None:
    for index in list((folder / "indexes").iterdir()):
        flip(index, -60)
    result = run(folder, Depth())
    assert {damage.kind for damage in result.damages} >= {DamageKind.INDEX, DamageKind.PAGE}
    repaired = run(folder, Depth(), repair=True)
    assert repaired.damage_count == 0, repaired.damages
    assert repaired.repaired
    everything_restores(folder, sound)


def test_a_missing_index_and_its_repair(folder: Path, sound: Path) -> None:
    for index in list((folder / "indexes").iterdir()):
        index.unlink()
    assert not run(folder, Depth()).harmless
    assert run(folder, Depth(), repair=True).damage_count == 0
    everything_restores(folder, sound)


def test_a_damaged_manifest_is_named_and_the_others_are_not_hit(folder: Path) -> None:
    manifest = sorted((folder / "manifests").iterdir())[0]
    flip(manifest, 40)
    result = run(folder)
    (damage, *others) = result.damages
    assert (damage.kind, damage.file) == (DamageKind.MANIFEST, f"manifests/{manifest.name}")
    # The catalogue still lists it.
    assert {found.kind for found in others} <= {DamageKind.CATALOGUE}
    assert (result.points, result.hits) == (2, ())


def test_a_stale_catalogue_is_harmless_and_renewed(folder: Path) -> None:
    catalogue = json.loads((folder / "catalogue.json").read_bytes())
    catalogue["points"] = catalogue["points"][:1]
    (folder / "catalogue.json").write_text(json.dumps(catalogue))
    result = run(folder, Depth())
    assert [damage.kind for damage in result.damages] == [DamageKind.CATALOGUE]
    assert result.harmless
    assert run(folder, Depth(), repair=True).damage_count == 0
    assert len(json.loads((folder / "catalogue.json").read_bytes())["points"]) == 3


def everything_restores(folder: Path, sound: Path) -> None:
    repository = opened(folder)
    assert len(repository.points()) == 3
    for point in repository.points():
        assert restored(repository, point.id) == (sound.parent / f"{point.name}.img").read_bytes()


def test_a_catalogue_that_tells_another_story_is_found(folder: Path) -> None:
    """Over HTTP it is the list, and says which recovery point is the latest."""
    catalogue = folder / "catalogue.json"
    told = json.loads(catalogue.read_bytes())
    told["points"][0]["created"] = "2099" + told["points"][0]["created"][4:]
    catalogue.write_text(json.dumps(told))
    result = run(folder, Depth(), repair=False)
    assert [damage.kind for damage in result.damages] == [DamageKind.CATALOGUE]
    assert result.harmless
    run(folder, Depth(), repair=True)
    assert run(folder, Depth(), repair=False).damages == ()


def test_what_cannot_be_repaired_is_stored_again_by_the_next_capture(folder: Path, sound: Path) -> None:
    record = chunk_record(folder, sound, 6)
    flip(record.pack, record.offset + 80 + 1000)
    # Without repair the next capture counts on what the index promises …
    take(folder, sound.parent / "one.img", "again")
    assert not run(folder).harmless
    result = run(folder, repair=True)
    assert not result.harmless
    assert {hit.name for hit in result.hits} == {"one", "two", "again"}
    # … the address at which it was found is not forgotten, …
    assert [(damage.file[:5], damage.offset) for damage in result.damages] == [("packs", record.offset)]
    # … and afterwards the capture heals the recovery points that shared it.
    take(folder, sound.parent / "one.img", "healed")
    assert run(folder).damage_count == 0
    assert restored(opened(folder), opened(folder).resolve("two")) == (sound.parent / "two.img").read_bytes()


def test_what_lies_before_the_cut_of_a_truncated_pack_is_kept(folder: Path, sound: Path) -> None:
    record = chunk_record(folder, sound, 14)
    before = [found for found in records(folder) if found.pack == record.pack and found.offset < record.offset]
    os.truncate(record.pack, record.offset + 200)
    result = run(folder, Depth(), repair=True)
    assert not result.harmless
    assert opened(folder).indexes().pack_sizes()[bytes.fromhex(record.pack.stem)] == record.offset + 200
    repository = opened(folder)
    for found in before:
        repository.read_chunk(found.id, "kept")
    take(folder, sound.parent / "one.img", "healed")
    assert run(folder).damage_count == 0


def test_a_second_copy_serves(folder: Path, sound: Path) -> None:
    """The same chunk in two packs (two machines stored it at once): one copy rots, repair points at the other."""
    twin = make_twin(folder, sound)
    record = chunk_record(folder, sound, 6)
    flip(record.pack, record.offset + 80 + 1000)
    result = run(twin)
    # The catalogue does not know the new index, either.
    assert {damage.kind for damage in result.damages} == {DamageKind.RECORD, DamageKind.CATALOGUE}
    assert result.hits == ()
    assert run(twin, repair=True).damage_count == 0
    everything_restores(twin, sound)


def make_twin(folder: Path, sound: Path) -> Path:
    """Copy every pack under another id, with an index that names the copies (docs/image-format.md §4, §6)."""
    for index in list((folder / "indexes").iterdir()):
        data = bytearray(index.read_bytes()[:-32])
        (packs,) = struct.unpack_from("<I", data, 24)
        for number in range(packs):
            at = 64 + 24 * number
            old, new = bytes(data[at : at + 16]), os.urandom(16)
            content = bytearray((folder / "packs" / old.hex()[:2] / f"{old.hex()}.pack").read_bytes())
            content[24:40] = new
            copy = folder / "packs" / new.hex()[:2] / f"{new.hex()}.pack"
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(content)
            data[at : at + 16] = new
        (folder / "indexes" / f"{os.urandom(16).hex()}.index").write_bytes(bytes(data) + blake3(bytes(data)).digest())
    return folder


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "sealed"])
def test_parity_brings_everything_back(tmp_path: Path, encrypted: bool) -> None:
    folder = make(tmp_path / "repo", encrypted=encrypted, parity=2)
    disk = noise_disk(tmp_path / "disk.img", mebibytes=2)
    point = take(folder, disk, encrypted=encrypted)
    (pack,) = folder.rglob("*.pack")
    content = pack.read_bytes()
    flip(pack, 300_000)
    flip(pack, 30)
    given = access(encrypted=encrypted)
    found = check_repository(str(folder), DATA, repair=False, sink=ignore, access=given)
    assert not found.harmless
    repaired = check_repository(str(folder), DATA, repair=True, sink=ignore, access=given)
    assert repaired.damage_count == 0
    assert pack.read_bytes() == content
    assert restored(opened(folder, encrypted=encrypted), point) == disk.read_bytes()
    # A parity file that is gone is made anew from a pack that was proven.
    (parity,) = folder.rglob("*.parity")
    parity.unlink()
    assert check_repository(str(folder), DATA, repair=False, sink=ignore, access=given).unprotected == 1
    result = check_repository(str(folder), DATA, repair=True, sink=ignore, access=given)
    assert (result.unprotected, result.damage_count) == (0, 0)
    assert parity.exists()


def test_parity_that_rots_is_found_by_data_and_made_anew(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo", parity=2)
    take(folder, noise_disk(tmp_path / "disk.img", mebibytes=2))
    (parity,) = folder.rglob("*.parity")
    content = parity.read_bytes()
    flip(parity, len(content) // 2)
    result = run(folder)
    assert ([damage.kind for damage in result.damages], result.harmless) == ([DamageKind.PARITY], True)
    assert run(folder, repair=True).damage_count == 0
    assert parity.read_bytes() == content


def test_a_sample(folder: Path) -> None:
    total = len(list(folder.rglob("*.pack")))
    result = run(folder, Depth(data=True, percent=1))
    assert 0 < result.proven_records < result.records or total == 1


def test_over_http_without_listing(folder: Path, sound: Path) -> None:
    record = chunk_record(folder, sound, 6)
    with serving(folder) as server:
        result = check_repository(server.url, DATA, repair=False, sink=ignore)
        assert (result.points, result.damage_count) == (3, 0)
        assert any("lock" in note for note in result.notes)
        flip(record.pack, record.offset + 80 + 1000)
        assert len(check_repository(server.url, DATA, repair=False, sink=ignore).affected) == 2


def test_a_folder_that_cannot_be_written_is_checked_without_a_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("images.store.backend.write_atomically", refuse)
    heard: list[Event] = []
    result = check_repository(str(folder), Depth(), repair=False, sink=heard.append)
    assert result.damage_count == 0
    assert any("without a lock" in note and "Permission denied" in note for note in result.notes)


def test_somebody_prunes(folder: Path) -> None:
    with locked(LocalBackend(folder), LockKind.EXCLUSIVE, "prune"), pytest.raises(LockedError):
        run(folder, Depth())


def test_somebody_captures(folder: Path) -> None:
    """Looking may go on beside it, repairing may not."""
    with locked(LocalBackend(folder), LockKind.SHARED, "capture"):
        assert run(folder, Depth()).damage_count == 0
        with pytest.raises(LockedError):
            run(folder, Depth(), repair=True)


def test_repair_sees_everything(folder: Path) -> None:
    trusting = Access(trusted=(b"k" * 32,))
    with pytest.raises(UsageError):
        check_repository(str(folder), Depth(), repair=True, sink=ignore, access=trusting)


def test_a_damaged_key_slot(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo", encrypted=True)
    (folder / "keys" / f"{'0' * 32}.json").write_bytes(b"{}")
    result = check(opened(folder, encrypted=True), Depth(), sink=ignore)
    assert DamageKind.KEY in {damage.kind for damage in result.damages}
    assert result.harmless


def test_the_command(folder: Path, sound: Path) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from rescue.cli.main import main; main()", "check", "--repo", str(folder)]
        return subprocess.run([*command, *words], capture_output=True, text=True, cwd=Path(__file__).parents[2])

    assert (call("--data").returncode, call("--json").returncode) == (0, 0)
    record = chunk_record(folder, sound, 6)
    flip(record.pack, record.offset + 90)
    done = call("--data")
    assert done.returncode == 5
    for word in (record.pack.name, f"offset {record.offset}", "disk0-part1", "LBA", "one", "two"):
        assert word in done.stdout
    assert call("--data", "--repair").returncode == 5
    take(folder, sound.parent / "one.img", "healed")
    assert call("--data").returncode == 0
    (folder / "catalogue.json").unlink()
    assert call().returncode == 4
    assert call("--repair").returncode == 4
    report = call("--json")
    assert report.returncode == 0
    assert json.loads(report.stdout)["damage_count"] == 0
