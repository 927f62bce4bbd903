"""The radix tree against a plain dictionary; sharing; canonical bytes; damage."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DamagedError
from images.store.pages import (
    Page,
    Slot,
    decode_page,
    diff_trees,
    encode_page,
    find_slot,
    height_for,
    read_tree,
    write_tree,
)


class Store(dict[bytes, bytes]):
    def keep(self, data: bytes) -> bytes:
        identifier = hashlib.sha256(data).digest()
        self[identifier] = data
        return identifier


def _id(number: int) -> bytes:
    return number.to_bytes(32, "big")


@given(st.integers(1, 200_000), st.data())
def test_what_is_written_is_read(chunks: int, data: st.DataObject) -> None:
    numbers = data.draw(st.sets(st.integers(0, chunks - 1), max_size=60))
    slots = [Slot(number, None if number % 3 == 0 else _id(number)) for number in sorted(numbers)]
    store = Store()
    root = write_tree(slots, chunks, store.keep)
    assert list(read_tree(root, chunks, store.__getitem__, "v")) == slots
    assert (root is None) == (not slots)


def test_heights() -> None:
    # From docs/image-format.md §5: 256 MiB, 64 GiB and 16 TiB in chunks of 1 MiB.
    assert [height_for(chunks) for chunks in (1, 256, 257, 65536, 65537, 1 << 24, (1 << 24) + 1)] == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
    ]


def test_one_changed_chunk_makes_one_new_page_a_level() -> None:
    store = Store()
    slots = [Slot(number, _id(number + 1)) for number in range(100_000)]
    write_tree(slots, 100_000, store.keep)
    before = len(store)
    slots[54321] = Slot(54321, _id(7_000_000))
    write_tree(slots, 100_000, store.keep)
    assert len(store) - before == 3


@given(st.integers(1, 200_000), st.data())
def test_a_look_up_finds_what_iterating_finds(chunks: int, data: st.DataObject) -> None:
    numbers = data.draw(st.sets(st.integers(0, chunks - 1), max_size=20))
    slots = {number: Slot(number, None if number % 3 == 0 else _id(number)) for number in numbers}
    store = Store()
    root = write_tree((slots[number] for number in sorted(slots)), chunks, store.keep)
    for number in {*numbers, *data.draw(st.sets(st.integers(0, chunks - 1), max_size=20))}:
        assert find_slot(root, chunks, number, store.__getitem__, "v") == slots.get(number)


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.data())
def test_the_difference_is_that_of_two_dictionaries(first: int, second: int, data: st.DataObject) -> None:
    numbers = data.draw(st.sets(st.integers(0, max(first, second) - 1), max_size=40))
    old = {number: Slot(number, _id(number)) for number in numbers if number < first}
    new = dict(old) if data.draw(st.booleans()) else {}
    for number in data.draw(st.sets(st.integers(0, second - 1), max_size=10)):
        new[number] = Slot(number, None if number % 2 else _id(number + 1_000_000))
    new = {number: slot for number, slot in new.items() if number < second}
    store = Store()
    roots = [
        (write_tree((side[number] for number in sorted(side)), chunks, store.keep), chunks)
        for side, chunks in ((old, first), (new, second))
    ]
    expected = [(number, old.get(number), new.get(number)) for number in sorted({*old, *new})]
    found = [(c.number, c.old, c.new) for c in diff_trees(roots[0], roots[1], store.__getitem__, "v")]
    assert found == [change for change in expected if change[1] != change[2]]


def test_a_difference_reads_only_what_differs() -> None:
    store = Store()
    slots = [Slot(number, _id(number + 1)) for number in range(200_000)]
    old = write_tree(slots, 200_000, store.keep)
    slots[150_000] = Slot(150_000, _id(9_000_000))
    new = write_tree(slots, 200_000, store.keep)
    read: list[bytes] = []

    def fetch(identifier: bytes) -> bytes:
        read.append(identifier)
        return store[identifier]

    changes = list(diff_trees((old, 200_000), (new, 200_000), fetch, "v"))
    assert [change.number for change in changes] == [150_000]
    assert len(read) == 2 * 3


@given(st.binary(max_size=300))
def test_random_bytes_are_no_page(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_page(data, 0, "page")


def test_pages_that_break_a_rule() -> None:
    good = encode_page(Page(0, {1: _id(1)}, frozenset({2})))
    assert decode_page(good, 0, "p").ids == {1: _id(1)}
    for bad in (
        good[:-1],
        good + b"x",
        encode_page(Page(0, {1: _id(1)}, frozenset({1}))),
        encode_page(Page(0, {}, frozenset())),
    ):
        with pytest.raises(DamagedError):
            decode_page(bad, 0, "p")
    with pytest.raises(DamagedError, match="level"):
        decode_page(good, 1, "p")


def test_a_page_behind_the_end_of_the_volume_is_damage() -> None:
    store = Store()
    root = write_tree([Slot(9, _id(9))], 10, store.keep)
    with pytest.raises(DamagedError, match="chunk 9"):
        list(read_tree(root, 9, store.__getitem__, "v"))
