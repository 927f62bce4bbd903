"""Debian's kernel for virtual machines, and a driver that DKMS compiles for it: the medium is built, and booted.

Its base is installed anew: minutes, and nothing when the cache has it.
"""

import json
import re
from pathlib import Path

import pytest

from builder.finished.opened import open_medium
from builder.preflight.findings import FindingKind, Severity
from builder.preflight.preflight import check_medium
from core.units import MIB
from tests.boot.console import Console
from tests.boot.lab import BOOT_TIMEOUT, blank_disk
from tests.boot.machine import Controller, Drive, Firmware, Machine
from tests.boot.restoring import FINISHED, Lab, liferaft
from tests.flow.test_preflight import AHCI, BNX2, E1000E, NVME, VIRTIO_DISK, XHCI
from tests.flow.test_preflight import machine as described

# A root shell on the second serial line: systemd-debug-generator(8).
_COMMON = 'compression = "fast"\nkernel_parameters = ["systemd.debug_shell=ttyS1"]\n'
_CLOUD = f'{_COMMON}[kernel]\nflavour = "cloud"\ndkms = ["acpi-call-dkms"]\n'


@pytest.fixture(scope="module")
def cloud(lab: Lab) -> Path:
    return lab.medium("cloud", _CLOUD)


def signers(iso: Path, lab: Lab) -> list[str]:
    """Who signed the kernel, as inspect says."""
    document = json.loads(liferaft(["inspect", str(iso), "--json"], lab.runner, success=FINISHED))
    [kernel] = [part for part in document["secure_boot"] if part["name"] == "kernel"]
    return [signer["authority"] for signer in kernel["signers"] if signer["intact"]]


def _in_a_shell(console: Console, command: str) -> str:
    """What a command says; this kernel has no 9p, by which other guests are asked."""
    console.send(f"echo said=$({command})=end\n")
    # What is typed is echoed first: that has the command in it.
    return console.expect(r"said=([^$(\n]*)=end", 120).group(1)


def test_the_cloud_kernel_starts_a_virtual_machine_and_a_driver_from_source_loads(
    cloud: Path, lab: Lab, work: Path
) -> None:
    assert signers(cloud, lab) == ["Debian Secure Boot CA"]
    drives = (
        Drive(cloud, Controller.VIRTIO, "MEDIUM", readonly=True),
        Drive(blank_disk(work / "disk.raw", 64 * MIB), Controller.VIRTIO, "TARGET"),
    )
    with Machine("cloud", Firmware.BIOS, drives).run() as running:
        rows = running.console.wait_screen(
            lambda rows: "Rescue system" in rows[0] and any("Disks:" in row for row in rows),
            "the wizard, and the disks",
            BOOT_TIMEOUT,
        )
        assert re.search(r"vd[ab] 64\.00 MiB", "\n".join(rows)), rows
        shell = running.words
        shell.expect(r"[#$] $", BOOT_TIMEOUT)
        assert _in_a_shell(shell, "uname -r").endswith("-cloud-amd64")
        assert _in_a_shell(shell, "cat /run/liferaft/medium-check") == "whole"
        assert _in_a_shell(shell, "modprobe acpi_call && ls /proc/acpi/call") == "/proc/acpi/call"
        assert re.search(r"/updates/liferaft/acpi_call\.ko", _in_a_shell(shell, "modinfo -n acpi_call"))
        assert _in_a_shell(shell, "systemctl --failed --no-legend --plain") == ""


def test_preflight_says_what_the_cloud_kernel_does_not_drive(cloud: Path, lab: Lab) -> None:
    with open_medium(cloud) as medium:
        machine = described(AHCI, BNX2, E1000E, NVME, VIRTIO_DISK, XHCI)
        report = check_medium(medium, {"pc": machine}, lab.runner).machines[0]
    lacking = {finding.modalias for finding in report.findings if finding.kind is FindingKind.DRIVER}
    # By Debian's config-*-cloud-amd64: SATA_AHCI=m, BLK_DEV_NVME=y; not set are USB_SUPPORT, E1000E and BNX2.
    assert lacking == {BNX2, E1000E, XHCI}, report.findings
    assert report.worst is Severity.BLOCKS
