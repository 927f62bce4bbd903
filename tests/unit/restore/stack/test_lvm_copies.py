"""Copies of LVM's metadata: the recorded group has 383 extents of 4 MiB behind 1 MiB, which is 1533 MiB."""

import msgspec
import pytest

from core.units import MIB
from restore.stack.lvm_copies import copies
from tests.unit.restore.stack.test_lvm_smaller import recorded


@pytest.mark.parametrize(
    ("had", "room", "made"),
    [
        (2, 1536 * MIB, 2),
        (2, 1534 * MIB, 2),
        (2, 1534 * MIB - 512, 1),
        (2, 1533 * MIB, 1),
        (1, 1536 * MIB, 1),
        (0, 1536 * MIB, 0),
    ],
)
def test_as_many_as_there_were_where_there_is_room(had: int, room: int, made: int) -> None:
    group = recorded()
    member = msgspec.structs.replace(group.members[0], metadata_areas=had)
    assert copies(group, member, room) == made


def test_a_volume_that_the_text_does_not_have_is_full() -> None:
    group = recorded()
    member = msgspec.structs.replace(group.members[0], metadata_areas=2, uuid="another")
    assert copies(group, member, member.size) == 1
    assert copies(group, member, member.size + MIB) == 2
