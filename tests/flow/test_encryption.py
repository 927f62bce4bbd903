"""Encrypted repositories: the round trip, what can be seen from outside, and everything that is refused."""

import base64
import json
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from blake3 import blake3

from core.errors import DamagedError, ExitCode, RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.store.access import Access
from images.store.connect import open_repository
from images.store.passphrase import Passphrase, PassphraseNeededError, WrongPassphraseError
from rescue.jobs.access import access_from
from rescue.jobs.capture import capture_disks
from rescue.jobs.keys import init_repository
from rescue.jobs.points import list_points, list_with_damage, show_point
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.report import Report
from tests.flow.disks import MIB, TOOLS, ext_files, need, partition_file, table_of
from tests.flow.sealed import DISK, GUID, NAMES, NOISE, PART, TEXT, WORDS, Record, content, flip, records, secret_disk
from tests.flow.servers import serving

ACCESS = access_from(Passphrase(WORDS))
WRONG = access_from(Passphrase("correct horse battery stable"))


def take(disk: Path, repository: Path, access: Access | None = ACCESS) -> str:
    runner = SystemRunner()
    taken = capture_disks([disk], str(repository), name="the monday point", runner=runner, sink=ignore, access=access)
    return taken.id


def restore(repository: str, target: Path, access: Access | None = ACCESS) -> Report:
    with target.open("wb") as stream:
        stream.truncate(DISK)
    choices = RestoreChoices(boot=BootChoice.NO)
    plan = plan_restore(repository, "latest", [target], choices, SystemRunner(), access)
    return run_plan(plan, plan.digest, SystemRunner(), ignore, access=access)


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(*TOOLS, "tune2fs")
    return secret_disk(tmp_path_factory.mktemp("secret"))


