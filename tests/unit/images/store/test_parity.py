"""Packs are repaired byte for byte, or left alone: damage of every kind within and beyond the guarantee (§11)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DamagedError, DeviceError, LiferaftError, UnreachableError
from images.model.extents import Extent, total
from images.store.backend import MissingFileError
from images.store.parity import (
    ParityState,
    examine,
    parity_name,
    protect,
    read_repaired,
    repair,
)
from images.store.parity_file import BlockFile, find_head
from images.store.parity_head import Geometry, Parity, plan_geometry
from images.store.records import encode_pack_header
from images.store.repository import pack_name
from tests.unit.images.store.memory import MemoryBackend

REPOSITORY, PACK = bytes(range(16)), bytes(range(100, 116))
DATA, FILE = pack_name(PACK), parity_name(PACK)
BLOCK = 4096
#: Like a full pack in small: 13 groups, 3 regions of up to 48 KiB.
SMALL = Parity(data_blocks=8, parity_blocks=3, block_size=BLOCK)
SIZE = 101 * BLOCK + 1234


def protected(size: int = SIZE, parity: Parity = SMALL, seed: int = 1) -> MemoryBackend:
    backend = MemoryBackend()
    backend.write(DATA, encode_pack_header(REPOSITORY, PACK) + random.Random(seed).randbytes(size - 64))
    assert protect(backend, REPOSITORY, PACK, parity) == backend.size(FILE)
    backend.writes.clear()
    return backend


def hurt(backend: MemoryBackend, name: str, extent: Extent, how: str, source: random.Random) -> None:
    """Damage an extent of a file: noise, zeros, one flipped bit, unreadable sectors, or everything behind it gone."""
    data = bytearray(backend.files[name])
    extent = Extent(min(extent.start, len(data)), min(extent.end, len(data)))
    if how == "noise":
        data[extent.start : extent.end] = source.randbytes(extent.size)
    elif how == "zeros":
        data[extent.start : extent.end] = bytes(extent.size)
    elif how == "flip" and extent.size:
        data[source.randrange(extent.start, extent.end)] ^= 1 << source.randrange(8)
    elif how == "unreadable" and extent.size:
        backend.unreadable.setdefault(name, []).append(extent)
    elif how == "cut":
        del data[len(data) - extent.size :]
    backend.files[name] = bytes(data)


@st.composite
def regions(draw: st.DrawFn, geometry: Geometry, count: int) -> list[tuple[str, Extent, str]]:
    """So many regions of at most (G − 1) × B bytes anywhere, often where heads are; at most one file is cut short."""
    largest = (geometry.groups - 1) * geometry.block_size
    sizes = {DATA: geometry.pack_size, FILE: geometry.file_size}
    found: list[tuple[str, Extent, str]] = []
    for _ in range(count):
        name = draw(st.sampled_from((DATA, FILE)))
        size = draw(st.integers(1, largest) | st.just(largest))
        heads = [geometry.head_offset(copy) for copy in range(geometry.parity_blocks + 1)]
        spots = st.integers(0, sizes[name] - 1)
        near = st.sampled_from(heads).flatmap(lambda at: st.integers(max(0, at - largest), at + geometry.head_size))
        start = draw(spots | near) if name == FILE else draw(spots)
        hows = ["noise", "zeros", "flip", "unreadable"]
        if not any(how == "cut" for _, _, how in found):
            hows.append("cut")
        found.append((name, Extent(start, min(start + size, sizes[name])), draw(st.sampled_from(hows))))
    # What is cut off is cut last: the other places are those of the whole file.
    return sorted(found, key=lambda region: region[2] == "cut")


@settings(deadline=None, max_examples=250)
@given(st.data())
def test_any_m_regions_are_repaired_byte_for_byte(data: st.DataObject) -> None:
    """The guarantee of §11, with noise, zeros, flipped bits, unreadable sectors and missing tails."""
    blocks = data.draw(st.integers(9, 120), label="blocks")
    size = (blocks - 1) * BLOCK + data.draw(st.integers(1, BLOCK), label="tail")
    parity = Parity(data_blocks=8, parity_blocks=data.draw(st.integers(1, 5), label="m"), block_size=BLOCK)
    backend = protected(size, parity)
    before = dict(backend.files)
    geometry = plan_geometry(size, parity)
    source = random.Random(data.draw(st.integers(0, 1 << 32)))
    for name, extent, how in data.draw(regions(geometry, parity.parity_blocks), label="regions"):
        hurt(backend, name, extent, how, source)
    condition = examine(backend, REPOSITORY, PACK, size=size)
    assert condition.repairable
    assert backend.files != before or backend.unreadable or condition.sound
    assert repair(backend, REPOSITORY, PACK, size=size) == condition
    assert backend.files == before
    assert not backend.unreadable
    assert backend.writes == ([DATA] if condition.damaged else []) + ([FILE] if condition.damaged_parity else [])
    assert examine(backend, REPOSITORY, PACK).sound


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_one_more_damaged_block_in_a_group_is_refused_and_nothing_changes(data: st.DataObject) -> None:
    backend = protected()
    geometry = plan_geometry(SIZE, SMALL)
    source = random.Random(data.draw(st.integers(0, 1 << 32)))
    group = data.draw(st.integers(0, geometry.groups - 1))
    own = range(group, geometry.blocks, geometry.groups)
    helping = range(group, geometry.parity_blocks * geometry.groups, geometry.groups)
    many = data.draw(st.integers(1, min(len(own), SMALL.parity_blocks + 1)))
    bad = source.sample(own, many)
    for number in bad:
        hurt(backend, DATA, geometry.block(number), data.draw(st.sampled_from(("noise", "unreadable"))), source)
    for number in source.sample(helping, SMALL.parity_blocks + 1 - many):
        hurt(backend, FILE, geometry.parity_block(number), "noise", source)
    # One that could be repaired, in another group.
    other = (group + 1) % geometry.groups
    hurt(backend, DATA, geometry.block(other), "flip", source)
    before, unreadable = dict(backend.files), dict(backend.unreadable)
    condition = examine(backend, REPOSITORY, PACK)
    assert not condition.repairable
    assert total(condition.lost) == sum(geometry.block(number).size for number in bad)
    assert total(condition.damaged) == total(condition.lost) + geometry.block(other).size
    first = geometry.block(min(bad)).start
    with pytest.raises(DamagedError, match=rf"{DATA} cannot be repaired: bytes {first} to ") as caught:
        repair(backend, REPOSITORY, PACK)
    assert "Nothing was changed" in caught.value.hint
    assert f"{geometry.block(other).size} bytes of them would come back" in caught.value.message
    assert (backend.files, backend.unreadable, backend.writes) == (before, unreadable, [])


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_whatever_happens_repair_gives_the_old_bytes_or_changes_nothing(data: st.DataObject) -> None:
    backend = protected()
    whole = dict(backend.files)
    source = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(data.draw(st.integers(1, 12))):
        name = data.draw(st.sampled_from((DATA, FILE)))
        start = source.randrange(len(whole[name]))
        how = data.draw(st.sampled_from(("noise", "zeros", "flip", "unreadable", "cut", "insert")))
        extent = Extent(start, start + source.randrange(1, 1 << data.draw(st.integers(1, 18))))
        if how == "insert":
            content = backend.files[name]
            backend.files[name] = content[:start] + source.randbytes(5) + content[start:]
        else:
            hurt(backend, name, extent, how, source)
    before = dict(backend.files)
    condition = examine(backend, REPOSITORY, PACK)
    try:
        repair(backend, REPOSITORY, PACK)
    except DamagedError:
        assert not condition.repairable
        assert backend.files == before
    else:
        assert condition.repairable
        assert backend.files == whole


@pytest.mark.parametrize("name", (DATA, FILE))
def test_bytes_behind_the_end_are_cut_off(name: str) -> None:
    backend = protected()
    whole = dict(backend.files)
    backend.files[name] += b"more"
    condition = examine(backend, REPOSITORY, PACK)
    extra = (Extent(len(whole[name]), len(whole[name]) + 4),)
    assert (condition.damaged, condition.damaged_parity) == ((extra, ()) if name == DATA else ((), extra))
    repair(backend, REPOSITORY, PACK)
    assert backend.files == whole


def test_a_small_pack_comes_back_when_it_is_gone() -> None:
    backend = protected(2 * BLOCK + 5)
    whole = dict(backend.files)
    del backend.files[DATA]
    assert repair(backend, REPOSITORY, PACK).damaged == (Extent(0, 2 * BLOCK + 5),)
    assert backend.files == whole


def test_a_missing_parity_file_says_nothing() -> None:
    backend = protected()
    del backend.files[FILE]
    condition = examine(backend, REPOSITORY, PACK)
    assert condition.state is ParityState.MISSING
    assert not condition.known
    assert not condition.sound
    assert not condition.repairable
    with pytest.raises(DamagedError, match=r"\.parity is missing"):
        repair(backend, REPOSITORY, PACK)
    with pytest.raises(DamagedError):
        read_repaired(backend, REPOSITORY, PACK)


def test_a_parity_file_without_a_sound_head_says_nothing() -> None:
    backend = protected()
    geometry = plan_geometry(SIZE, SMALL)
    for copy in range(4):
        start = geometry.head_offset(copy)
        hurt(backend, FILE, Extent(start, start + 4096), "flip", random.Random(copy))
    before = dict(backend.files)
    condition = examine(backend, REPOSITORY, PACK)
    assert condition.state is ParityState.UNUSABLE
    assert "no other head" in condition.problem
    with pytest.raises(DamagedError, match="no other head"):
        repair(backend, REPOSITORY, PACK)
    assert backend.files == before
    # It can be made anew, from a pack whose records are proven.
    protect(backend, REPOSITORY, PACK, SMALL)
    assert examine(backend, REPOSITORY, PACK).sound


def test_the_parity_of_another_pack_is_not_used() -> None:
    backend = protected()
    other = bytes(16)
    backend.write(pack_name(other), encode_pack_header(REPOSITORY, other) + bytes(9 * BLOCK))
    protect(backend, REPOSITORY, other, SMALL)
    backend.files[FILE] = backend.files[parity_name(other)]
    condition = examine(backend, REPOSITORY, PACK)
    assert condition.state is ParityState.UNUSABLE
    assert "byte 24: pack id" in condition.problem


def test_a_size_that_the_index_contradicts_is_not_believed() -> None:
    backend = protected()
    condition = examine(backend, REPOSITORY, PACK, size=SIZE - 1)
    assert condition.state is ParityState.UNUSABLE
    assert f"of {SIZE} bytes; the index says {SIZE - 1}" in condition.problem


def test_only_a_pack_of_this_repository_is_protected() -> None:
    backend = protected()
    with pytest.raises(DamagedError, match="repository id"):
        protect(backend, bytes(16), PACK, SMALL)
    with pytest.raises(MissingFileError):
        protect(backend, REPOSITORY, bytes(16), SMALL)
    backend.files[DATA] = backend.files[DATA][:63]
    with pytest.raises(DamagedError, match="63 bytes, expected 64"):
        protect(backend, REPOSITORY, PACK, SMALL)


def test_protecting_an_unreadable_pack_is_an_error_and_keeps_the_old_parity() -> None:
    backend = protected()
    before = dict(backend.files)
    hurt(backend, DATA, Extent(9 * BLOCK, 10 * BLOCK), "unreadable", random.Random(1))
    with pytest.raises(DamagedError, match="Input/output error"):
        protect(backend, REPOSITORY, PACK, SMALL)
    assert backend.files == before


def test_more_rows_than_fit_into_memory_are_made_in_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    parity = Parity(data_blocks=16, parity_blocks=11, block_size=BLOCK)
    expected = protected(parity=parity).files[FILE]
    monkeypatch.setattr("images.store.parity.rows_at_once", lambda geometry: 4)
    assert protected(parity=parity).files[FILE] == expected


class _Changing(MemoryBackend):
    """From its ``wrong``-th reading on, one bit of the pack's ninth block is another."""

    readings = 0
    wrong = 0

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        data = bytearray(super().read_range(name, offset, length))
        if name == DATA and offset <= 9 * BLOCK < offset + length:
            self.readings += 1
            data[9 * BLOCK - offset] ^= self.readings >= self.wrong
        return bytes(data)


