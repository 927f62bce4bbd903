"""The second try: where a chunk comes from that was damaged where it was read first, and who may ask for it."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.errors import DamagedError
from images.store.index import Location
from images.store.indexes import IndexSet
from images.store.repository import Repository, pack_name
from images.store.second_try import SecondTry
from tests.flow.small import CHUNK, START, make, noise_disk, opened, take

WHERE = "here"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return noise_disk(tmp_path / "disk.img")


def chunk(repository: Repository, number: int) -> bytes:
    """The id of a chunk of the partition."""
    manifest = repository.manifest(repository.points()[0].id)
    volume = next(volume for volume in manifest.volumes if volume.partition)
    found = next(slot.id for slot in repository.slots(volume, WHERE) if slot.number == number)
    assert found is not None
    return found


def damage(repository: Repository, folder: Path, identifier: bytes) -> None:
    place = repository.locate(identifier)
    assert place is not None
    pack = folder / pack_name(place.pack)
    pack.chmod(0o600)
    content = bytearray(pack.read_bytes())
    content[place.offset + 90] ^= 1
    pack.write_bytes(content)


def content(disk: Path, number: int) -> bytes:
    return disk.read_bytes()[START + number * CHUNK : START + (number + 1) * CHUNK]


@pytest.mark.parametrize("encrypted", [False, True])
def test_through_parity(tmp_path: Path, disk: Path, encrypted: bool) -> None:
    folder = make(tmp_path / "repo", parity=2, encrypted=encrypted)
    take(folder, disk, encrypted=encrypted)
    repository = opened(folder, encrypted=encrypted)
    wanted = chunk(repository, 7)
    damage(repository, folder, wanted)
    with pytest.raises(DamagedError):
        repository.read_chunk(wanted, WHERE)
    second = repository.otherwise = SecondTry(repository)
    assert repository.read_chunk(wanted, WHERE) == content(disk, 7)
    assert second.count == 1
    assert ["through its parity" in line for line in second.warnings] == [True]


def test_nothing_helps_without_parity_and_the_first_damage_is_told(tmp_path: Path, disk: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, disk)
    repository = opened(folder)
    wanted = chunk(repository, 7)
    damage(repository, folder, wanted)
    with pytest.raises(DamagedError) as first:
        repository.read_chunk(wanted, WHERE)
    second = repository.otherwise = SecondTry(repository)
    with pytest.raises(DamagedError) as raised:
        repository.read_chunk(wanted, WHERE)
    assert raised.value.message == first.value.message
    assert (second.count, second.warnings) == (0, ())


def test_from_another_place_of_the_same_chunk(tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "repo")
    take(folder, disk)
    repository = opened(folder)
    wanted = chunk(repository, 7)
    real = IndexSet.places

    def places(self: IndexSet, identifier: bytes) -> Iterator[Location]:
        """A place where something else lies, and behind it the right one: as after a lost race of two writers."""
        for place in real(self, identifier):
            yield msgspec.structs.replace(place, offset=place.offset + 1)
            yield place

    monkeypatch.setattr(IndexSet, "places", places)
    with pytest.raises(DamagedError):
        repository.read_chunk(wanted, WHERE)
    second = repository.otherwise = SecondTry(repository)
    assert repository.read_chunk(wanted, WHERE) == content(disk, 7)
    assert second.count == 1


def test_a_pack_that_is_gone_stays_gone_without_enough_parity(tmp_path: Path, disk: Path) -> None:
    folder = make(tmp_path / "repo", parity=2)
    take(folder, disk)
    repository = opened(folder)
    wanted = chunk(repository, 7)
    place = repository.locate(wanted)
    assert place is not None
    (folder / pack_name(place.pack)).unlink()
    repository.otherwise = SecondTry(repository)
    assert place.pack in repository.check_packs()
    assert repository.locate(wanted) is None, "it is not believed"
    assert "is missing" in repository.missing(wanted, WHERE).message


def test_a_pack_whose_end_is_gone_is_believed_where_parity_brings_it_back(tmp_path: Path, disk: Path) -> None:
    folder = make(tmp_path / "repo", parity=2)
    take(folder, disk)
    repository = opened(folder)
    wanted = chunk(repository, 31)
    place = repository.locate(wanted)
    assert place is not None
    pack = folder / pack_name(place.pack)
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:-20_000])
    assert place.pack in repository.check_packs()
    assert repository.locate(wanted) is None, "whoever has no second try sees it as it is"
    repository.otherwise = SecondTry(repository)
    repository.check_packs()
    assert repository.read_chunk(wanted, WHERE) == content(disk, 31)
