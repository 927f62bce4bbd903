"""The code of parity: compared with the field arithmetic of its definition, which zfec has no part in."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.store.parity_code import LANES, ParitySums, rows_at_once, solve_group
from images.store.parity_head import PARITY_BLOCKS_LIMIT, Geometry, Parity, plan_geometry
from tests.unit.images.store.reed_solomon import multiply, parity_block, point


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Small ones; blocks of 8 bytes show what blocks of 64 KiB do."""
    k = draw(st.integers(1, 12))
    m = draw(st.integers(1, 9))
    groups = draw(st.integers(1, 5))
    size = draw(st.integers(groups * 8 - 7, k * groups * 8))
    return Geometry(pack_size=size, block_size=8, data_blocks=k, parity_blocks=m, groups=groups)


def members_of(geometry: Geometry, pack: bytes, group: int) -> list[bytes]:
    """§11: block i is member i / G of group i mod G; what is not there is zero."""
    size = geometry.block_size
    padded = pack.ljust(geometry.data_blocks * geometry.groups * size, b"\0")
    blocks = [padded[at : at + size] for at in range(0, len(padded), size)]
    return blocks[group :: geometry.groups]


def test_the_field_is_the_documented_one() -> None:
    assert multiply(2, 0x80) == 0x1D
    assert len({point(number) for number in range(256)}) == 256


@settings(deadline=None, max_examples=60)
@given(geometries(), st.randoms(use_true_random=False))
def test_parity_is_the_polynomial_of_the_document(geometry: Geometry, source: random.Random) -> None:
    pack = source.randbytes(geometry.pack_size)
    first = source.randrange(geometry.parity_blocks)
    count = source.randint(1, geometry.parity_blocks - first)
    sums = ParitySums(geometry, first, count)
    position = 0
    while position < len(pack):
        step = 2 * source.randint(1, 40)
        sums.add(pack[position : position + step])
        position += step
    for parity in range(first, first + count):
        row = sums.row(parity)
        assert len(row) == geometry.row_size
        for group in range(geometry.groups):
            expected = parity_block(geometry.data_blocks, parity, members_of(geometry, pack, group))
            assert row[group * 8 : group * 8 + 8] == expected


@settings(deadline=None, max_examples=100)
@given(geometries(), st.randoms(use_true_random=False))
def test_any_m_erased_blocks_of_a_group_are_solved(geometry: Geometry, source: random.Random) -> None:
    k, m = geometry.data_blocks, geometry.parity_blocks
    members = [source.randbytes(8) for _ in range(k)]
    parity = [parity_block(k, number, members) for number in range(m)]
    erased = set(source.sample(range(k + m), source.randint(0, m)))
    solved = solve_group(
        geometry,
        {row: members[row] for row in range(k) if row not in erased},
        {row: parity[row] for row in range(m) if k + row not in erased},
    )
    assert solved == {row: members[row] for row in range(k) if row in erased}


def test_one_erased_block_too_many_is_refused() -> None:
    geometry = Geometry(pack_size=64, block_size=8, data_blocks=8, parity_blocks=2, groups=1)
    with pytest.raises(ValueError, match="3 erased"):
        solve_group(geometry, {row: bytes(8) for row in range(5)}, {0: bytes(8), 1: bytes(8)})


def test_sums_want_the_whole_pack_and_no_more() -> None:
    geometry = Geometry(pack_size=64, block_size=8, data_blocks=8, parity_blocks=2, groups=1)
    sums = ParitySums(geometry, 0, 2)
    sums.add(bytes(62))
    with pytest.raises(ValueError, match="62 bytes of a pack of 64"):
        sums.row(0)
    with pytest.raises(ValueError, match="65 bytes"):
        sums.add(bytes(3))
    sums.add(bytes(1))
    with pytest.raises(ValueError, match="odd"):
        sums.add(bytes(1))


@pytest.mark.parametrize("data_blocks", (64, 128, 192))
def test_sums_stay_within_64_mib(data_blocks: int) -> None:
    for regions in range(1, PARITY_BLOCKS_LIMIT + 1):
        geometry = plan_geometry(1 << 30, Parity(data_blocks=data_blocks, parity_blocks=regions))
        at_once = min(rows_at_once(geometry), -(-regions // LANES) * LANES)
        assert at_once * geometry.row_size <= 64 << 20