@pytest.mark.parametrize(("at_once", "wrong"), ((100, 2), (4, 2), (4, 3), (4, 4), (4, 5), (4, 7)))
def test_a_pack_that_changes_while_it_is_read_gets_no_parity(
    at_once: int, wrong: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reading is the examination; 11 rows in passes of 4 are two times three more."""
    monkeypatch.setattr("images.store.parity.rows_at_once", lambda geometry: at_once)
    backend = _Changing()
    backend.files = dict(protected(parity=Parity(data_blocks=16, parity_blocks=11, block_size=BLOCK)).files)
    hurt(backend, FILE, Extent(5000, 5001), "flip", random.Random(1))
    before = dict(backend.files)
    backend.wrong = wrong
    with pytest.raises(DamagedError, match="changes while it is read"):
        repair(backend, REPOSITORY, PACK)
    assert backend.files == before


def test_a_disk_that_does_not_keep_what_is_written_is_told() -> None:
    class Failing(MemoryBackend):
        def write(self, name: str, content: bytes) -> None:
            super().write(name, content[:-1] + b"?")

    sound = protected()
    backend = Failing()
    backend.files = dict(sound.files)
    hurt(backend, DATA, Extent(0, 1), "flip", random.Random(1))
    with pytest.raises(DamagedError, match="does not read back"):
        repair(backend, REPOSITORY, PACK)


def test_no_room_for_the_new_pack_leaves_the_old_one() -> None:
    class Full(MemoryBackend):
        def write(self, name: str, content: bytes) -> None:
            raise DeviceError("No space left on device.")

    backend = Full()
    backend.files = dict(protected().files)
    hurt(backend, DATA, Extent(0, 1), "flip", random.Random(1))
    before = dict(backend.files)
    with pytest.raises(DeviceError, match="No space"):
        repair(backend, REPOSITORY, PACK)
    assert backend.files == before


@pytest.mark.parametrize("error", (UnreachableError, DeviceError))
def test_a_server_that_does_not_answer_is_not_damage(error: type[LiferaftError]) -> None:
    class Gone(MemoryBackend):
        distant = True

        def read_range(self, name: str, offset: int, length: int) -> bytes:
            if name == DATA:
                raise error("The server does not answer.")
            return super().read_range(name, offset, length)

    backend = Gone()
    backend.files = dict(protected().files)
    with pytest.raises(error, match="does not answer"):
        examine(backend, REPOSITORY, PACK)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_reading_through_parity(data: st.DataObject) -> None:
    """A restore from a medium that cannot be repaired gets the bytes that were written."""
    backend = protected()
    whole = dict(backend.files)
    source = random.Random(data.draw(st.integers(0, 1 << 32)))
    geometry = plan_geometry(SIZE, SMALL)
    for name, extent, how in data.draw(regions(geometry, SMALL.parity_blocks)):
        hurt(backend, name, extent, how, source)
    solver = read_repaired(backend, REPOSITORY, PACK)
    for _ in range(5):
        offset = source.randrange(SIZE)
        length = source.randrange(SIZE - offset + 1)
        assert solver.read(offset, length) == whole[DATA][offset : offset + length]
    assert backend.writes == []


def test_reading_through_parity_refuses_what_is_lost_and_gives_the_rest() -> None:
    backend = protected()
    whole = backend.files[DATA]
    geometry = plan_geometry(SIZE, SMALL)
    for row in range(4):
        hurt(backend, DATA, geometry.block(row * geometry.groups + 2), "noise", random.Random(row))
    solver = read_repaired(backend, REPOSITORY, PACK)
    with pytest.raises(DamagedError, match=f"offset {2 * BLOCK}: 4 blocks of one group are damaged, and 3 of its 3"):
        solver.read(2 * BLOCK + 100, 10)
    assert solver.read(3 * BLOCK, 9 * BLOCK) == whole[3 * BLOCK : 12 * BLOCK]
    with pytest.raises(DamagedError, match=f"has {SIZE} bytes"):
        solver.read(SIZE - 1, 2)


def test_solving_keeps_within_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """When what was solved does not fit, it is solved again: slower, and the same."""
    monkeypatch.setattr("images.store.parity_solver._SOLVED_MEMORY", 2 * BLOCK)
    backend = protected()
    whole = dict(backend.files)
    geometry = plan_geometry(SIZE, SMALL)
    hurt(backend, DATA, Extent(BLOCK, BLOCK + (3 * geometry.groups - 1) * BLOCK), "noise", random.Random(1))
    repair(backend, REPOSITORY, PACK)
    assert backend.files == whole


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=20_000), st.booleans())
def test_garbage_for_parity_says_nothing(garbage: bytes, begins: bool) -> None:
    backend = protected()
    backend.files[FILE] = (backend.files[FILE][:64] if begins else b"") + garbage
    before = dict(backend.files)
    assert examine(backend, REPOSITORY, PACK).state is ParityState.UNUSABLE
    with pytest.raises(DamagedError):
        repair(backend, REPOSITORY, PACK)
    assert backend.files == before


def test_a_file_full_of_heads_that_lie_is_read_a_bounded_number_of_times() -> None:
    backend = protected()
    head = backend.files[FILE][:4096]
    lie = head[:100] + bytes([head[100] ^ 1]) + head[101:]
    backend.files[FILE] = lie * 5000
    backend.bytes_read = 0
    with pytest.raises(DamagedError, match="no other head"):
        find_head(BlockFile(backend, FILE), REPOSITORY, PACK)
    assert backend.bytes_read < 2 * len(backend.files[FILE])


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_small_packs_survive_lost_sectors(data: st.DataObject) -> None:
    """§11: where there is one group only, a region is a sector of 4096 bytes."""
    size = data.draw(st.integers(64, 512 << 10), label="size")
    backend = protected(size, Parity())
    whole = dict(backend.files)
    source = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(4):
        name = data.draw(st.sampled_from((DATA, FILE)))
        start = source.randrange(-(-len(whole[name]) // 4096)) * 4096
        hurt(backend, name, Extent(start, start + 4096), data.draw(st.sampled_from(("noise", "unreadable"))), source)
    repair(backend, REPOSITORY, PACK)
    assert backend.files == whole
