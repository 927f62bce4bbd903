"""The wizard on real block devices: scratch files on a disk that it mounts, and a stick made from a stick.

The devices are loop devices; that they are disks of the machine, two of them in USB cases, is all that is made up.
"""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.events import ignore
from core.process import Result, SystemRunner
from core.units import GIB, MIB
from images.store.connect import open_repository
from rescue.jobs.capture import capture_disks
from rescue.jobs.write_usb import StickChoices, plan_stick, write_planned
from rescue.tui.jobs import SystemJobs
from tests.disk.test_loop_disks import loop
from tests.disk.test_write_usb import blank
from tests.flow.disks import need, run
from tests.flow.small import make, noise_disk, take
from tests.flow.sticks import small_iso
from tests.unit.rescue.tui.driving import Driver, wizard
from tests.unit.rescue.tui.test_screens import check

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounting need root")


class Case(msgspec.Struct, frozen=True):
    """What a loop device is said to be: a disk, in the machine or in a USB case."""

    serial: str
    usb: bool = False


class Cased:
    """Runs programs, and lets lsblk show nothing but these loop devices, as disks."""

    def __init__(self, cases: Mapping[str, Case]) -> None:
        self.cases = cases
        self._inner = SystemRunner()

    def run(self, argv: Sequence[str], **words: Any) -> Result:
        done = self._inner.run(argv, **words)
        if argv[0] != "lsblk" or "--json" not in argv:
            return done
        found = []
        for device in json.loads(done.stdout)["blockdevices"]:
            case = self.cases.get(device["name"])
            if case is not None:
                # No udev runs here that would note what is on it.
                said = {"type": "disk", "tran": "usb" if case.usb else "sata", "serial": case.serial, "model": "DISK"}
                seen = {name: tag_of(device["name"], tag) for name, tag in (("fstype", "TYPE"), ("label", "LABEL"))}
                found.append({**device, **said, **seen})
        return msgspec.structs.replace(done, stdout=json.dumps({"blockdevices": found}))


def tag_of(node: str, tag: str) -> str | None:
    words = ("blkid", "--probe", "--output", "value", "--match-tag", tag, node)
    return run(*words, success=(0, 2, 8)).strip() or None


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[ExitStack]:
    need("losetup", "sfdisk", "mke2fs", "resize2fs", "e2fsck", "mount", "umount", "blkid", "debugfs")
    with ExitStack() as stack:
        yield stack


async def to_the_target(driver: Driver, repository: Path, node: str) -> None:
    await driver.see("Rescue system", "of RAM")
    await driver.press("enter")
    await driver.see("Choose a repository", "Look again")
    await driver.press("a")
    await driver.see("Type the address")
    await driver.type(str(repository))
    await driver.press("enter")
    await driver.see("Choose a recovery point", "> 2")
    await driver.press("enter")
    await driver.see("Choose the target disk", f"> {node}")


