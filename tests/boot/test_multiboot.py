"""The ISO as a file on a stick with other systems: GRUB's loopback, ``findiso=``, and what a person can do from there.

Two boots with BIOS and two with UEFI, the ISO on FAT and on exFAT; of UEFI's the first with Secure Boot.
"""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from core.process import Runner
from core.units import MIB
from tests.boot.lab import Guest, _share, _start_agent, blank_disk
from tests.boot.machine import Controller, Drive, Firmware, Machine
from tests.boot.multiboot import DATA_OFFSET, Holds, Start, make_stick
from tests.boot.restoring import Lab
from tests.boot.wizard import WizardDriver

pytestmark = pytest.mark.thorough

_SERIAL = "LRMULTI"
_BIOS, _UEFI, _SECURE = Start(Firmware.BIOS), Start(Firmware.UEFI), Start(Firmware.UEFI, signed=True)


def _boot(holds: Holds, start: Start, lab: Lab, work: Path) -> tuple[Machine, Path, Path]:
    """The machine, its stick, and the folder that it shares with this one."""
    # A root shell on the second serial line: systemd-debug-generator(8).
    iso = lab.medium("preflight", 'kernel_parameters = ["systemd.debug_shell=ttyS1"]\n')
    stick, shared = make_stick(work / "multi.raw", iso, holds, start, lab.runner), work / "shared"
    shared.mkdir()
    drives = (
        Drive(stick, Controller.USB, _SERIAL),
        Drive(blank_disk(work / "disk.raw", 64 * MIB), Controller.VIRTIO, "OTHER"),
    )
    extra = tuple(_share("lab", shared, ""))
    name = f"multiboot-{start.firmware}-{holds}"
    machine = Machine(name, start.firmware, drives, extra=extra, secure_boot=start.signed)
    return machine, stick, shared


@pytest.mark.parametrize(
    ("holds", "start"),
    [(Holds.FAT, _BIOS), (Holds.EXFAT, _BIOS), (Holds.FAT, _SECURE), (Holds.EXFAT, _UEFI)],
    ids=["bios-fat", "bios-exfat", "uefi-secure-fat", "uefi-exfat"],
)
def test_it_starts_from_a_file_and_proves_itself(holds: Holds, start: Start, lab: Lab, work: Path) -> None:
    machine, stick, shared = _boot(holds, start, lab, work)
    with machine.run() as running:
        WizardDriver(running.console).save_support_bundle("STICK")
        _start_agent(running, shared, None)
        guest = Guest(shared)
        _check_firmware(guest, start)
        _check_system(guest, holds)
        guest.check("systemd-run -q --on-active=1 systemctl poweroff")
        running.wait_off(120)
    _check_bundle(stick, holds, work, lab.runner)


def _check_firmware(guest: Guest, start: Start) -> None:
    """What started it, by the kernel and by mokutil; with Secure Boot the kernel is locked down (lockdown(7))."""
    assert guest.run("test -d /sys/firmware/efi").code == (0 if start.firmware is Firmware.UEFI else 1)
    if start.firmware is Firmware.UEFI:
        state = guest.check("mokutil --sb-state; cat /sys/kernel/security/lockdown")
        assert ("SecureBoot enabled" in state and "[integrity]" in state) is start.signed, state


def _check_system(guest: Guest, holds: Holds) -> None:
    """Where the system runs from, by the kernel and its tools; what liferaft says of the medium and of the stick."""
    medium, stick = guest.check(
        "findmnt -nro SOURCE /run/live/medium; findmnt -nro SOURCE,FSTYPE,OPTIONS /run/live/findiso"
    ).splitlines()
    assert guest.check(f"losetup -nO BACK-FILE {medium}").strip() == f"/run/live/findiso{holds.iso_path}"
    node, kind, options = stick.split()
    # Again after the bundle was written.
    assert kind == holds and "ro" in options.split(",")
    guest.check("echo 3 >/proc/sys/vm/drop_caches; python3 -m zipfile -t /run/live/findiso/liferaft-support-*.zip")
    assert guest.check(f"lsblk -dno SERIAL /dev/$(lsblk -dno PKNAME {node})").strip() == _SERIAL
    assert guest.check("cat /run/liferaft/medium-check").strip() == "whole"
    tested = guest.check("liferaft self-test 2>&1", 400)
    assert re.search(r"every file is what was written \(\d", tested) and "The result: GOOD" in tested, tested
    # The stick that the system runs from is no target; the other disk is one.
    machine = json.loads(guest.check("liferaft probe --json"))
    obstacles = {disk["identity"]["serial"]: disk.get("obstacles", []) for disk in machine["disks"]}
    assert obstacles["OTHER"] == [] and obstacles[_SERIAL], obstacles


def _check_bundle(stick: Path, holds: Holds, work: Path, runner: Runner) -> None:
    """The filesystem is clean by its own tool, and the bundle is on it."""
    volume = work / "volume"
    with stick.open("rb") as stream, volume.open("wb") as copy:
        stream.seek(DATA_OFFSET)
        shutil.copyfileobj(stream, copy)
    if holds is Holds.EXFAT:
        # Nothing here reads files out of exFAT, as the guest did: the name, 15 characters of UTF-16 to an entry.
        assert "liferaft-suppor".encode("utf-16-le") in volume.read_bytes()
        runner.run(["fsck.exfat", "-n", str(volume)])
        return
    runner.run(["fsck.fat", "-n", str(volume)])
    runner.run(["mcopy", "-i", str(volume), "::/liferaft-support-*.zip", str(work / "bundle.zip")])
    with zipfile.ZipFile(work / "bundle.zip") as bundle:
        assert bundle.testzip() is None and "contents.json" in bundle.namelist()
