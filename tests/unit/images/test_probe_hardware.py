"""The longer look at a machine: a made-up /sys with what the kernel's documentation promises, and a recorded one."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from core.documents import decode_stored, encode
from images.model.machine import Firmware, Machine, MachineDevice, SecureBoot
from images.probe_hardware import describe_hardware, read_devices, read_trust
from tests.samples import sample_machine

RECORDED = Path(__file__).parents[4] / "shared/data/canonical+go-efilib/linux/testdata/sys.tar"
RST = "pci:v00008086d0000282Asv00001028sd00000798bc01sc04i00"


def _write(root: Path, name: str, content: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _machine(firmware: Firmware) -> Machine:
    return sample_machine(firmware=firmware, secure_boot=SecureBoot.UNKNOWN, modaliases=(RST,))


def test_devices_with_their_drivers_and_what_hides_behind_them(tmp_path: Path) -> None:
    """remapped_nvme is an attribute of the PCI device (the kernel's drivers/ata/ahci.c)."""
    device = "sys/bus/pci/devices/0000:00:17.0"
    _write(tmp_path, f"{device}/modalias", f"{RST}\n".encode())
    _write(tmp_path, f"{device}/remapped_nvme", b"2\n")
    (tmp_path / "sys/bus/pci/drivers/ahci").mkdir(parents=True)
    (tmp_path / device / "driver").symlink_to("../../drivers/ahci")
    _write(tmp_path, "sys/bus/usb/devices/1-1:1.0/modalias", b"usb:v046DpC31C\n")
    _write(tmp_path, "sys/bus/platform/devices/empty/modalias", b"\n")
    assert read_devices(tmp_path) == (
        MachineDevice(bus="pci", address="0000:00:17.0", modalias=RST, driver="ahci", hidden_disks=2),
        MachineDevice(bus="usb", address="1-1:1.0", modalias="usb:v046DpC31C"),
    )


def test_a_recorded_machine(tmp_path: Path) -> None:
    if not RECORDED.exists():
        pytest.skip(f"{RECORDED} is not there")
    subprocess.run(["tar", "-xf", str(RECORDED), "-C", str(tmp_path)], check=True)
    # Of its virtio devices only one is linked on the bus; 8 is a SCSI host (virtio 1.2, 5).
    found = [device.modalias for device in read_devices(tmp_path) if device.bus == "virtio"]
    assert found == ["virtio:d00000008v00001AF4"]


def test_a_bios_has_nothing_to_trust(tmp_path: Path) -> None:
    assert describe_hardware(_machine(Firmware.BIOS), root=tmp_path).trust is None
    trust = describe_hardware(_machine(Firmware.UEFI), root=tmp_path).trust
    assert trust is not None and trust.allowed.certificates == () and trust.unreadable == ()


def test_variables_that_make_no_sense_are_said(tmp_path: Path) -> None:
    efivars = "sys/firmware/efi/efivars"
    _write(tmp_path, f"{efivars}/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f", b"\x07\0\0\0" + b"\xff" * 40)
    _write(tmp_path, f"{efivars}/SbatLevelRT-605dab50-e046-4300-abb6-3dd810dd8b23", b"\x06\0\0\0" + b"x" * 20000)
    trust = read_trust(tmp_path)
    assert [reason.split(":")[0].split(" ")[0] for reason in trust.unreadable] == ["db", "SbatLevelRT"]


def test_shims_table_comes_before_its_variables(tmp_path: Path) -> None:
    """The table has no attributes in front (the kernel's drivers/firmware/efi/mokvar-table.c)."""
    _write(tmp_path, "sys/firmware/efi/mok-variables/SbatLevelRT", b"sbat,1,2024010900\n")
    assert read_trust(tmp_path).sbat_level == "sbat,1,2024010900\n"


def test_the_document_comes_back(tmp_path: Path) -> None:
    whole = msgspec.structs.replace(
        describe_hardware(_machine(Firmware.UEFI), root=tmp_path),
        devices=(MachineDevice(bus="pci", address="0000:00:17.0", modalias=RST),),
    )
    assert decode_stored(encode(whole), Machine, name="it") == whole
