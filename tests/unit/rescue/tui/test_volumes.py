"""Deciding about logical volumes in the wizard: below their group, with what its room becomes. Sizes by hand.

No device-mapper is needed: the third partition of a captured disk is said to be a physical volume.
"""

import asyncio
from pathlib import Path

import msgspec
import pytest

from core.units import MIB
from images.model.filesystem import Filesystem
from images.model.layout import FilesystemKind
from images.model.manifest import Manifest
from images.model.stack import LogicalVolume, PhysicalVolume, VolumeGroup
from images.store.repository import Repository
from tests.unit.rescue.tui.driving import Driver, wizard
from tests.unit.rescue.tui.fakes import FileJobs
from tests.unit.rescue.tui.test_partitions import three, to_the_partitions
from tests.unit.rescue.tui.test_screens import check

__all__ = ["three"]


def volume(name: str, size: int, kind: FilesystemKind) -> LogicalVolume:
    filesystem = Filesystem(kind=kind)
    return LogicalVolume(
        id=f"lv-{name}", name=name, uuid=name, size=size * MIB, segments=("linear",), filesystem=filesystem
    )


#: On the partition of 10 MiB: 9 MiB of room, of which one is free.
GROUP = VolumeGroup(
    id="vg0",
    uuid="v",
    name="vg",
    extent_size=MIB,
    members=(PhysicalVolume(device="disk0-part3", uuid="p", size=10 * MIB, data_offset=MIB),),
    volumes=(
        volume("sys", 3, FilesystemKind.EXT4),
        volume("home", 4, FilesystemKind.EXT4),
        volume("odd", 1, FilesystemKind.UNKNOWN),
    ),
    backup="",
)


@pytest.fixture
def jobs(three: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> FileJobs:
    real = Repository.manifest

    def manifest(self: Repository, point: str) -> Manifest:
        found = real(self, point)
        return msgspec.structs.replace(found, layout=msgspec.structs.replace(found.layout, containers=(GROUP,)))

    monkeypatch.setattr(Repository, "manifest", manifest)
    return FileJobs(three, target)


def row(driver: Driver, words: str) -> str:
    """The row of a volume, its words one blank apart."""
    (found,) = (line for line in driver.lines if f" {words} " in line and "->" in line)
    return " ".join(found.strip("│> ").split())


async def decide(driver: Driver, ups: int, name: str, *keys: str) -> None:
    """About the volume that lies so many rows above the last."""
    await driver.press("end", *("up",) * ups, "enter")
    await driver.see(f"Volume vg/{name}: ")
    await driver.press("home", *keys, "enter")


def test_volumes_stand_below_their_group_and_take_its_room(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await driver.see("vg on partition 3 of disk0, 9.00 MiB, will have 9.00 MiB")
            check(driver)
            assert row(driver, "sys") == "1 ext4 sys 3.00 MiB -> 3.00 MiB"
            await decide(driver, 1, "home", "down")
            # The partition reaches from 45 to 95 MiB then: its group has 49 MiB, 40 more, and they are home's.
            await driver.see("will have 49.00 MiB", "grow: grown")
            check(driver)
            assert row(driver, "home") == "2 ext4 home 4.00 MiB -> 44.00 MiB grow: grown"
            assert row(driver, "sys") == "1 ext4 sys 3.00 MiB -> 3.00 MiB"
            await driver.press("home", "enter")
            await driver.see("liferaft - ")
            while not any(call.startswith("plan") for call in jobs.calls):
                await asyncio.sleep(0.02)

    asyncio.run(road())
    assert [call for call in jobs.calls if call.startswith("plan")] == ["plan grow=False verify=True vg/home=grow"]


def test_what_a_volume_cannot_is_said_in_the_plans_words(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await decide(driver, 0, "odd", "down")
            await driver.see("It cannot be so: vg/odd cannot grow: what lies on it cannot be grown by this")
            check(driver)
            assert row(driver, "odd") == "3 unknown odd 1.00 MiB -> - grow"
            await driver.press("enter")
            await driver.see("> Grow: takes all the room that its group gains")
            check(driver)
            await driver.press("home", "enter")
            await driver.see("will have 9.00 MiB", "Go on with these partitions")
            # Left out with its partition, the group still shows what was decided about its volumes.
            await decide(driver, 1, "home", "down")
            await driver.see("grow: grown")
            await driver.press("end", *("up",) * 4, "enter")
            await driver.see("Partition 3 of disk0")
            await driver.press("end", "enter")
            await driver.see("It cannot be so: there is a rule for vg/home, and its group is left out")
            check(driver)
            await decide(driver, 1, "home")
            await driver.see("leave out: left out", "(left out, or does not fit)")
            check(driver)

    asyncio.run(road())


def test_rules_of_another_choice_of_disks_do_not_stand_in_the_way(
    jobs: FileJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await decide(driver, 1, "home", "down")
            await driver.see("grow: grown")
            await driver.press("escape")
            await driver.see("Choose the target disk", "[x] Decide")
            # Now the recovery point is shown without the group: nothing is asked for a volume that is not there.
            monkeypatch.undo()
            await driver.press("enter")
            await driver.see("Decide about each partition", "> Go on with these partitions")
            assert "vg" not in driver.text

    asyncio.run(road())
    assert jobs.calls[-1] == "draft"


def test_a_decision_with_which_nothing_can_be_said_is_undone_after_going_back(jobs: FileJobs) -> None:
    """Here LVM's metadata are damaged, which counts when the group becomes smaller. The decision is kept, and so it
    must not keep anybody from the list in which it is made."""

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await driver.press("end", *("up",) * 4, "enter")
            await driver.see("Partition 3 of disk0")
            await driver.press("home", "down", "down", "down", "down", "enter")
            await driver.see("Type a size")
            await driver.type("6 MiB")
            await driver.press("enter")
            await driver.see("What fits where is not known: LVM's metadata", "? to size")
            await driver.press("escape")
            await driver.see("Choose the target disk", "[x] Decide")
            await driver.press("enter")
            await driver.see("What fits where is not known: LVM's metadata", "? to size", "Look again what fits where")
            check(driver)
            await driver.press("end", *("up",) * 4, "enter")
            await driver.see("Partition 3 of disk0", "> A size that you type")
            await driver.press("home", "enter")
            await driver.see("will have 9.00 MiB", "Go on with these partitions")

    asyncio.run(road())
