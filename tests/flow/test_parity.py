"""Parity on real files: captured with the packs, repaired after damage, safe when the power is cut at any write."""

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import DamagedError, DeviceError, RefusedError
from core.events import ignore
from images.capture import capture
from images.model.extents import Extent
from images.model.layout import DiskIdentity
from images.sources import open_source
from images.store.backend import LocalBackend, NewFile
from images.store.connect import connect
from images.store.create import create_repository
from images.store.document import read_document
from images.store.http import HttpBackend
from images.store.index_tables import IndexTables
from images.store.parity import ParityState, examine, parity_name, protect, read_repaired, repair
from images.store.parity_head import Parity
from images.store.parity_judge import keep_sound_records, promises_of
from images.store.records import PACK_HEADER_SIZE, encode_pack_header
from images.store.repository import Repository, pack_name
from images.store.writer import writable
from images.survey import survey_disk
from tests.flow.cuts import CuttableBackend, PowerCutError
from tests.flow.disks import MIB, gpt_disk
from tests.flow.servers import serving
from tests.flow.servers_s3 import BUCKET, moto
from tests.flow.test_s3 import use

REPOSITORY, PACK = bytes(range(16)), bytes(range(100, 116))


def _capture(repository: Repository, disk: Path) -> str:
    with open_source(disk) as source:
        surveys = (survey_disk(source, "disk0", DiskIdentity()),)
        taken = capture(repository, surveys, name="n", origin="o", machine=None, tool="t", sink=ignore, threads=1)
    return taken.id


def _read_all(repository: Repository) -> int:
    """Every chunk of every recovery point, proven. Returns how many chunks there are."""
    count = 0
    for point in repository.points():
        for volume in repository.manifest(point.id).volumes:
            for slot in repository.slots(volume, "check"):
                if slot.id is not None:
                    repository.read_chunk(slot.id, "check")
                    count += 1
    return count


def _packs(folder: Path) -> list[bytes]:
    return [bytes.fromhex(path.stem) for path in sorted(folder.glob("packs/??/*.pack"))]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(content)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    """A repository with parity and one recovery point of a small disk."""
    folder = tmp_path_factory.mktemp("captured")
    backend = LocalBackend(folder / "repo")
    create_repository(backend, parity_blocks=4)
    _capture(Repository(backend), gpt_disk(folder / "disk.img", tree))
    return folder / "repo"


@pytest.fixture
def repo(captured: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(captured, tmp_path / "repo"))


def test_every_pack_is_captured_with_its_parity(repo: Path) -> None:
    backend = LocalBackend(repo)
    assert read_document(backend).parity == Parity()
    repository = Repository(backend)
    assert _packs(repo)
    for pack, size in repository.indexes().pack_sizes().items():
        condition = examine(backend, repository.id, pack, size=size)
        assert condition.sound
        assert condition.size == size
    assert _read_all(repository) > 10


def test_damaged_packs_are_repaired_and_read_again(repo: Path) -> None:
    before = _files(repo)
    repository = Repository(connect(str(repo)))
    source = random.Random(7)
    for pack in _packs(repo):
        path = repo / pack_name(pack)
        size = path.stat().st_size
        assert size > 2 * MIB
        # Two regions of 192 KiB, the third takes the end with it, the fourth is in the parity file.
        for part in (0.1, 0.5):
            _overwrite(path, int(size * part), source.randbytes(192 << 10))
        os.truncate(path, size - (150 << 10))
        _overwrite(repo / parity_name(pack), 0, bytes(192 << 10))
    with pytest.raises(DamagedError):
        _read_all(repository)
    assert repository.check_packs()
    for pack in _packs(repo):
        condition = repair(writable(repository.backend), repository.id, pack)
        assert condition.state is ParityState.DAMAGED
        assert condition.damaged
    assert _files(repo) == before
    assert not repository.check_packs()
    assert _read_all(Repository(connect(str(repo)))) > 10


def test_more_damage_than_parity_brings_back_is_named(repo: Path) -> None:
    (pack, *_) = _packs(repo)
    path = repo / pack_name(pack)
    _overwrite(path, 0, bytes(MIB + 300_000))
    before = _files(repo)
    backend = LocalBackend(repo)
    with pytest.raises(DamagedError, match=rf"{pack.hex()}\.pack cannot be repaired: bytes 0 to ") as caught:
        repair(backend, Repository(backend).id, pack)
    assert "Nothing was changed" in caught.value.hint
    assert _files(repo) == before