def test_scratch_goes_to_a_usb_disk_that_is_mounted_while_the_restore_runs(
    devices: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a disk a quarter smaller, with a /tmp that has no room, as the memory of a small machine has none."""
    source, files = tmp_path / "web.img", tmp_path / "files"
    files.mkdir()
    for number in range(24):
        (files / f"file{number}").write_bytes(os.urandom(2 * MIB))
    blank(source, 160 * MIB)
    run("sfdisk", "-q", source, stdin="label: gpt\nstart=2048, size=323584, name=root\n")
    run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", files, "-E", f"offset={MIB}", source, "158M")
    repository = tmp_path / "r"
    capture_disks([source], str(repository), name="web01", runner=SystemRunner(), sink=ignore)
    target = str(devices.enter_context(loop(blank(tmp_path / "target.img", 120 * MIB))))
    spare_file = blank(tmp_path / "spare.img", 400 * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-L", "spare", spare_file)
    spare = str(devices.enter_context(loop(spare_file)))
    small = tmp_path / "tmp"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=16m", "none", small)
    devices.callback(run, "umount", small)
    monkeypatch.setattr("tempfile.tempdir", str(small))
    jobs = SystemJobs(Cased({target: Case("TARGET"), spare: Case("SPARE", usb=True)}))

    async def road() -> None:
        async with wizard(jobs) as driver:
            node = target.removeprefix("/dev/")
            await to_the_target(driver, repository, node)
            await driver.press("enter")
            await driver.see("Choose a place for scratch files", "Choose another place")
            await driver.see("not possible", f'> ext4 "spare", 400.00 MiB, on DISK ({spare})')
            check(driver)
            await driver.press("enter")
            await driver.see(f"{spare} will be mounted to write", "> No")
            await driver.press("down", "enter")
            await driver.see("Check the plan", "Scratch (F3: elsewhere): about", spare)
            check(driver)
            await driver.see(f"To go on, type: erase {node}")
            await driver.type(f"erase {node}")
            await driver.press("enter")
            await driver.see("Restore finished", "made smaller or made anew: read back as written")
            check(driver)

    try:
        asyncio.run(road())
    finally:
        jobs.close()
    assert spare not in Path("/proc/mounts").read_text()
    run("e2fsck", "-f", "-n", spare)
    names = run("debugfs", "-R", "ls -p /", spare).split()
    assert [name.split("/")[5] for name in names] == [".", "..", "lost+found"]
    with loop(tmp_path / "target.img", 512, f"--offset={MIB}", f"--sizelimit={118 * MIB}") as node:
        run("e2fsck", "-f", "-n", node)
        place = tmp_path / "restored"
        place.mkdir()
        run("mount", "-o", "ro", node, place)
        try:
            for path in files.iterdir():
                assert (place / path.name).read_bytes() == path.read_bytes()
        finally:
            run("umount", place)


def test_a_target_that_holds_another_repository_says_so(devices: ExitStack, tmp_path: Path) -> None:
    """It was mounted while it was looked into, and is not any more: nothing else would keep it from being erased."""
    repository = make(tmp_path / "r")
    take(repository, noise_disk(tmp_path / "a.img"))
    target = str(devices.enter_context(loop(blank(tmp_path / "target.img", 120 * MIB))))
    backups = blank(tmp_path / "backups.img", 120 * MIB)
    (tmp_path / "top").mkdir()
    run("cp", "-a", repository, tmp_path / "top/backups")
    run("mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "top", backups)
    other = str(devices.enter_context(loop(backups)))
    jobs = SystemJobs(Cased({target: Case("TARGET"), other: Case("BACKUPS", usb=True)}))

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_target(driver, repository, target.removeprefix("/dev/"))
            lines = [line for line in driver.lines if "a repository with 1 recovery point" in line]
            assert len(lines) == 1 and "holds" in lines[0]
            assert "BACKUPS" in driver.lines[driver.lines.index(lines[0]) - 1]
            check(driver)

    try:
        asyncio.run(road())
    finally:
        jobs.close()


def test_a_stick_is_made_from_a_stick_with_its_repository(devices: ExitStack, tmp_path: Path) -> None:
    need("xorriso", "mkfs.fat", "mkfs.exfat", "mount.exfat-fuse", "fsck.exfat", "sgdisk")
    iso = small_iso(tmp_path / "iso")
    repository = make(tmp_path / "r")
    point = take(repository, noise_disk(tmp_path / "a.img"))
    first = blank(tmp_path / "first.img", GIB + 80 * MIB)
    runner = SystemRunner()
    write_planned(plan_stick(iso, first, StickChoices(data=True), runner, ignore), runner, ignore)
    old = str(devices.enter_context(loop(first)))
    second = blank(tmp_path / "second.img", GIB + 96 * MIB)
    new = str(devices.enter_context(loop(second)))
    jobs = SystemJobs(Cased({old: Case("OLD", usb=True), new: Case("NEW", usb=True)}))
    node = new.removeprefix("/dev/")

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("of RAM")
            await driver.press("down", "down", "down", "enter")
            await driver.see("Make another rescue stick", f"W: written from: The rescue medium in {old[5:]}", node)
            # Onto itself it is not written.
            await driver.press("home")
            await driver.see(f"> {old[5:]}")
            await driver.press("enter")
            await driver.see("It cannot be the stick: it is what is written from.")
            await driver.press("r")
            await driver.see("Recovery points on the stick", "All of a repository elsewhere")
            while "Looking for repositories" in driver.text:
                await asyncio.sleep(0.05)
            await driver.press("end", "enter")
            await driver.see("Type where the repository is")
            await driver.type(str(repository))
            await driver.press("enter")
            await driver.see("[x] D: a new partition")
            await driver.press("home", "down")
            await driver.see(f"> {node}")
            await driver.press("enter")
            await driver.see("Check what is written", "DISK NEW", "1 recovery point of", f"type: erase {node}")
            check(driver)
            await driver.type(f"erase {node}")
            await driver.press("enter")
            await driver.see("The stick is ready", "Its repository has 1 recovery point.")
            check(driver)

    try:
        asyncio.run(road())
    finally:
        jobs.close()
    assert "No problems found" in run("sgdisk", "--verify", second)
    # All but the tables: what lies behind the ISO on the first stick is not the second's.
    wanted, size = iso.read_bytes(), iso.stat().st_size
    with second.open("rb") as stream:
        made = stream.read(size)
    assert (made[:440], made[32768:]) == (wanted[:440], wanted[32768:])
    assert stick_points(second, tmp_path / "mnt") == [point]


def stick_points(stick: Path, place: Path) -> list[str]:
    """Ids in the repository of the data partition, which is exFAT."""
    place.mkdir()
    [line] = [line for line in run("sfdisk", "--dump", stick).splitlines() if "LIFERAFT-DATA" in line]
    size = int(line.split("size=")[1].split(",")[0]) * 512
    with loop(stick, 512, "--read-only", f"--offset={GIB}", f"--sizelimit={size}") as node:
        run("fsck.exfat", "-n", node)
        run("mount.exfat-fuse", "-o", "ro", node, place)
        try:
            return [found.id for found in open_repository(str(place / "repository")).points()]
        finally:
            run("umount", place)
