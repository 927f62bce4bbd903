"""Volumes with bytes turned over in what is read of them: an error with an address, or an answer; no crash, no hang."""

import random
import time
from pathlib import Path

import pytest

from core.errors import LiferaftError
from images.browse.entry import Kind
from images.browse.tree import Found, Tree, join
from images.sources import BlockSource, WindowSource, open_source
from tests.unit.images.browse.shared import DATA, PlainVolume, raw_image, truth_trees, walk

pytestmark = pytest.mark.skipif(not truth_trees(), reason=f"{DATA} is not here: real inputs of other projects")

ROUNDS = 25
CASES = ("btrfs.vhdx", "fat12.dd", "test.exfat", "img_fs_xfs5", "img_fs_ext4", "ntfs/test.ntfs", "ext2.qcow2")


class Turned(PlainVolume):
    """A volume in which some bytes are others."""

    def __init__(self, inner: BlockSource, bytes_by_place: dict[int, int]) -> None:
        super().__init__(inner)
        self._turned = bytes_by_place

    def read_at(self, offset: int, length: int) -> bytes:
        content = bytearray(super().read_at(offset, length))
        for place, byte in self._turned.items():
            if offset <= place < offset + length:
                content[place - offset] = byte
        return bytes(content)


def read_everything(tree: Tree, folder: Found, depth: int = 0) -> int:
    """How many errors there were; each is one of ours."""
    errors = 0
    try:
        names = tree.names(folder)
    except LiferaftError as error:
        assert "0123456789ab disk0-part1:/" in error.message
        return 1
    for name, node, _ in names[:500]:
        try:
            found = tree.node(join(folder.path, name), node)
            tree.attributes(found)
            if found.entry.kind is Kind.FILE:
                for piece in tree.pieces(found, tree.content(found)):
                    if piece.offset > 8 << 20:
                        break
        except LiferaftError as error:
            assert "0123456789ab disk0-part1:/" in error.message
            errors += 1
            continue
        if found.entry.kind is Kind.FOLDER and depth < 8:
            errors += read_everything(tree, found, depth + 1)
    return errors


@pytest.mark.parametrize("case", CASES)
def test_turned_bytes_are_errors_with_an_address(case: str, tmp_path: Path) -> None:
    image = raw_image(next(name for name in truth_trees() if case in str(name)), tmp_path)
    assert image is not None
    path, start, size = image
    with open_source(path) as source:
        window = WindowSource(source, start, source.size - start if size is None else size)
        places = places_read(window)
        errors = sum(errors_with(window, seed, places) for seed in range(ROUNDS))
    assert errors, "no change was seen: the case proves nothing"


def places_read(window: WindowSource) -> list[tuple[int, int]]:
    """Where the readers look when they list everything and read no content."""
    volume = PlainVolume(window)
    tree = Tree(volume)  # type: ignore[arg-type]
    assert tree.default == tree.root
    for found in walk(tree):
        tree.attributes(found)
        if found.entry.kind is Kind.FILE:
            tree.content(found)
    return volume.reads


def errors_with(window: WindowSource, seed: int, places: list[tuple[int, int]]) -> int:
    """How many errors some turned bytes lead to."""
    rng = random.Random(seed)
    turned = {}
    for _ in range(rng.choice((1, 2, 5, 20))):
        offset, length = rng.choice(places)
        turned[offset + rng.randrange(length)] = rng.choice((0, 255, rng.randrange(256)))
    began = time.process_time()
    try:
        damaged = Tree(Turned(window, turned))  # type: ignore[arg-type]
        errors = read_everything(damaged, damaged.root)
        assert damaged.default.path.startswith("/")
    except LiferaftError as error:
        assert "0123456789ab disk0-part1" in error.message
        errors = 1
    assert time.process_time() - began < 10
    return errors
