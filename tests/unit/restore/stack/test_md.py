"""mdadm's words for an array: what mdadm(8) asks for in "For create, build, or grow" and "CREATE MODE"."""

from pathlib import Path

import msgspec
import pytest

from core.errors import DeviceError, LiferaftError, ProcessError
from images.model.stack import Array, ArrayMember
from restore.stack.md import create_array, create_words, free_name, synchronises
from tests.runners import ScriptedRunner

MIB = 1 << 20
UUID = "db49ee87:af785a29:7d7a45ca:00a0d15d"
FIVE = Array(
    id="md5",
    uuid=UUID,
    name="host:data",
    level=5,
    metadata="1.2",
    slots=3,
    chunk_size=64 << 10,
    component_size=199 * MIB,
    layout="left-symmetric",
    size=398 * MIB,
    members=tuple(ArrayMember(device=name, slot=slot, data_offset=MIB) for slot, name in enumerate("abc")),
)
MIRROR = Array(
    id="md1",
    uuid=UUID,
    name="host:0",
    level=1,
    metadata="1.2",
    slots=2,
    component_size=399 * MIB,
    size=399 * MIB,
    bitmap=True,
    members=(ArrayMember(device="a", slot=0, data_offset=MIB), ArrayMember(device="b", slot=1, data_offset=MIB)),
)
NODES = {name: f"/dev/{name}" for name in "abcd"}


def test_parity_is_left_to_md() -> None:
    words = create_words(FIVE, "/dev/md/x", NODES, fill=False)
    assert "--assume-clean" not in words
    assert {"--level=5", "--raid-devices=3", "--chunk=64K", "--layout=left-symmetric"} <= set(words)
    assert {f"--uuid={UUID}", "--homehost=host", "--name=data", "--metadata=1.2"} <= set(words)
    assert {"--data-offset=1024K", f"--size={199 * 1024}K", "--bitmap=none"} <= set(words)
    assert words[-3:] == ["/dev/a", "/dev/b", "/dev/c"]


def test_mirrors_are_clean_and_keep_their_bitmap() -> None:
    words = create_words(MIRROR, "/dev/md/x", NODES, fill=False)
    assert {"--assume-clean", "--bitmap=internal"} <= set(words)
    assert not any(word.startswith("--chunk") for word in words)


def test_an_array_on_larger_members_takes_what_they_allow() -> None:
    assert not any(word.startswith("--size") for word in create_words(FIVE, "/dev/md/x", NODES, fill=True))


def test_places_that_were_empty_stay_empty_and_spares_come_last() -> None:
    members = (ArrayMember(device="d", data_offset=MIB), FIVE.members[2], FIVE.members[0])
    words = create_words(msgspec.structs.replace(FIVE, members=members), "/dev/md/x", NODES, fill=False)
    assert words[-4:] == ["/dev/a", "missing", "/dev/c", "/dev/d"]
    assert "--spare-devices=1" in words


SIX = msgspec.structs.replace(
    FIVE,
    level=6,
    slots=4,
    members=tuple(ArrayMember(device=name, slot=slot, data_offset=MIB) for slot, name in enumerate("abcd")),
)


def test_who_has_parity_to_reckon() -> None:
    """What is lacking altogether needs none; see the documentation of the module."""
    assert synchronises(SIX)
    assert synchronises(msgspec.structs.replace(SIX, members=SIX.members[1:]))
    assert not synchronises(msgspec.structs.replace(SIX, members=SIX.members[2:]))
    assert synchronises(FIVE)
    assert not synchronises(msgspec.structs.replace(FIVE, members=FIVE.members[1:]))
    assert not synchronises(MIRROR)


def test_members_with_offsets_of_their_own_keep_them() -> None:
    members = (*FIVE.members[:2], ArrayMember(device="c", slot=2, data_offset=2 * MIB))
    words = create_words(msgspec.structs.replace(FIVE, members=members), "/dev/md/x", NODES, fill=False)
    assert "--data-offset=variable" in words
    assert words[-3:] == ["/dev/a:1024K", "/dev/b:1024K", "/dev/c:2048K"]


@pytest.mark.parametrize("metadata", ["0.90", "1.0"])
def test_formats_with_the_superblock_at_the_end_have_no_offset(metadata: str) -> None:
    members = tuple(msgspec.structs.replace(member, data_offset=0) for member in MIRROR.members)
    array = msgspec.structs.replace(MIRROR, metadata=metadata, members=members)
    assert not any(word.startswith("--data-offset") for word in create_words(array, "/dev/md/x", NODES, fill=False))


def test_an_array_of_that_uuid_that_runs_is_not_made_twice() -> None:
    runner = ScriptedRunner(lambda argv: f"ARRAY /dev/md0 metadata=1.2 UUID={UUID}\n")
    with pytest.raises(LiferaftError, match="is running on this machine"):
        create_array(MIRROR, NODES, runner)
    assert all("--create" not in call for call in runner.calls)


@pytest.mark.parametrize(
    ("export", "size"),
    [
        ("MD_LEVEL=raid1\nMD_UUID=0:0:0:0\nMD_NAME=host:0", 399 * MIB),
        ("MD_LEVEL=raid0\nMD_UUID=" + UUID, 399 * MIB),
        (f"MD_LEVEL=raid1\nMD_UUID={UUID}\nMD_NAME=host:0", 398 * MIB),
        (f"MD_LEVEL=raid1\nMD_UUID={UUID}\nMD_NAME=host:0", 400 * MIB),
    ],
)
def test_an_array_that_came_out_otherwise_is_stopped_and_said(export: str, size: int) -> None:
    def answer(argv: tuple[str, ...]) -> str:
        if "--export" in argv:
            return export
        return str(size) if argv[0] == "blockdev" else ""

    runner = ScriptedRunner(answer)
    with pytest.raises(DeviceError):
        create_array(MIRROR, NODES, runner)
    assert runner.calls[-1][:2] == ("mdadm", "--stop")


def test_an_array_that_udev_does_not_get_to_know_is_stopped() -> None:
    waited: list[int] = []

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "udevadm" and not waited:
            waited.append(1)
            raise ProcessError(argv, 1, "Timed out")
        return ""

    runner = ScriptedRunner(answer)
    with pytest.raises(ProcessError, match="udevadm"):
        create_array(MIRROR, NODES, runner)
    assert runner.calls[-1][:2] == ("mdadm", "--stop")


def test_a_name_that_is_taken_is_not_taken_again(tmp_path: Path) -> None:
    assert free_name(FIVE, tmp_path) == "data"
    (tmp_path / "data").touch()
    assert free_name(FIVE, tmp_path) == "liferaft-md5"
