"""The proof: a captured Debian comes back on a blank, larger disk on another controller, and boots from it alone.

Four cells cover both firmwares, both controllers, both media and the three ways to start a restore.
"""

from pathlib import Path

import pytest

from tests.boot.machine import Controller, Drive
from tests.boot.restoring import (
    Lab,
    boot_restored,
    examine,
    job,
    recipe_with_job,
    recipe_with_url,
    rescue_machine,
    restore_by_hand,
    restore_unattended,
)
from tests.boot.system import Source


@pytest.mark.thorough
def test_uefi_from_cd_to_ahci_with_a_job_named_on_the_kernel_command_line(
    lab: Lab, uefi_source: Source, work: Path
) -> None:
    name, controller = "uefi-cd-ahci", Controller.AHCI
    point, target, variables = lab.capture(uefi_source), lab.blank_disk(name), work / "vars.fd"
    with lab.serve(name) as server:
        url = server.publish("job.json", job(server, point, "poweroff"))
        medium = Drive(lab.medium(name, recipe_with_url(url)), Controller.CDROM)
        machine = rescue_machine(name, uefi_source, medium, target, controller, variables)
        restore_unattended(machine, server, lab.timeline)
    examine(uefi_source, target, lab.runner, lab.timeline)
    # The same machine: what boot repair wrote into its UEFI variables counts.
    boot_restored(name, uefi_source, target, controller, variables, lab.timeline)


def test_uefi_from_usb_to_nvme_with_a_job_in_the_recipe(lab: Lab, uefi_source: Source) -> None:
    name, controller = "uefi-usb-nvme", Controller.NVME
    point, target = lab.capture(uefi_source), lab.blank_disk(name)
    with lab.serve(name) as server:
        recipe = recipe_with_job(job(server, point, "reboot"))
        medium = Drive(lab.medium(name, recipe), Controller.USB, "LRSTICK")
        machine = rescue_machine(name, uefi_source, medium, target, controller, None)
        restore_unattended(machine, server, lab.timeline)
    examine(uefi_source, target, lab.runner, lab.timeline)
    # Another mainboard: blank UEFI variables, so the disk must be found by its fallback path.
    boot_restored(name, uefi_source, target, controller, None, lab.timeline)


@pytest.mark.thorough
def test_bios_from_cd_to_nvme_with_a_job_in_the_recipe(lab: Lab, bios_source: Source) -> None:
    name, controller = "bios-cd-nvme", Controller.NVME
    point, target = lab.capture(bios_source), lab.blank_disk(name)
    with lab.serve(name) as server:
        recipe = recipe_with_job(job(server, point, "poweroff"))
        medium = Drive(lab.medium(name, recipe), Controller.CDROM)
        machine = rescue_machine(name, bios_source, medium, target, controller, None)
        restore_unattended(machine, server, lab.timeline)
    examine(bios_source, target, lab.runner, lab.timeline)
    boot_restored(name, bios_source, target, controller, None, lab.timeline)


def test_bios_from_usb_to_ahci_through_the_wizard_on_the_serial_line(lab: Lab, bios_source: Source) -> None:
    name, controller = "bios-usb-ahci", Controller.AHCI
    lab.capture(bios_source)
    target = lab.blank_disk(name)
    with lab.serve(name) as server:
        medium = Drive(lab.medium(name, ""), Controller.USB, "LRSTICK")
        machine = rescue_machine(name, bios_source, medium, target, controller, None)
        restore_by_hand(machine, server, bios_source.firmware, lab.timeline)
    examine(bios_source, target, lab.runner, lab.timeline)
    boot_restored(name, bios_source, target, controller, None, lab.timeline)
