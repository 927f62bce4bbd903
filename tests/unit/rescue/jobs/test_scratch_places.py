"""Where scratch files can go: what is offered, what is not, and that a place is mounted for as long as it is needed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.errors import ProcessError, RefusedError
from core.process import Result
from images.model.layout import DiskIdentity, FilesystemKind
from rescue.jobs.scratch_places import ScratchPlace, place_of, scratch_in, scratch_places, scratch_reason
from restore.plan.plan import Plan, TargetDisk
from restore.plan.steps import ShrinkVolume
from tests.runners import ScriptedRunner

GIB = 1 << 30


def plan(scratch: int) -> Plan:
    """A plan that makes one filesystem smaller."""
    step = ShrinkVolume(
        disk="disk0",
        volume="disk0-part1",
        number=1,
        offset=1 << 20,
        size=GIB,
        kind=FilesystemKind.EXT4,
        data=GIB,
        stored=GIB,
        scratch=scratch,
        verify=True,
    )
    target = TargetDisk(source="disk0", identity=DiskIdentity(), file="", size=2 * GIB, sector_size=512, destroys=())
    return Plan(
        recovery_point="0" * 64, name="x", created="", repository="/r", targets=(target,), steps=(step,), notes=()
    )


def part(name: str, fstype: str, size: int = 40 * GIB, **fields: Any) -> dict[str, Any]:
    return {"name": name, "kname": name, "type": "part", "size": size, "fstype": fstype, **fields}


def disk(name: str, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "kname": name, "type": "disk", "size": 100 * GIB, "children": list(parts), **fields}


DISKS = [
    disk("/dev/sda", part("/dev/sda1", "ext4"), tran="usb"),
    disk("/dev/sdb", part("/dev/sdb1", "ext4"), tran="sata"),
    disk(
        "/dev/sdc",
        part("/dev/sdc1", "vfat"),
        part("/dev/sdc2", "ext4", label="spare"),
        part("/dev/sdc3", "xfs", size=GIB),
        part("/dev/sdc4", "btrfs", mountpoints=["/run/liferaft/7/sdc4"]),
        part("/dev/sdc5", "crypto_LUKS"),
        part("/dev/sdc6", "ext4", ro=True),
        tran="usb",
        model="T7",
    ),
]


def lsblk(argv: tuple[str, ...]) -> str:
    return json.dumps({"blockdevices": DISKS}) if argv[0] == "lsblk" else ""


#: The second partition of /dev/sdc, as it is offered.
SPARE = ScratchPlace(
    name='ext4 "spare", 40.00 GiB, on T7 (/dev/sdc2)',
    device="/dev/sdc2",
    kind="ext4",
    identity=DiskIdentity(model="T7", transport="usb"),
)


def test_what_is_said_to_a_person_names_no_option_of_the_command_line(tmp_path: Path) -> None:
    why = scratch_reason(plan(1 << 60), ScratchPlace(name="here", folder=str(tmp_path)), (), ScriptedRunner(lsblk))
    assert f"and {tmp_path} has " in why
    assert "--scratch" not in why


def test_what_is_offered() -> None:
    """/dev/sda is a target, /dev/sdb built in; FAT has no holes, and the rest is in use, closed or read-only."""
    own, *found = scratch_places(plan(2 * GIB), ("/dev/sda",), ScriptedRunner(lsblk))
    assert own.folder
    assert [(place.device, place.kind, bool(place.reason)) for place in found] == [
        ("/dev/sdc2", "ext4", False),
        ("/dev/sdc3", "xfs", True),
    ]
    assert found[0].name == 'ext4 "spare", 40.00 GiB, on T7 (/dev/sdc2)'


def test_a_folder_has_room_or_a_reason(tmp_path: Path) -> None:
    place, runner = ScratchPlace(name="x", folder=str(tmp_path)), ScriptedRunner(lsblk)
    assert scratch_reason(plan(1), place, (), runner) == ""
    assert "takes about 1048576.00 TiB" in scratch_reason(plan(1 << 60), place, (), runner)
    nowhere = ScratchPlace(name="x", folder=str(tmp_path / "none"))
    assert "cannot be used" in scratch_reason(plan(1), nowhere, (), runner)
    assert scratch_reason(plan(1 << 60), SPARE, (), runner) == ""


def test_a_filesystem_without_holes_is_no_place_for_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT gives a file that is made longer all its room (Linux, fs/fat/file.c, fat_cont_expand)."""

    def allocating(descriptor: int, size: int) -> None:
        os.posix_fallocate(descriptor, 0, size)

    monkeypatch.setattr("restore.shrink.room.os.ftruncate", allocating)
    place = ScratchPlace(name="x", folder=str(tmp_path))
    assert "files have no holes" in scratch_reason(plan(1), place, (), ScriptedRunner(lsblk))
    assert not list(tmp_path.iterdir())


