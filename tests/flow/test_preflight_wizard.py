"""A medium checked in the wizard by the real job, from the first screen to the document that a recipe takes."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from core.errors import StoppedError
from core.events import Event, ignore
from core.process import SystemRunner
from images.model.machine import MachineDevice
from rescue.jobs.attached_media import AttachedMedium
from rescue.jobs.preflight import THIS_MACHINE, preflight, preflight_here
from rescue.jobs.support_places import SupportPlace
from rescue.tui.jobs import SystemJobs
from tests.flow.disks import need
from tests.flow.media import make_medium, make_module, make_tree
from tests.unit.rescue.tui.driving import wizard
from tests.unit.rescue.tui.fakes import FileJobs
from tests.unit.rescue.tui.test_screens import check

AHCI = "pci:v00008086d0000A352sv00001028sd00000860bc01sc06i01"
NVME = "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02"
BNX2 = "pci:v000014E4d0000163Bsv00001028sd0000028Cbc02sc00i00"
MODULES = {
    "drivers/ata/ahci.ko": ("alias=pci:v*d*sv*sd*bc01sc06i01*",),
    "drivers/net/bnx2.ko": ("alias=pci:v000014E4d0000163Bsv*sd*bc*sc*i*", "firmware=bnx2/bnx2-mips-09-6.2.1b.fw"),
}


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A medium that drives SATA and one network card, and lacks that card's firmware."""
    need("gcc", "depmod", "mksquashfs", "unsquashfs", "xorriso", "cpio")
    folder, runner = tmp_path_factory.mktemp("preflight"), SystemRunner()
    made = {
        name: make_module(folder / "modules" / Path(name).name, runner, info=info) for name, info in MODULES.items()
    }
    (folder / "early").mkdir()
    return make_medium(folder / "iso", make_tree(folder / "tree", made, runner), folder / "early", runner)


@pytest.fixture
def jobs(iso: Path, tmp_path: Path) -> FileJobs:
    """A PC whose NVMe drive the medium in its drive does not know."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(4096))
    made = FileJobs(tmp_path / "none", disk)
    aliases = (AHCI, BNX2, NVME)
    devices = tuple(
        MachineDevice(bus="pci", address=f"0000:0{number}:00.0", modalias=alias) for number, alias in enumerate(aliases)
    )
    made.machine = msgspec.structs.replace(
        made.machine, architecture="x86_64", ram=8 << 30, modaliases=aliases, devices=devices
    )
    made.attached = (AttachedMedium(node=str(iso), name="This rescue medium, sr0"),)
    return made


def test_from_the_first_screen_to_what_mends_it(jobs: FileJobs) -> None:
    said: list[str] = []
    jobs.watch = lambda event: said.append(event.message)

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("Rescue system", "of RAM")
            await driver.press("home", "down", "down", "down", "down", "enter")
            await driver.see("Check a rescue medium", "> This rescue medium, sr0")
            await driver.press("enter")
            text = await driver.see("The medium will not do here", "1 thing stops a restore.", "2 of 3 devices")
            check(driver)
            while "Not looked at" not in driver.text:
                await driver.press("pagedown")
                text += driver.text
            assert "May not work:" in text
            read = " ".join(text.replace("│", " ").split())
            assert (
                "Stops a restore: - The storage controller 144d:a808 (0000:02:00.0) has no driver on the medium. -> "
                in read
            )
            assert "the medium lacks the file it names." in read and 'firmware.packages = ["firmware-bnx2"]' in read
            # A machine for which all is there: judged anew, because it is looked at anew.
            jobs.machine = msgspec.structs.replace(jobs.machine, modaliases=(AHCI,), devices=jobs.machine.devices[:1])
            await driver.press("escape", "enter")
            await driver.see(
                "The medium will do here", "drives everything here that a restore needs.", "1 of 1 devices"
            )

    asyncio.run(road())
    assert "Looking for drivers in live/base.squashfs" in said


def test_a_typed_netboot_folder_that_is_none_is_one_sentence(jobs: FileJobs, tmp_path: Path) -> None:
    (tmp_path / "netboot").mkdir()

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("Rescue system", "of RAM")
            await driver.press("home", "down", "down", "down", "down", "enter")
            await driver.see("> This rescue medium, sr0")
            await driver.press("down", "enter")
            await driver.see("Type the path")
            await driver.type(str(tmp_path / "netboot"))
            await driver.press("enter")
            await driver.see("That did not work", "it has no liferaft/medium.json", "What to do: liferaft build")

    asyncio.run(road())


def test_the_job_judges_this_machine_as_the_command_does(iso: Path, tmp_path: Path) -> None:
    """And what is saved of it gives the same report elsewhere."""
    need("lsblk")
    runner = SystemRunner()
    judged = SystemJobs(runner).preflight(iso, ignore)
    assert judged.report == preflight(iso, (), runner)
    assert [one.name for one in judged.report.machines] == [THIS_MACHINE]
    name = SystemJobs(runner).save_machine(SupportPlace(name="x", folder=str(tmp_path)), judged.machine)
    [elsewhere] = preflight(iso, (tmp_path / name,), runner).machines
    assert elsewhere == msgspec.structs.replace(judged.report.machines[0], name=name.removesuffix(".json"))


def test_a_check_that_is_stopped_leaves_nothing(iso: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of its steps."""
    need("lsblk")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    steps: list[str] = []
    preflight_here(iso, SystemRunner(), lambda event: steps.append(event.message))
    assert len(steps) >= 5
    for last in range(len(steps)):
        seen = 0

        def stop(event: Event, last: int = last) -> None:
            nonlocal seen
            if seen == last:
                raise StoppedError("Stopped.")
            seen += 1

        with pytest.raises(StoppedError):
            preflight_here(iso, SystemRunner(), stop)
        assert list(tmp_path.iterdir()) == []
