"""Labels and texts of LVM, against what LVM's own tools said of the same volumes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DamagedError
from images.sources import BytesSource
from images.stack.lvm_label import read_label
from images.stack.lvm_text import parse_group
from tests.unit.images.stack.members import DATA, head, with_areas

#: ``lvs -o lv_name,lv_uuid,lv_size,segtype,pool_lv --units b`` in the guest: the volumes that people see.
VISIBLE = {
    "pool": ("UILfEX-jFaT-Xg6a-YyxE-rhKa-duRd-oeGcZe", 100663296, ("thin-pool",), ""),
    "striped": ("YZP0pB-uqEL-Iu9l-3CHA-DJlq-ykzB-O4wIf6", 67108864, ("striped",), ""),
    "thin": ("HPpSnc-gY48-WeUA-PJJ8-A6cP-DPC6-mAhHKC", 134217728, ("thin",), "pool"),
}
#: ``pvs -o pv_uuid,dev_size,pe_start``.
PHYSICAL = {
    "vdf": ("dWgkTB-b29S-y5Ud-gJ2h-xzic-NULY-9IMv01", 209715200, 1048576),
    "vdg": ("r0okdr-dqD2-Y3Hd-MExq-TUO2-iBVn-rf10ro", 209715200, 1048576),
}


@pytest.mark.parametrize("name", PHYSICAL)
def test_a_label_says_whose_it_is(name: str) -> None:
    label = read_label(BytesSource(head(name)))
    assert label is not None
    assert (label.uuid, label.size) == PHYSICAL[name][:2]
    assert len(label.texts) == 1


def test_the_text_on_the_disks_is_what_vgcfgbackup_writes() -> None:
    labels = [read_label(BytesSource(head(name))) for name in PHYSICAL]
    texts = {text for label in labels if label for text in label.texts}
    assert len(texts) == 1
    group = parse_group(texts.pop())
    assert group == parse_group((DATA / "vgcfgbackup.txt").read_text())
    # ``vgs -o vg_name,vg_uuid,vg_seqno,vg_extent_size``
    assert (group.name, group.uuid, group.sequence, group.extent_size, group.oddity) == (
        "tvg",
        "9c3s4E-9Wum-NpKS-HfAb-Jmtf-CXZH-A9LOnf",
        7,
        4194304,
        "",
    )
    assert {(found.uuid, found.size, found.data_offset) for found in group.physical} == set(PHYSICAL.values())
    seen = {
        found.name: (found.uuid, found.size, found.segments, found.pool) for found in group.logical if found.visible
    }
    assert seen == VISIBLE
    assert {found.name for found in group.logical if not found.visible} == {"lvol0_pmspare", "pool_tmeta", "pool_tdata"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('type = "striped"', 'type = "raid1"', "raid1"),
        ("device_id = 1", 'device_id = 1\norigin = "striped"', "snapshots"),
        ('status = ["RESIZEABLE"', 'status = ["EXPORTED"', "exported"),
        ("max_lv = 0", 'max_lv = 0\nlock_type = "sanlock"', "shared"),
    ],
)
def test_what_cannot_be_made_again_is_said(old: str, new: str, said: str) -> None:
    text = (DATA / "vgcfgbackup.txt").read_text()
    assert old in text
    assert said in parse_group(text.replace(old, new, 1)).oddity


@given(st.integers(0, 3), st.integers(0, 510), st.integers(1, 255))
def test_a_damaged_label_is_none(sector: int, place: int, change: int) -> None:
    content = bytearray(head("vdf"))
    content[512 + place] ^= change
    label = read_label(BytesSource(bytes(content)))
    # 20 bytes of the label are outside its checksum: its mark, its own number, the checksum; all are looked at.
    assert label is None


@given(st.integers(4096, 4096 + 511), st.integers(1, 255))
def test_a_damaged_area_gives_no_text(place: int, change: int) -> None:
    content = bytearray(head("vdf"))
    content[place] ^= change
    label = read_label(BytesSource(bytes(content)))
    assert label is not None
    assert label.texts == ()


@given(st.text(alphabet='ab1 ={}[]",#\\\n', max_size=60))
def test_any_text_is_a_group_or_damage(text: str) -> None:
    with pytest.raises(DamagedError):
        parse_group(text)


def test_a_deep_text_is_damage() -> None:
    with pytest.raises(DamagedError, match="too deep"):
        parse_group("a {" * 100_000)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_copies_of_the_metadata_are_counted(count: int) -> None:
    label = read_label(BytesSource(with_areas(head("vdf"), count)))
    assert label is not None
    assert label.metadata_areas == count
