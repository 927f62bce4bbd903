"""The kernel of Debian's backports: the medium is built, and firmware that enforces Secure Boot starts it.

Its base is installed anew: minutes, and nothing when the cache has it.
"""

import re
from pathlib import Path

import pytest

from core.units import MIB
from tests.boot.lab import Guest, _share, _start_agent, blank_disk
from tests.boot.machine import Controller, Drive, Firmware, Machine
from tests.boot.restoring import Lab
from tests.forms.test_cloud_kernel import signers

# A root shell on the second serial line: systemd-debug-generator(8).
_RECIPE = """
compression = "fast"
kernel_parameters = ["systemd.debug_shell=ttyS1"]
[kernel]
flavour = "backports"
"""
#: Seconds to the wizard: firmware with system management mode is slow to emulate, the more so beside other work.
_BOOT_TIMEOUT = 900


@pytest.fixture(scope="module")
def backports(lab: Lab) -> Path:
    return lab.medium("backports", _RECIPE)


def test_the_backports_kernel_starts_under_secure_boot(backports: Path, lab: Lab, work: Path) -> None:
    assert signers(backports, lab) == ["Debian Secure Boot CA"]
    shared = work / "shared"
    shared.mkdir()
    drives = (
        Drive(backports, Controller.VIRTIO, "MEDIUM", readonly=True),
        Drive(blank_disk(work / "disk.raw", 64 * MIB), Controller.NVME, "TARGET"),
    )
    extra = tuple(_share("lab", shared, ""))
    machine = Machine("backports", Firmware.UEFI, drives, extra=extra, secure_boot=True)
    with machine.run() as running:
        running.console.wait_screen(lambda rows: "Rescue system" in rows[0], "the wizard", _BOOT_TIMEOUT)
        _start_agent(running, shared, None)
        guest = Guest(shared)
        # The running kernel's package is one that was built again for the release: backports.debian.org, "Contribute".
        installed = dict(
            line.split("\t")[:2] for line in guest.check("cat /run/live/medium/liferaft/packages.txt").splitlines()
        )
        release = guest.check("uname -r").strip()
        assert re.search(r"~bpo13\+", installed[f"linux-image-{release}"]), installed
        assert "SecureBoot enabled" in guest.check("mokutil --sb-state")
        assert "[integrity]" in guest.check("cat /sys/kernel/security/lockdown")
        assert guest.check("cat /run/liferaft/medium-check").strip() == "whole"
        assert guest.check("systemctl --failed --no-legend --plain") == ""
        assert "TARGET" in guest.check("udevadm settle; lsblk -dno SERIAL")
