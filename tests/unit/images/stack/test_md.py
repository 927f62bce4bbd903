"""Superblocks of md, against what mdadm and libblkid say of the same bytes."""

import lzma
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.sources import BytesSource
from images.stack.md import layout_words, read_superblock
from tests.unit.images.stack.members import DATA, head

SHARED = Path("/work/shared/data/util-linux+util-linux/tests")


def examined(name: str) -> dict[str, str]:
    """What ``mdadm --examine`` said, by its words."""
    text = (DATA / f"{name}.examine").read_text()
    return dict(re.findall(r"^ *([^:\n]+?) : (.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["vda2", "vdd"])
def test_a_member_says_what_mdadm_says(name: str) -> None:
    told = examined(name)
    found = read_superblock(BytesSource(head(name)))
    assert found is not None
    assert found.uuid == told["Array UUID"]
    assert found.name == told["Name"].split()[0]
    assert found.metadata == told["Version"]
    assert f"raid{found.level}" == told["Raid Level"]
    assert found.slots == int(told["Raid Devices"])
    assert found.data_offset == int(told["Data Offset"].split()[0]) * 512
    assert found.events == int(told["Events"])
    assert f"Active device {found.slot}" == told["Device Role"]
    assert found.layout == told.get("Layout", "")
    assert found.chunk_size == int(told.get("Chunk Size", "0K").removesuffix("K")) * 1024
    assert found.bitmap is ("Internal Bitmap" in told)
    assert found.component_size * (found.slots - 1) == int(told["Array Size"].split()[0]) * 1024
    assert (found.oddity, found.faulty) == ("", False)


def test_the_members_of_an_array_have_one_slot_each() -> None:
    found = [read_superblock(BytesSource(head(name))) for name in ("vdc", "vdd", "vde")]
    assert [member and member.slot for member in found] == [0, 1, 2]
    assert len({member.uuid for member in found if member}) == 1


@pytest.mark.parametrize("name", ["mdraid", "mdraid-1"])
def test_images_of_util_linux(name: str) -> None:
    image, told = SHARED / f"ts/blkid/images-fs/{name}.img.xz", SHARED / f"expected/blkid/low-probe-{name}"
    if not image.exists():
        pytest.skip(f"{image} is not here")
    facts = dict(line.split("=", 1) for line in told.read_text().splitlines())
    found = read_superblock(BytesSource(lzma.decompress(image.read_bytes())))
    assert found is not None
    assert found.uuid.replace(":", "") == facts["ID_FS_UUID"].replace("-", "")
    assert found.name == facts.get("ID_FS_LABEL", "")
    assert found.metadata == facts["ID_FS_VERSION"].removesuffix(".0")


@given(st.integers(4096, 4096 + 255), st.integers(1, 255))
def test_no_changed_byte_is_believed(place: int, change: int) -> None:
    """The checksum covers the first 256 bytes; the last of them are padding that belongs to it."""
    content = bytearray(head("vdd"))
    content[place] ^= change
    assert read_superblock(BytesSource(bytes(content))) is None


@given(st.binary(max_size=9000))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    assert read_superblock(BytesSource(content)) is None


@pytest.mark.parametrize(
    ("level", "layout", "words"),
    # From mdadm's maps.c and the table of near, far and offset copies in md(4).
    [(5, 2, "left-symmetric"), (6, 0, "left-asymmetric"), (10, 0x102, "n2"), (10, 0x201, "f2"), (10, 0x10201, "o2")],
)
def test_layouts_are_said_as_mdadm_takes_them(level: int, layout: int, words: str) -> None:
    assert layout_words(level, layout) == words
