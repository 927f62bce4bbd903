"""Machines without a medium: QEMU's own DHCP and TFTP, nginx for the rest, a blank disk restored and booted.

The job comes from the kernel command line, which GRUB makes from the site's own settings.
"""

from pathlib import Path

import pytest

from tests.boot.machine import Controller, Drive, Firmware, Machine, Netboot
from tests.boot.restoring import (
    TARGET_SERIAL,
    Lab,
    boot_restored,
    examine,
    job,
    restore_unattended,
)
from tests.boot.server import RepositoryServer
from tests.boot.system import Source

#: Seconds from power-on until the live system is fetched.
FETCH_TIMEOUT = 600


@pytest.mark.thorough
def test_bios_over_pxe_restores_a_blank_disk_and_it_boots(lab: Lab, bios_source: Source, work: Path) -> None:
    name, controller = "bios-pxe", Controller.AHCI
    point, target, folder = lab.capture(bios_source), lab.blank_disk(name), lab.netboot_set(name)
    with lab.serve(name, folder) as server:
        _settle(folder, server, job_url=server.publish("job.json", job(server, point, "poweroff")))
        machine = _diskful(name, Firmware.BIOS, target, controller, Netboot(folder, "grub.pxe"))
        restore_unattended(machine, server, lab.timeline)
        _check_fetched(folder, server)
    examine(bios_source, target, lab.runner, lab.timeline)
    boot_restored(name, bios_source, target, controller, None, lab.timeline)


@pytest.mark.thorough
def test_uefi_over_http_alone_restores_a_blank_disk_and_it_boots(lab: Lab, uefi_source: Source, work: Path) -> None:
    """UEFI HTTP Boot: firmware, shim, GRUB, kernel and live system come from nginx; no TFTP."""
    name, controller, variables = "uefi-http", Controller.AHCI, work / "vars.fd"
    point, target, folder = lab.capture(uefi_source), lab.blank_disk(name), lab.netboot_set(name)
    with lab.serve(name, folder) as server:
        # No base: it follows from the server that answered, port and all.
        _settle(folder, None, job_url=server.publish("job.json", job(server, point, "poweroff")))
        boot = Netboot(work, server.url("bootx64.efi"))
        restore_unattended(_diskful(name, Firmware.UEFI, target, controller, boot, variables), server, lab.timeline)
        _check_fetched(folder, server)
        assert any("GET /live/vmlinuz" in line for line in server.requests())
    examine(uefi_source, target, lab.runner, lab.timeline)
    boot_restored(name, uefi_source, target, controller, variables, lab.timeline)


def test_uefi_over_pxe_with_secure_boot_fetches_the_live_system(lab: Lab) -> None:
    """Microsoft's keys enforced: shim, Debian's GRUB and kernel over TFTP, the layers over HTTP, then the wizard."""
    name = "uefi-pxe"
    folder = lab.netboot_set(name)
    with lab.serve(name, folder) as server:
        _settle(folder, server)
        machine = Machine(
            f"{name}-rescue",
            Firmware.UEFI,
            (),
            memory=768,
            netboot=Netboot(folder, "bootx64.efi"),
            secure_boot=True,
        )
        with machine.run() as running:
            running.console.wait_screen(
                lambda rows: "Rescue system" in rows[0] and any("Restore a machine" in row for row in rows),
                "the wizard",
                FETCH_TIMEOUT,
            )
        _check_fetched(folder, server)


def _diskful(
    name: str, firmware: Firmware, target: Path, controller: Controller, boot: Netboot, variables: Path | None = None
) -> Machine:
    drives = (Drive(target, controller, TARGET_SERIAL),)
    return Machine(f"{name}-rescue", firmware, drives, variables, netboot=boot)


def _settle(folder: Path, server: RepositoryServer | None, job_url: str = "") -> None:
    """The site's settings, as README.txt tells an administrator to write them."""
    lines = [f"set base={server.url('').rstrip('/')}"] if server else []
    lines += [f"set job={job_url}"] if job_url else []
    (folder / "site" / "site.cfg").write_text("\n".join(lines) + "\n")


def _check_fetched(folder: Path, server: RepositoryServer) -> None:
    """nginx gave out every layer whole, and nothing of the live system came from elsewhere."""
    for layer in (folder / "live" / "filesystem.module").read_text().split():
        size = (folder / "live" / layer).stat().st_size
        assert any(f'"GET /live/{layer} HTTP/1.1" 200 {size} ' in line for line in server.requests()), layer