def test_a_device_is_mounted_for_as_long_as_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rescue.jobs.mounting.PLACE", tmp_path)
    runner = ScriptedRunner(lsblk)
    with scratch_in(SPARE, runner) as folder:
        assert folder is not None and folder.is_dir()
        assert runner.calls[1:] == [("mount", "-t", "ext4", "-o", "rw,nosuid,nodev,noexec", "/dev/sdc2", str(folder))]
    assert runner.calls[2:] == [("umount", str(folder))]
    assert not folder.exists()
    with scratch_in(None, runner) as nowhere, scratch_in(ScratchPlace(name="x", folder="/mnt"), runner) as mounted:
        assert (nowhere, mounted) == (None, Path("/mnt"))
    assert len(runner.calls) == 3


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ([], "/dev/sdc2 is not there any more"),
        (
            [disk("/dev/sdc", part("/dev/sdc2", "ext4", label="spare"), tran="usb", model="T7", serial="B")],
            "another disk",
        ),
        ([disk("/dev/sdc", part("/dev/sdc2", "ext4", label="photos"), tran="usb", model="T7")], "another disk"),
        (
            [disk("/dev/sdc", part("/dev/sdc2", "ext4", label="spare", mountpoints=["/m"]), tran="usb", model="T7")],
            "is mounted by now",
        ),
    ],
    ids=["gone", "another of that model", "another filesystem", "mounted"],
)
def test_what_has_its_name_by_then_is_not_mounted(now: list[dict[str, Any]], said: str) -> None:
    runner = ScriptedRunner(lambda argv: json.dumps({"blockdevices": now}) if argv[0] == "lsblk" else "")
    assert said in scratch_reason(plan(1), SPARE, (), runner)
    with pytest.raises(RefusedError, match=said), scratch_in(SPARE, runner):
        raise AssertionError("it was used")
    assert {call[0] for call in runner.calls} == {"lsblk"}


def test_what_is_on_a_target_by_then_is_no_place() -> None:
    """It was chosen for another target: the person has gone back, and taken its own disk instead."""
    runner = ScriptedRunner(lsblk)
    assert scratch_reason(plan(1), SPARE, ("/dev/sda",), runner) == ""
    assert "/dev/sdc2 is on a disk that will be erased" in scratch_reason(plan(1), SPARE, ("/dev/sdc",), runner)


@pytest.mark.parametrize("targets", [(), ("/dev/sdc",)], ids=["not attached", "a target"])
def test_a_plan_without_scratch_asks_nothing_of_a_place_that_was_chosen_for_another(targets: tuple[str, ...]) -> None:
    runner = ScriptedRunner(lambda argv: lsblk(argv) if targets else '{"blockdevices": []}')
    assert scratch_reason(plan(0), SPARE, targets, runner) == ""
    assert scratch_reason(plan(1), SPARE, targets, runner) != ""
    assert place_of(plan(0), SPARE) is None and place_of(plan(1), SPARE) is SPARE


@pytest.mark.parametrize("failing", ["mount", "umount"])
def test_only_what_keeps_it_from_being_used_is_an_error(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the restore is over, a disk that does not let go does not make it fail; what went wrong inside is told."""
    monkeypatch.setattr("rescue.jobs.mounting.PLACE", tmp_path)

    def answer(argv: tuple[str, ...]) -> Result | str:
        if argv[0] == failing:
            raise ProcessError(argv, 32, "target is busy")
        return lsblk(argv)

    place, used = SPARE, False
    if failing == "mount":
        with pytest.raises(ProcessError), scratch_in(place, ScriptedRunner(answer)):
            used = True
        assert not used
        return
    with scratch_in(place, ScriptedRunner(answer)):
        used = True
    assert used
    with pytest.raises(KeyError), scratch_in(place, ScriptedRunner(answer)):
        raise KeyError("the restore's own")
