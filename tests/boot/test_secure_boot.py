"""Secure Boot as machines are sold: Microsoft's keys enrolled and enforced, and the medium starts all the same."""

from tests.boot.machine import Controller, Drive, Firmware, Machine
from tests.boot.restoring import Lab

#: Seconds from power-on to a shell; OVMF in system management mode is slow under emulation.
BOOT_TIMEOUT = 240
#: A root shell on the second serial line: systemd-debug-generator(8).
_RECIPE = 'kernel_parameters = ["systemd.debug_shell=ttyS1"]\n'


def test_firmware_enforces_it_and_the_rescue_system_says_so(lab: Lab) -> None:
    medium = Drive(lab.medium("secure-boot", _RECIPE), Controller.CDROM)
    machine = Machine("secure-boot", Firmware.UEFI, (medium,), secure_boot=True)
    with machine.run() as running:
        running.words.expect(r"[#$] $", BOOT_TIMEOUT)
        # What mokutil reads from the firmware, and what the kernel made of it: unsigned modules are refused.
        running.words.send("mokutil --sb-state; cat /sys/kernel/security/lockdown; echo said-it\n")
        running.words.expect(r"^SecureBoot enabled\s*$", 60, against="SecureBoot disabled|not found")
        running.words.expect(r"\[integrity\]", 30, against=r"\[none\]")