@pytest.fixture(scope="module")
def made(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encrypted repositories and a plain one, each with the same disk: ``one``, ``two``, ``plain``."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("one", "two"):
        assert init_repository(str(folder / name), passphrase=Passphrase(WORDS)).encrypted
        take(disk, folder / name)
    take(disk, folder / "plain", None)
    return folder


@pytest.fixture
def repo(made: Path, tmp_path: Path) -> Path:
    """A copy of ``one`` that may be spoiled."""
    return Path(shutil.copytree(made / "one", tmp_path / "repo"))


def test_the_restored_disk_is_the_captured_one(made: Path, disk: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.img"
    assert restore(str(made / "one"), target).verified
    assert table_of(target) == table_of(disk)
    expected = ext_files(partition_file(disk, MIB, PART))
    assert expected["noise.bin"] == NOISE
    assert ext_files(partition_file(target, MIB, PART)) == expected


def test_over_http_without_listing(made: Path, disk: Path, tmp_path: Path) -> None:
    with serving(made / "one") as server:
        assert [point.name for point in list_points(server.url, ACCESS)] == ["the monday point"]
        assert restore(server.url, tmp_path / "target.img").verified
        with pytest.raises(WrongPassphraseError):
            list_points(server.url, WRONG)
    assert ext_files(partition_file(tmp_path / "target.img", MIB, PART))["noise.bin"] == NOISE


def test_nothing_plain_lies_in_it(made: Path) -> None:
    needles = {
        "text": TEXT,
        "GUID": GUID.encode(),
        **{name.decode(): name for name in NAMES},
        **{f"UTF-16 {name.decode()}": name.decode().encode("utf-16-le") for name in NAMES},
        **{f"noise at {at}": NOISE[at : at + 32] for at in range(0, len(NOISE) - 32, 4096)},
        "volume": b"disk0-part1",
    }
    plain, sealed = b"".join(content(made / "plain").values()), b"".join(content(made / "one").values())
    seen = {name for name, needle in needles.items() if needle in plain}
    # So that the search cannot fail to find: noise is stored as it is, and manifests are text.
    assert {"GUID", "HIDDENVOL", "quiet partition", "secretdisk", "the monday point", "volume"} <= seen
    assert sum(name.startswith("noise") for name in seen) > 500
    assert {name for name, needle in needles.items() if needle in sealed} == set()


def test_ids_tell_nothing(made: Path, disk: Path) -> None:
    ids = {name: {record.id for record in records(made / name)} for name in ("one", "two", "plain")}
    assert len(ids["one"]) == len(ids["two"]) == len(ids["plain"]) > 4
    assert not ids["one"] & ids["two"] and not ids["one"] & ids["plain"]
    # Chunks of the noise file are fully allocated: their ids in a plain repository are the BLAKE3 of the disk's bytes.
    part = disk.read_bytes()[MIB : MIB + PART]
    guesses = {blake3(part[at : at + MIB]).digest() for at in range(0, PART, MIB)}
    assert guesses & ids["plain"]
    sealed = b"".join(content(made / "one").values())
    for known in guesses | ids["plain"]:
        assert known not in sealed and known.hex().encode() not in sealed
    assert {record.cipher for record in records(made / "one")} == {2}


def test_two_captures_of_one_disk_share_everything(repo: Path, disk: Path) -> None:
    before = {path.name for path in repo.glob("packs/*/*")}
    take(disk, repo)
    assert {path.name for path in repo.glob("packs/*/*")} == before
    assert len(list_points(str(repo), ACCESS)) == 2


def test_a_wrong_passphrase_is_refused_and_tells_nothing(made: Path) -> None:
    with pytest.raises(WrongPassphraseError) as caught:
        list_points(str(made / "one"), WRONG)
    assert caught.value.code == ExitCode.REFUSED == 3
    said = f"{caught.value.message} {caught.value.hint}"
    assert not any(name.decode() in said for name in NAMES) and "stable" not in said


def test_nobody_to_ask_and_nothing_to_unlock(made: Path) -> None:
    with pytest.raises(PassphraseNeededError) as caught:
        list_points(str(made / "one"))
    assert caught.value.code == 3 and "--passphrase-file" in caught.value.hint
    with pytest.raises(RefusedError, match="is not encrypted, and a passphrase was given"):
        list_points(str(made / "plain"), ACCESS)


def test_a_passphrase_never_makes_a_plain_repository(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="There is no repository"):
        take(disk, tmp_path / "new")
    assert not (tmp_path / "new").exists()


#: What is altered -> the file, and which byte of it (a record: from the payload's beginning).
PACK_PLACES = {"first": 0, "nonce": -32, "id": -64, "plain length": -68, "kind": -76, "codec": -75, "cipher": -74}


@pytest.mark.parametrize("place", PACK_PLACES)
def test_an_altered_record_is_refused_and_named(repo: Path, place: str) -> None:
    record = next(record for record in records(repo) if record.kind == 0 and record.payload_length > 500_000)
    flip(record.pack, record.offset + 80 + PACK_PLACES[place])
    _renew_crc(record.pack, record.offset)
    _refused_and_named(repo, record)


def test_a_restore_stops_at_an_altered_record(repo: Path, tmp_path: Path) -> None:
    record = next(record for record in records(repo) if record.kind == 0 and record.payload_length > 500_000)
    flip(record.pack, record.offset + 80 + record.payload_length - 1)
    with pytest.raises(DamagedError, match=rf"{record.pack.name}, offset {record.offset}.*altered"):
        restore(str(repo), tmp_path / "target.img")


def test_a_record_that_is_not_sealed_is_refused(repo: Path) -> None:
    """Planted by somebody without the key: right length, right checksum, cipher 0, no nonce."""
    record = next(record for record in records(repo) if record.kind == 0 and record.payload_length > 500_000)
    data = bytearray(record.pack.read_bytes())
    at = record.offset
    data[at + 5 : at + 7] = b"\0\0"
    data[at + 12 : at + 16] = struct.pack("<I", record.payload_length)
    data[at + 48 : at + 72] = bytes(24)
    data[at + 80 : at + 80 + record.payload_length] = bytes(record.payload_length)
    record.pack.write_bytes(data)
    _renew_crc(record.pack, at)
    _refused_and_named(repo, record)


@pytest.mark.parametrize("offset", [20, 200, -20])
def test_an_altered_manifest_is_refused_and_named(repo: Path, offset: int) -> None:
    (manifest,) = repo.glob("manifests/*.json")
    flip(manifest, offset)
    points, problems = list_with_damage(str(repo), ACCESS)
    assert points == () and manifest.stem[:12] in problems[0]
    # Under the name that its bytes now have, only the seal can tell.
    renamed = manifest.with_name(f"{blake3(manifest.read_bytes()).hexdigest()}.json")
    manifest.rename(renamed)
    points, problems = list_with_damage(str(repo), ACCESS)
    assert points == () and renamed.stem[:12] in problems[0]


def test_a_manifest_that_is_not_sealed_is_refused(repo: Path, made: Path) -> None:
    (planted,) = (made / "plain").glob("manifests/*.json")
    shutil.copy(planted, repo / "manifests")
    points, problems = list_with_damage(str(repo), ACCESS)
    assert len(points) == 1 and points[0].id != planted.stem
    assert len(problems) == 1 and planted.stem in problems[0]
    with pytest.raises(DamagedError, match=planted.stem[:12]):
        show_point(str(repo), planted.stem, ACCESS)


def test_a_manifest_of_another_repository_is_refused(repo: Path, made: Path) -> None:
    (foreign,) = (made / "two").glob("manifests/*.json")
    shutil.copy(foreign, repo / "manifests")
    points, problems = list_with_damage(str(repo), ACCESS)
    assert [point.id for point in points] != [foreign.stem] and foreign.stem in problems[0]


@pytest.mark.parametrize("field", ["salt", "nonce", "sealed", "label", "created", "iterations", "lanes", "memory"])
def test_an_altered_key_slot_opens_nothing(repo: Path, field: str) -> None:
    (path,) = repo.glob("keys/*.json")
    slot = json.loads(path.read_bytes())
    old = slot[field]
    slot[field] = old + 4 if isinstance(old, int) else ("0" if old[0] != "0" else "1") + old[1:]
    path.write_text(json.dumps(slot))
    with pytest.raises(WrongPassphraseError, match="opens none of the key slots"):
        list_points(str(repo), ACCESS)


def test_a_key_slot_that_is_no_slot_is_damage_and_named(repo: Path) -> None:
    (path,) = repo.glob("keys/*.json")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DamagedError, match=path.name):
        list_points(str(repo), ACCESS)


def test_a_key_slot_of_another_repository_opens_nothing(repo: Path, made: Path) -> None:
    """Same passphrase, another master key: it must not be taken for this repository's."""
    (path,) = repo.glob("keys/*.json")
    path.unlink()
    shutil.copytree(made / "two" / "keys", repo / "keys", dirs_exist_ok=True)
    with pytest.raises(WrongPassphraseError):
        list_points(str(repo), ACCESS)


def test_an_altered_catalogue_is_refused_where_it_is_the_list(repo: Path) -> None:
    path = repo / "catalogue.json"
    catalogue = json.loads(path.read_bytes())
    sealed = bytearray(base64.b64decode(catalogue["sealed"]["sealed"]))
    sealed[7] ^= 1
    catalogue["sealed"]["sealed"] = base64.b64encode(sealed).decode()
    path.write_text(json.dumps(catalogue))
    with serving(repo) as server, pytest.raises(DamagedError, match=r"catalogue\.json.*altered"):
        list_points(server.url, ACCESS)
    assert len(list_points(str(repo), ACCESS)) == 1, "whoever can list folders does without"


def test_an_open_catalogue_is_refused(repo: Path, made: Path) -> None:
    keys = json.loads((repo / "catalogue.json").read_bytes())["keys"]
    plain = json.loads((made / "plain" / "catalogue.json").read_bytes())
    (repo / "catalogue.json").write_text(json.dumps({**plain, "keys": keys}))
    with serving(repo) as server, pytest.raises(DamagedError, match=r"catalogue\.json.*not sealed"):
        list_points(server.url, ACCESS)


def test_a_document_that_denies_the_encryption_gets_nothing_by_it(repo: Path, disk: Path) -> None:
    document = json.loads((repo / "liferaft.json").read_bytes())
    (repo / "liferaft.json").write_text(json.dumps({**document, "encryption": None}))
    before = content(repo)
    with pytest.raises(RefusedError, match="not encrypted, and a passphrase was given"):
        take(disk, repo)
    points, problems = list_with_damage(str(repo))
    assert points == () and len(problems) == 1
    assert content(repo) == before


def _renew_crc(pack: Path, offset: int) -> None:
    data = bytearray(pack.read_bytes())
    data[offset + 76 : offset + 80] = struct.pack("<I", zlib.crc32(data[offset : offset + 76]))
    pack.write_bytes(data)


def _refused_and_named(repository: Path, record: Record) -> None:
    with pytest.raises(DamagedError) as caught:
        open_repository(str(repository), ACCESS).read_chunk(record.id, "disk0")
    assert f"{record.pack.name}, offset {record.offset}" in caught.value.message
