"""The lab itself: the sources boot from virtio, and a plain copy of them on another controller does not.

Without the second fact the restored machines would prove nothing about boot repair.
"""

from pathlib import Path

import pytest

from core.process import SystemRunner
from tests.boot.disk import root_filesystem
from tests.boot.machine import Controller, Drive, Firmware, Machine
from tests.boot.system import Source


def test_sources_were_booted_and_shut_down(
    uefi_source: Source, bios_source: Source, runner: SystemRunner, tmp_path: Path
) -> None:
    assert uefi_source.check.firmware == Firmware.UEFI
    assert bios_source.check.firmware == Firmware.BIOS
    for source in (uefi_source, bios_source):
        assert source.check.driver == "virtio-pci"
        assert source.check.failed == ""
        part = source.table.partitions[source.root_number - 1]
        with root_filesystem(source.disk, part, tmp_path / source.firmware, runner) as root:
            assert (root / "var/lib/liferaft-marker").read_text().strip() == source.check.marker
            assert (root / "etc/machine-id").read_text().strip() == source.check.machine_id


@pytest.mark.thorough
def test_plain_copy_on_ahci_does_not_boot(bios_source: Source, runner: SystemRunner, work: Path) -> None:
    _assert_copy_does_not_boot(bios_source, Controller.AHCI, runner, work)


@pytest.mark.thorough
def test_plain_copy_on_nvme_does_not_boot(uefi_source: Source, runner: SystemRunner, work: Path) -> None:
    _assert_copy_does_not_boot(uefi_source, Controller.NVME, runner, work)


def _assert_copy_does_not_boot(source: Source, controller: Controller, runner: SystemRunner, work: Path) -> None:
    disk = work / "copy.raw"
    runner.run(["cp", "--sparse=always", "--no-preserve=mode", str(source.disk), str(disk)])
    machine = Machine(f"copy-on-{controller}", source.firmware, (Drive(disk, controller, "COPY"),))
    with machine.run() as running:
        # The kernel starts, so firmware, boot loader and disk are fine; then the initramfs has no driver.
        running.console.expect("Linux version", 300)
        running.console.expect("Gave up waiting for root|ALERT!", 200, against="login: ")
