"""A stick with a data partition: it starts, and the wizard finds the repository that came with it, on exFAT."""

import json
from pathlib import Path

from core.units import GIB, MIB
from tests.boot.machine import Controller, Drive, Firmware, Machine
from tests.boot.restoring import Lab, liferaft
from tests.boot.wizard import WizardDriver
from tests.flow.small import make, noise_disk, take


def test_the_wizard_finds_the_repository_on_the_stick_it_was_started_from(lab: Lab, work: Path) -> None:
    repository = make(work / "repo")
    take(repository, noise_disk(work / "disk.img"))
    stick = work / "stick.img"
    with stick.open("wb") as stream:
        stream.truncate(2 * GIB)
    iso = lab.medium("stick", "")
    argv = ["write-usb", str(iso), str(stick), "--data", "--repository", str(repository), "--yes", "--json"]
    report = json.loads(liferaft(argv, lab.runner))
    assert report["data"]["filesystem"] == "exfat"
    assert report["data"]["size"] > GIB - 2 * MIB
    machine = Machine("uefi-stick", Firmware.UEFI, (Drive(stick, Controller.USB, "LRSTICK"),))
    with machine.run() as running:
        rows = WizardDriver(running.console).find_repository("1 recovery point on sda3")
    print("\n".join(rows))
    assert any("/repository" in row for row in rows)
