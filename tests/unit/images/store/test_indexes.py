"""Many indexes in bounded memory: what is held, what is read piece by piece, and when a piece becomes the whole."""

import os
from pathlib import Path

import pytest

from images.store import indexes
from images.store.backend import FileStart, LocalBackend
from images.store.index import IndexBuilder, Location
from images.store.indexes import IndexSet
from images.store.records import chunk_id

REPOSITORY = bytes(16)


class Counting(LocalBackend):
    """A folder that counts what is read, and may claim to be far away."""

    def __init__(self, folder: Path, *, distant: bool) -> None:
        super().__init__(folder)
        self.distant = distant
        self.whole: list[str] = []
        self.starts = 0
        self.sizes_asked = 0
        self.parts = 0
        self.bytes = 0

    def read(self, name: str, limit: int) -> bytes:
        self.whole.append(name)
        data = super().read(name, limit)
        self.bytes += len(data)
        return data

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        self.parts += 1
        self.bytes += length
        return super().read_range(name, offset, length)

    def read_start(self, name: str, length: int) -> FileStart:
        self.starts += 1
        # A folder makes it of two calls, which do not count; over a network it is one request.
        found = LocalBackend(self.folder).read_start(name, length)
        self.bytes += len(found.data)
        return found

    def size(self, name: str) -> int:
        self.sizes_asked += 1
        return super().size(name)


def _write(folder: Path, entries: int) -> tuple[str, dict[bytes, Location]]:
    builder, pack = IndexBuilder(), os.urandom(16)
    places = {
        chunk_id(pack + number.to_bytes(4, "big")): Location(pack, 64 + 100 * number, 20, 100)
        for number in range(entries)
    }
    for identifier, place in places.items():
        builder.add(identifier, place)
    builder.close_pack(pack, 1 << 20)
    name = f"{os.urandom(16).hex()}.index"
    (folder / "indexes").mkdir(exist_ok=True)
    (folder / "indexes" / name).write_bytes(builder.encode(REPOSITORY))
    return name, places


@pytest.mark.parametrize("distant", [False, True])
def test_every_record_is_found_however_little_is_held(
    tmp_path: Path, distant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "HELD_LIMIT", 200_000)
    files = [_write(tmp_path, 1000 + number) for number in range(12)]
    backend = Counting(tmp_path, distant=distant)
    found = IndexSet(backend, REPOSITORY, tuple(name for name, _ in files))
    assert found.problems == ()
    if distant:
        assert (backend.starts, backend.whole) == (len(files), [])
    else:
        assert 0 < len(backend.whole) < len(files)
    for _, places in files:
        for identifier, place in places.items():
            assert next(found.places(identifier)) == place
    assert next(found.places(bytes(32)), None) is None
    assert found.pack_sizes() == {place.pack: 1 << 20 for _, places in files for place in places.values()}


def test_one_look_up_over_a_network_costs_one_part(tmp_path: Path) -> None:
    # 100 GiB of chunks of 1 MiB: an index of 4.7 MiB.
    name, places = _write(tmp_path, 102_400)
    backend = Counting(tmp_path, distant=True)
    found = IndexSet(backend, REPOSITORY, (name,))
    some = list(places.items())[:20]
    for identifier, place in some:
        assert next(found.places(identifier)) == place
    assert backend.whole == []
    assert backend.bytes < 64 * 1024 + 22 * (48 * 102_400 // 256 + 4096)


def test_many_look_ups_fetch_the_whole_once(tmp_path: Path) -> None:
    name, places = _write(tmp_path, 20_000)
    backend = Counting(tmp_path, distant=True)
    found = IndexSet(backend, REPOSITORY, (name,))
    for identifier, place in places.items():
        assert next(found.places(identifier)) == place
    assert backend.whole == [f"indexes/{name}"]
    assert backend.parts < 50


def test_small_indexes_cost_one_request_each(tmp_path: Path) -> None:
    files = [_write(tmp_path, 20 + number) for number in range(50)]
    backend = Counting(tmp_path, distant=True)
    found = IndexSet(backend, REPOSITORY, tuple(name for name, _ in files))
    for _, places in files:
        for identifier, place in places.items():
            assert next(found.places(identifier)) == place
    assert (backend.starts, backend.sizes_asked, backend.parts, backend.whole) == (50, 0, 0, [])
    assert backend.bytes == sum(path.stat().st_size for path in (tmp_path / "indexes").iterdir())
    assert found.files() == tuple(name for name, _ in files)


@pytest.mark.parametrize("distant", [False, True])
@pytest.mark.parametrize("length", [0, 63, 1000, 70_000])
def test_a_cut_index_is_left_out(tmp_path: Path, distant: bool, length: int) -> None:
    name, _ = _write(tmp_path, 2000)
    os.truncate(tmp_path / "indexes" / name, length)
    found = IndexSet(Counting(tmp_path, distant=distant), REPOSITORY, (name,))
    assert (len(found), len(found.problems)) == (0, 1)
    assert name in found.problems[0]


def test_a_damaged_index_is_left_out_and_named(tmp_path: Path) -> None:
    good, places = _write(tmp_path, 10)
    bad, _ = _write(tmp_path, 10)
    path = tmp_path / "indexes" / bad
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    gone = f"{'0' * 32}.index"
    found = IndexSet(LocalBackend(tmp_path), REPOSITORY, (good, bad, gone))
    assert found.files() == (good,)
    assert len(found.problems) == 2
    assert bad in found.problems[0]
    assert gone in found.problems[1]
    assert all(next(found.places(identifier)) == place for identifier, place in places.items())
