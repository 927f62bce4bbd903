"""Deciding about single partitions in the wizard, and where scratch files go when one of them is made smaller."""

import asyncio
import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.errors import LiferaftError, UnreachableError
from core.events import Event, ignore
from core.process import SystemRunner, find_tool
from rescue.jobs.capture import capture_disks
from rescue.jobs.scratch_places import ScratchPlace
from rescue.tui.messages import Placed, Wanted
from restore.planning.draft import Draft
from tests.unit.rescue.tui.driving import Driver, wizard
from tests.unit.rescue.tui.fakes import FileJobs
from tests.unit.rescue.tui.test_screens import check

MIB = 1 << 20
_TABLE = "label: gpt\nstart=2048, size=81920, name=root\nstart=83968, size=8192, name=swap\nstart=92160, size=20480\n"


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a disk of 64 MiB: root (40 MiB, ext4), swap (4 MiB), data (10 MiB, ext4)."""
    for tool in ("sfdisk", "mke2fs", "mkswap"):
        if find_tool(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("three")
    image = folder / "web01.img"
    with image.open("wb") as stream:
        stream.truncate(64 * MIB)
    subprocess.run(["/usr/sbin/sfdisk", "-q", str(image)], input=_TABLE, text=True, check=True)
    for label, start, size in (("root", 1, 40), ("data", 45, 10)):
        mkfs = ["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-E", f"offset={start * MIB}"]
        subprocess.run([*mkfs, str(image), f"{size}M"], check=True)
    swap = folder / "swap"
    with swap.open("wb") as stream:
        stream.truncate(4 * MIB)
    subprocess.run(["/usr/sbin/mkswap", "-q", "-L", "swap", str(swap)], check=True, capture_output=True)
    with image.open("r+b") as stream:
        stream.seek(41 * MIB)
        stream.write(swap.read_bytes())
    capture_disks([image], str(folder / "backups"), name="web01", runner=SystemRunner(), sink=ignore)
    return folder / "backups"


@pytest.fixture
def jobs(three: Path, target: Path) -> FileJobs:
    """One free disk of 96 MiB."""
    return FileJobs(three, target)


async def to_the_target(driver: Driver) -> None:
    await driver.see("Rescue system", "of RAM")
    await driver.press("enter")
    await driver.see("1 recovery point on")
    await driver.press("enter")
    await driver.see("Choose a recovery point", "> 2")
    await driver.press("enter")
    await driver.see("Choose the target disk", "> target", "[ ] Decide about each partition")
    await driver.press("p")
    await driver.see("[x] Decide about each partition")


async def to_the_partitions(driver: Driver) -> None:
    await to_the_target(driver)
    await driver.press("enter")
    await driver.see("Decide about each partition", "> Go on with these partitions")


def bars(driver: Driver) -> tuple[str, str]:
    """The maps before and after."""
    was, new = (line.strip("│ ") for line in driver.lines if "was |" in line or "new " in line)
    return was.removeprefix("was "), new.removeprefix("new ")


def row(driver: Driver, number: int) -> str:
    (found,) = (line.strip("│> ") for line in driver.lines if line.strip("│> ").startswith(f"{number} "))
    return found


def partitions(image: Path) -> list[tuple[int, int]]:
    """Start and size of each partition, MiB, as sfdisk reads them."""
    said = subprocess.run(["/usr/sbin/sfdisk", "--json", str(image)], capture_output=True, text=True, check=True)
    found = json.loads(said.stdout)["partitiontable"]["partitions"]
    return [(part["start"] * 512 // MIB, part["size"] * 512 // MIB) for part in found]


def test_what_is_decided_is_shown_planned_and_done(jobs: FileJobs, target: Path) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            check(driver)
            assert bars(driver)[0].count("|") >= 4
            assert "40.00 MiB -> 40.00 MiB" in " ".join(row(driver, 1).split())
            before = bars(driver)
            # The data: grown into what is left.
            await driver.press("end", "enter")
            await driver.see('Partition 3 of disk0: ext4 "data", 10.00 MiB', "Leave out")
            check(driver)
            await driver.press("home", "down", "down", "enter")
            await driver.see("grow: grown")
            assert bars(driver) != before
            assert bars(driver)[0] == before[0]
            # The swap: left out.
            await driver.press("home", "down", "down", "down", "enter")
            await driver.see('Partition 2 of disk0: swap "swap"')
            await driver.press("end", "enter")
            await driver.see("leave out: left out", "grow: grown")
            check(driver)
            await driver.press("home", "enter")
            await driver.see("Check the plan", "To go on, type: erase target.img")
            # Back, and everything is as it was decided.
            await driver.press("escape")
            await driver.see("leave out: left out", "grow: grown")
            await driver.press("home", "enter")
            await driver.see("Check the plan", "To go on, type: erase target.img")
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore finished")

    asyncio.run(road())
    assert [call for call in jobs.calls if call.startswith("plan")][-1] == (
        "plan grow=False verify=True disk0:2=drop disk0:3=grow"
    )
    root, data = partitions(target)
    assert root == (1, 40)
    assert data[0] + data[1] >= 94


def test_what_cannot_be_is_said_and_not_gone_on_with(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await driver.press("end", "up", "enter")
            await driver.see("Partition 2 of disk0")
            # Swap has nothing that a smaller partition could be computed from.
            await driver.press("home", "down", "down", "down", "enter")
            await driver.see("It cannot be so:", "cannot be made smaller", "(does not fit)")
            check(driver)
            await driver.press("home", "enter")
            await driver.see("It cannot be so:", "Decide about each partition")
            await driver.press("end", "up", "enter")
            await driver.press("home", "enter")
            await driver.see("> ", "new |")
            # A disk is no choice.
            await driver.press("home", "down", "enter")
            await driver.see("Choose one of its partitions or volumes, or go on.")
            await driver.press("escape")
            await driver.see("Choose the target disk")

    asyncio.run(road())
    assert not [call for call in jobs.calls if call.startswith(("plan", "run"))]


def test_a_size_is_typed(jobs: FileJobs, target: Path) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await driver.press("end", "enter")
            await driver.see('Partition 3 of disk0: ext4 "data", 10.00 MiB', "A size that you type")
            await driver.press("home", "down", "down", "down", "down")
            # The second Enter is for the list that is left by the first.
            await driver.burst("enter", "enter")
            await driver.see("It had 10.00 MiB. Type a size", "Esc: back to the choices")
            check(driver)
            for words, said in (
                ("", "'' is not a size."),
                ("12 hens", "'12 hens' is not a size."),
                ("0", "No partition has 0 bytes."),
                ("10 MiB", "It has that size already."),
            ):
                await driver.press("ctrl+u")
                await driver.type(words)
                await driver.press("enter")
                await driver.see(said)
            # Esc goes back one step at a time, and nothing was decided.
            await driver.press("escape")
            await driver.see("> A size that you type")
            await driver.press("enter")
            await driver.see("Type a size")
            await driver.type("32 MiB")
            await driver.press("enter")
            await driver.see("10.00 MiB ->  32.00 MiB to size: grown", "> 3")
            check(driver)
            # Decided again, what was typed is there.
            await driver.press("enter")
            await driver.see("> A size that you type")
            await driver.press("enter")
            await driver.see("Type a size", "32 MiB")
            # Rounded, it would be another size: 32.23 MiB is 3.5 KiB more.
            await driver.press("ctrl+u")
            await driver.type("33000 KiB")
            await driver.press("enter")
            await driver.see("33.00 MiB to size: grown", "> 3")
            await driver.press("enter")
            await driver.see("> A size that you type")
            await driver.press("enter")
            await driver.see("Type a size", "33000 KiB")
            await driver.press("enter")
            await driver.see("33.00 MiB to size: grown", "> 3")
            await driver.press("enter")
            await driver.see("> A size that you type")
            await driver.press("enter")
            await driver.see("Type a size", "33000 KiB")
            await driver.press("ctrl+u")
            await driver.type("90 MiB")
            await driver.press("enter")
            await driver.see("It cannot be so: disk0 to", "(does not fit)")
            check(driver)
            await driver.press("enter", "enter")
            await driver.see("Type a size")
            await driver.press("ctrl+u")
            await driver.type("24m")
            await driver.press("enter")
            await driver.see("24.00 MiB to size: grown")
            await driver.press("home", "enter")
            await driver.see("Check the plan", "To go on, type: erase target.img")
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore finished")

    asyncio.run(road())
    assert partitions(target)[2] == (45, 24)
    # Typed, and taken as it stood there.
    assert jobs.calls.count(f"draft disk0:3=grow:{33000 * 1024}") == 2


def test_two_escapes_in_a_burst_cost_no_decision(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await driver.press("end", "enter")
            await driver.see("Partition 3 of disk0")
            await driver.press("home", "down", "down", "enter")
            await driver.see("grow: grown")
            await driver.burst("escape", "escape")
            await driver.see("Choose a recovery point", "> 2")
            await driver.press("enter")
            await driver.see("Choose the target disk", "> target", "[x] Decide about each partition")
            await driver.press("v", "enter")
            await driver.see("Decide about each partition", "grow: grown")
            await driver.burst("escape", "escape", "escape", "escape", "escape")
            await driver.see("Rescue system", "of RAM")
            await driver.press("enter")
            await driver.see("1 recovery point on")
            await driver.press("enter")
            await driver.see("> 2")
            await driver.press("enter")
            await driver.see("[x] Decide about each partition", "[ ] Read everything back")
            await driver.press("enter")
            await driver.see("grow: grown", "> Go on")
            await driver.press("enter")
            await driver.see("Check the plan", "will not be read back")

    asyncio.run(road())
    assert jobs.calls[-1] == "plan grow=False verify=False disk0:3=grow"


def test_a_place_for_scratch_is_chosen_when_the_first_has_no_room(jobs: FileJobs, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        raise LiferaftError("That is far enough.")

    jobs.watch = stop
    spare = tmp_path / "spare"
    spare.mkdir()
    jobs.cramped = "making filesystems smaller takes about 32.00 MiB of scratch, and /tmp has 1.00 MiB free"
    jobs.scratch = (
        ScratchPlace(name="/tmp, as it goes by itself", folder="/tmp", reason="it has 1.00 MiB free"),
        ScratchPlace(name=f"{spare}, ext4 on /dev/sdc1", folder=str(spare)),
        ScratchPlace(name='ext4 "spare", 1.00 TiB, on T7 (/dev/sdd1)', device="/dev/sdd1", kind="ext4"),
    )

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await driver.press("home", "down", "down", "enter")
            await driver.see("Partition 1 of disk0")
            await driver.press("home", "down", "down", "down", "enter")
            await driver.see("shrink: made smaller")
            await driver.press("home", "enter")
            await driver.see("Choose a place for scratch files", "Choose another place", "1.00 MiB free")
            check(driver)
            await driver.press("home", "enter")
            await driver.see("It will not do: it has 1.00 MiB free.")
            await driver.press("down", "enter")
            await driver.see("Check the plan", "Scratch (F3: elsewhere): about", str(spare)[:12])
            await driver.press("f3")
            await driver.see("Choose a place for scratch files")
            await driver.press("escape")
            await driver.see("Check the plan", "Scratch (F3: elsewhere): about")
            check(driver)
            await driver.press("f3")
            await driver.see("> /", str(spare)[:20])
            await driver.press("enter")
            await driver.see("Check the plan", "To go on, type: erase target.img")
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore failed", "far enough")

    asyncio.run(road())
    assert jobs.calls[-1] == f"run {spare}"
    assert [Path(node).name for node in jobs.erased] == ["target.img"]


def test_scratch_that_fits_is_said_and_may_go_elsewhere(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await driver.press("home", "enter")
            await driver.see("Check the plan", "To go on, type: erase target.img")
            assert "Scratch" not in driver.text
            await driver.press("f3")
            await driver.see("Check the plan")

    asyncio.run(road())


def test_a_second_enter_of_a_burst_is_no_choice_of_the_list_that_comes(jobs: FileJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await driver.press("end")
            await driver.burst("enter", "enter")
            await driver.see("Partition 3 of disk0", "> As needed")
            check(driver)
            # The disk cannot be chosen; the choices that have come meanwhile know nothing of it.
            await driver.press("escape", "up")
            await driver.burst("enter", "up", "up", "enter")
            await driver.see("Partition 2 of disk0", "> As needed")
            await driver.press("escape", "home")
            await driver.burst("enter", "enter")
            await driver.see("Check the plan", "To go on, type: erase target.img")
            await driver.press("escape")
            await driver.see("> Go on with these partitions")

    asyncio.run(road())


class SlowJobs(FileJobs):
    """Drafts wait for the gate, and fail with ``broken``."""

    def __init__(self, repository: Path, target: Path) -> None:
        super().__init__(repository, target)
        self.gate = threading.Event()
        self.gate.set()
        self.broken = ""

    def draft(self, repository: str, point: str, placed: Sequence[Placed], wanted: Wanted) -> Draft:
        made = super().draft(repository, point, placed, wanted)
        assert self.gate.wait(30)
        if self.broken:
            raise UnreachableError(self.broken)
        return made


@pytest.fixture
def slow(three: Path, target: Path) -> SlowJobs:
    return SlowJobs(three, target)


def test_a_draft_that_comes_late_leaves_the_open_choices_alone(slow: SlowJobs) -> None:
    async def road() -> None:
        async with wizard(slow) as driver:
            await to_the_partitions(driver)
            slow.gate.clear()
            await driver.press("end", "enter")
            await driver.see("Partition 3 of disk0")
            await driver.press("home", "down", "down", "enter")
            await driver.see("Looking what fits where")
            await driver.press("end", "up", "enter")
            await driver.see("Partition 2 of disk0")
            await driver.press("end")
            await driver.see("> Leave out", "Looking what fits where")
            slow.gate.set()
            while "Looking what fits where" in driver.text:
                await asyncio.sleep(0.02)
            await driver.see("Partition 2 of disk0", "> Leave out")
            check(driver)
            await driver.press("enter")
            await driver.see("leave out: left out", "grow: grown")

    asyncio.run(road())


def test_what_was_decided_stays_when_it_cannot_be_looked_what_fits(slow: SlowJobs) -> None:
    async def road() -> None:
        async with wizard(slow) as driver:
            await to_the_partitions(driver)
            await driver.press("end", "enter")
            await driver.see("Partition 3 of disk0")
            await driver.press("home", "down", "down", "enter")
            await driver.see("grow: grown")
            slow.broken = "The server does not answer: " + "http://backup.example/ " * 20
            await driver.press("end", "up", "enter")
            await driver.see("Partition 2 of disk0")
            await driver.press("end", "enter")
            await driver.see("Decide about each partition", "The server does not answer", "Look again what fits where")
            check(driver)
            # What is shown is not of these decisions: no way on, and no size.
            assert "Go on with these partitions" not in driver.text
            assert row(driver, 2).split()[-4:] == ["->", "?", "leave", "out"]
            slow.broken = ""
            await driver.press("home", "enter")
            await driver.see("leave out: left out", "grow: grown", "> Go on with these partitions")

    asyncio.run(road())


def test_the_first_look_that_fails_says_why(slow: SlowJobs) -> None:
    slow.broken = "The server does not answer."

    async def road() -> None:
        async with wizard(slow) as driver:
            await to_the_target(driver)
            await driver.press("enter")
            await driver.see("That did not work", "The server does not answer.")

    asyncio.run(road())


def test_what_is_mounted_to_write_is_asked_for_on_its_own(jobs: FileJobs) -> None:
    jobs.cramped = "making filesystems smaller takes about 32.00 MiB of scratch, and /tmp has 1.00 MiB free"
    jobs.scratch = (ScratchPlace(name='ext4 "spare", 1.00 TiB, on T7 (/dev/sdd1)', device="/dev/sdd1", kind="ext4"),)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_partitions(driver)
            await driver.press("home", "down", "down", "enter")
            await driver.see("Partition 1 of disk0")
            await driver.press("home", "down", "down", "down", "enter")
            await driver.see("shrink: made smaller")
            await driver.press("home", "enter")
            await driver.see("Choose a place for scratch files", "> ext4")
            await driver.burst("enter", "enter", "enter")
            await driver.see("/dev/sdd1 will be mounted to write", "> No")
            check(driver)
            await driver.press("enter")
            await driver.see("> ext4", "Look again")
            await driver.press("enter")
            await driver.see("> No", "Yes")
            await driver.press("escape")
            await driver.see("> ext4", "Look again")
            await driver.press("enter")
            await driver.see("> No", "Yes")
            await driver.press("down", "enter")
            await driver.see("Check the plan", "Scratch (F3: elsewhere): about", "/dev/sdd1")
            # It is kept, but not when another disk has the name by then.
            await driver.press("escape")
            await driver.see("shrink: made smaller")
            await driver.press("home", "enter")
            await driver.see("Check the plan", "Scratch (F3: elsewhere): about", "/dev/sdd1")
            jobs.scratch = ()
            await driver.press("escape")
            await driver.see("shrink: made smaller")
            await driver.press("home", "enter")
            await driver.see("Choose a place for scratch files", "/dev/sdd1 is not there any more")
            # Nor is it asked about when nothing is made smaller any more.
            await driver.press("escape")
            await driver.see("shrink: made smaller", "> Go on with these partitions")
            await driver.press("home", "down", "down", "enter")
            await driver.see("Partition 1 of disk0")
            await driver.press("home", "enter")
            while "shrink: made smaller" in await driver.see("Decide about each partition"):
                await asyncio.sleep(0.02)
            await driver.press("home", "enter")
            await driver.see("Check the plan", "To go on, type: erase target.img")
            assert "Scratch" not in driver.text

    asyncio.run(road())