def test_a_sector_the_disk_refuses_to_read_is_repaired(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's answer for a lost sector is EIO for every read that touches it."""
    (pack, *_) = _packs(repo)
    before = _files(repo)
    path = repo / pack_name(pack)
    broken = os.stat(path).st_ino
    lost = 700_000
    pread = os.pread

    def failing(descriptor: int, length: int, offset: int) -> bytes:
        # The new file has another inode: its sectors are sound.
        if os.fstat(descriptor).st_ino == broken and offset <= lost < offset + length:
            raise OSError(5, "Input/output error")
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", failing)
    backend = LocalBackend(repo)
    condition = repair(backend, Repository(backend).id, pack)
    assert condition.damaged == (Extent(lost // 65536 * 65536, (lost // 65536 + 1) * 65536),)
    assert "Input/output error" in condition.problem
    assert _files(repo) == before
    assert examine(backend, Repository(backend).id, pack).sound


def test_parity_over_http(repo: Path) -> None:
    """A server's files are examined and read through their parity, and not repaired there."""
    (pack, *_) = _packs(repo)
    path = repo / pack_name(pack)
    whole = path.read_bytes()
    _overwrite(path, 100_000, bytes(150_000))
    with serving(repo) as server:
        backend = HttpBackend(server.url, pauses=())
        condition = examine(backend, Repository(backend).id, pack)
        assert condition.repairable
        assert condition.damaged == (Extent(65536, 262144),)
        solver = read_repaired(backend, Repository(backend).id, pack)
        assert solver.read(90_000, 400_000) == whole[90_000:490_000]
        with pytest.raises(RefusedError, match="read-only"):
            writable(backend)


def test_parity_in_an_object_store(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured, damaged by another client, repaired; what that client then reads is what it read before."""
    with moto() as server:
        use(server, monkeypatch)
        backend = writable(connect(server.address("parity")))
        create_repository(backend, parity_blocks=2)
        repository = Repository(backend)
        _capture(repository, gpt_disk(tmp_path / "disk.img", tree))
        ((pack, size),) = repository.indexes().pack_sizes().items()
        assert examine(backend, repository.id, pack, size=size).sound
        client = server.client()
        keys = [f"parity/{name(pack)}" for name in (pack_name, parity_name)]
        whole = [client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
        assert len(whole[0]) == size
        client.put_object(Bucket=BUCKET, Key=keys[0], Body=whole[0][: size - 100_000])
        client.put_object(Bucket=BUCKET, Key=keys[1], Body=bytes(50_000) + whole[1][50_000:])
        assert repository.check_packs()
        before = repair(backend, repository.id, pack, size=size)
        assert before.damaged
        assert before.damaged_parity
        assert [client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys] == whole
        client.delete_object(Bucket=BUCKET, Key=keys[0])
        with pytest.raises(DamagedError, match="cannot be repaired"):
            repair(backend, repository.id, pack, size=size)


def test_a_sound_record_is_not_given_up_for_what_parity_says(repo: Path) -> None:
    """Parity that was made with a flipped bit, on a machine with bad memory, meets a pack with real damage."""
    (pack, *_) = _packs(repo)
    path = repo / pack_name(pack)
    whole = path.read_bytes()
    backend = LocalBackend(repo)
    repository = Repository(backend)
    flipped, damaged = 400_000, 2_000_000
    _overwrite(path, flipped, bytes([whole[flipped] ^ 4]))
    protect(backend, repository.id, pack, Parity())
    path.write_bytes(whole)
    _overwrite(path, damaged, bytes([whole[damaged] ^ 4]))
    before = _files(repo)
    tables = IndexTables(backend, repository.id, backend.list("indexes"))
    accept = keep_sound_records(repository, promises_of(tables, pack))
    with pytest.raises(DamagedError, match="sound, and would not be after a repair"):
        repair(backend, repository.id, pack, accept=accept)
    assert _files(repo) == before
    # With the sound pack's parity the same judge lets the repair pass.
    path.write_bytes(whole)
    protect(backend, repository.id, pack, Parity())
    _overwrite(path, damaged, bytes([whole[damaged] ^ 4]))
    assert repair(
        backend, repository.id, pack, accept=keep_sound_records(repository, promises_of(tables, pack))
    ).damaged
    assert path.read_bytes() == whole


def _protected(folder: Path) -> bytes:
    """A pack of 41 blocks in 6 groups, with parity against 2 regions. Returns nothing but its bytes."""
    backend = LocalBackend(folder)
    content = encode_pack_header(REPOSITORY, PACK) + random.Random(1).randbytes(40 * 4096 + 99)
    backend.write(pack_name(PACK), content)
    protect(backend, REPOSITORY, PACK, Parity(data_blocks=8, parity_blocks=2, block_size=4096))
    return content


def test_power_cut_at_every_write_of_a_repair(tmp_path: Path) -> None:
    """After each, pack and parity are the damaged files or the sound ones, and repairing again finishes."""
    content = _protected(tmp_path / "whole")
    sound = _files(tmp_path / "whole")
    pack, parity = (Path(name(PACK)) for name in (pack_name, parity_name))
    cuts = 0
    finished = False
    while not finished:
        cuts += 1
        folder = tmp_path / f"repo{cuts}"
        shutil.copytree(tmp_path / "whole", folder)
        _overwrite(folder / pack, 5000, bytes(20_000))
        _overwrite(folder / parity, 1000, bytes(16_000))
        damaged = _files(folder)
        assert all(damaged[name] != sound[name] for name in sound)
        try:
            repair(CuttableBackend(folder, cuts), REPOSITORY, PACK)
            finished = True
        except PowerCutError:
            pass
        left = _files(folder)
        assert set(left) - {f"{name}.partial" for name in sound} == set(sound)
        for name in sound:
            assert left[name] in (damaged[name], sound[name]), (cuts, name)
        # Whoever repairs first the pack: parity is never the sound one while the pack is not.
        assert left[pack.name] == content or left[parity.name] == damaged[parity.name]
        repair(LocalBackend(folder), REPOSITORY, PACK)
        assert _files(folder) == sound
    assert cuts > 40


def test_power_cut_at_every_write_of_a_capture_with_parity(tmp_path: Path, tree: Path, captured: Path) -> None:
    """An index never names a pack whose parity is not there, and the same capture run again completes."""
    disk = gpt_disk(tmp_path / "disk.img", tree)
    _overwrite(disk, 67584 * 512 + 50 * MIB, random.Random(3).randbytes(4096))
    probe = CuttableBackend(Path(shutil.copytree(captured, tmp_path / "probe")), 1 << 30)
    _capture(Repository(probe), disk)
    assert [name.rpartition(".")[2] for name in probe.named] == ["pack", "parity"]
    for cut in range(1, probe.changes + 1):
        folder = Path(shutil.copytree(captured, tmp_path / f"repo{cut}"))
        with pytest.MonkeyPatch.context() as patch:
            # The power is gone: nothing tidies up after it.
            patch.setattr("images.store.writer.RepositoryWriter.checkpoint", _gone)
            patch.setattr("images.store.writer.RepositoryWriter.abandon", _gone)
            with contextlib.suppress(PowerCutError):
                _capture(Repository(CuttableBackend(folder, cut)), disk)
        _every_indexed_pack_is_sound(folder)
        _capture(Repository(LocalBackend(folder)), disk)
        _every_indexed_pack_is_sound(folder)
        assert _read_all(Repository(LocalBackend(folder))) > 20


def _every_indexed_pack_is_sound(folder: Path) -> None:
    repository = Repository(LocalBackend(folder))
    sizes = repository.indexes().pack_sizes()
    assert sizes
    for pack, size in sizes.items():
        assert examine(repository.backend, repository.id, pack, size=size).sound


def _gone(self: object) -> None:
    raise PowerCutError


def test_no_room_for_parity_stops_the_capture_and_keeps_what_is_stored(tmp_path: Path, tree: Path) -> None:
    class NoRoom(LocalBackend):
        @contextlib.contextmanager
        def create(self, name: str) -> Iterator[NewFile]:
            if name.endswith(".parity"):
                raise DeviceError(f"{name} cannot be written: No space left on device.")
            with super().create(name) as file:
                yield file

    disk = gpt_disk(tmp_path / "disk.img", tree)
    folder = tmp_path / "repo"
    create_repository(LocalBackend(folder), parity_blocks=2)
    with pytest.raises(DeviceError, match=r"parity cannot be written: No space left"):
        _capture(Repository(NoRoom(folder)), disk)
    (pack,) = _packs(folder)
    size = (folder / pack_name(pack)).stat().st_size
    assert size > PACK_HEADER_SIZE
    repository = Repository(LocalBackend(folder))
    assert repository.points() == ()
    assert repository.indexes().pack_sizes() == {pack: size}
    assert examine(repository.backend, repository.id, pack).state is ParityState.MISSING
    # The next try stores nothing twice; the pack gets its parity from whoever checks.
    _capture(Repository(LocalBackend(folder)), disk)
    assert sum(path.stat().st_size for path in folder.rglob("*.pack")) < size + MIB
    parity = repository.document.parity
    assert parity is not None
    protect(LocalBackend(folder), repository.id, pack, parity)
    assert examine(repository.backend, repository.id, pack).sound
    assert _read_all(Repository(LocalBackend(folder))) > 10
