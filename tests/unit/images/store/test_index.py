import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DamagedError
from images.store.index import Index, IndexBuilder, Location, index_in_memory
from images.store.records import chunk_id

REPOSITORY = bytes(range(16))
PACK = bytes(16)


def _build(ids: set[bytes]) -> tuple[bytes, dict[bytes, Location]]:
    builder = IndexBuilder()
    places = {}
    for number, identifier in enumerate(ids):
        places[identifier] = Location(PACK, 64 + number * 100, 20, 100)
        builder.add(identifier, places[identifier])
    builder.close_pack(PACK, 4096)
    return builder.encode(REPOSITORY), places


@given(st.sets(st.binary(min_size=32, max_size=32), max_size=50), st.binary(min_size=32, max_size=32))
def test_finds_what_is_there_and_nothing_else(ids: set[bytes], other: bytes) -> None:
    data, places = _build(ids)
    _same(index_in_memory(data, REPOSITORY, "i"), places, other)
    # Read part by part, as over a network: exactly the same.
    _same(Index(lambda at, length: data[at : at + length], len(data), REPOSITORY, "i"), places, other)


def _same(index: Index, places: dict[bytes, Location], other: bytes) -> None:
    assert {identifier: index.find(identifier) for identifier in places} == places
    assert index.find(other) == places.get(other)
    assert list(index.ids()) == sorted(places)
    assert index.packs == {PACK: 4096}


@given(st.integers(0, 1 << 20), st.integers(1, 255))
def test_every_changed_byte_is_noticed(at: int, flip: int) -> None:
    data = bytearray(_build({chunk_id(b"a"), chunk_id(b"b")})[0])
    data[at % len(data)] ^= flip
    with pytest.raises(DamagedError):
        index_in_memory(bytes(data), REPOSITORY, "i")


@given(st.binary(max_size=2000))
def test_random_bytes_are_no_index(data: bytes) -> None:
    with pytest.raises(DamagedError):
        index_in_memory(data, REPOSITORY, "i")


def test_an_index_of_another_repository_is_refused() -> None:
    with pytest.raises(DamagedError, match="belongs to repository"):
        index_in_memory(_build(set())[0], bytes(16), "i")


def test_an_unfinished_pack_is_forgotten() -> None:
    builder = IndexBuilder()
    builder.add(chunk_id(b"a"), Location(PACK, 64, 1, 1))
    builder.drop_pack(PACK)
    assert builder.find(chunk_id(b"a")) is None
