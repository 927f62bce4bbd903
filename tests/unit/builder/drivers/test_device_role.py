"""What devices are for, by modaliases of real hardware (lspci -nn and lsusb name them in the comments)."""

import pytest

from builder.drivers.device_role import Role, hardware_id, is_raid_mode, is_vmd, role_of, undriven
from images.model.machine import MachineDevice


@pytest.mark.parametrize(
    ("modalias", "role"),
    [
        # 8086:9a0b RAID bus controller: Volume Management Device NVMe RAID Controller
        ("pci:v00008086d00009A0Bsv00000000sd00000000bc01sc04i00", Role.STORAGE),
        # 144d:a808 Non-Volatile memory controller
        ("pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02", Role.STORAGE),
        # 8086:15f3 Ethernet Controller I225-V
        ("pci:v00008086d000015F3sv00008086sd00000000bc02sc00i00", Role.NETWORK),
        # 15b3:1017 Infiniband controller ConnectX-5
        ("pci:v000015B3d00001017sv000015B3sd00000000bc02sc07i00", Role.NETWORK),
        # 8086:2723 Network controller: Wi-Fi 6 AX200
        ("pci:v00008086d00002723sv00008086sd00000084bc02sc80i00", Role.WIRELESS),
        # 1b21:2142 USB controller, xHCI
        ("pci:v00001B21d00002142sv00001462sd00007B18bc0Csc03i30", Role.USB_HOST),
        # 8086:9d30 USB controller, xDCI: a device, not a host
        ("pci:v00008086d00009D30sv00008086sd00000000bc0Csc03iFE", Role.OTHER),
        # 8086:9a49 VGA compatible controller
        ("pci:v00008086d00009A49sv00008086sd00000000bc03sc00i00", Role.DISPLAY),
        # 8086:a382 ISA bridge
        ("pci:v00008086d0000A382sv00008086sd00000000bc06sc01i00", Role.NONE),
        # 0781:5581 SanDisk Ultra
        ("usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00", Role.STORAGE),
        # 046d:c31c Keyboard K120
        ("usb:v046DpC31Cd6401dc00dsc00dp00ic03isc01ip01in00", Role.INPUT),
        # 0bda:8153 RTL8153, its ECM configuration
        ("usb:v0BDAp8153d3000dc00dsc00dp00ic02isc06ip00in00", Role.NETWORK),
        # 1d6b:0003 Linux Foundation 3.0 root hub
        ("usb:v1D6Bp0003d0612dc09dsc00dp03ic09isc00ip00in00", Role.NONE),
        ("virtio:d00000001v00001AF4", Role.NETWORK),
        ("virtio:d00000008v00001AF4", Role.STORAGE),
        ("vmbus:d96361baa104294db60572e2ffb1dc7f", Role.STORAGE),
        ("acpi:PNP0C02:", Role.NONE),
    ],
)
def test_roles(modalias: str, role: Role) -> None:
    assert role_of(modalias) is role


def test_raid_modes() -> None:
    vmd = "pci:v00008086d0000467Fsv00001028sd00000AB0bc01sc04i00"
    # 8086:282a 82801 Mobile SATA Controller [RAID mode]
    rst = "pci:v00008086d0000282Asv00001028sd00000798bc01sc04i00"
    # 1000:005d MegaRAID SAS-3 3108: a real RAID controller, whose disks its own driver shows
    megaraid = "pci:v00001000d0000005Dsv00001028sd00001F49bc01sc04i00"
    # 8086:a352 SATA AHCI
    ahci = "pci:v00008086d0000A352sv00001028sd00000860bc01sc06i01"
    assert [is_raid_mode(one) for one in (vmd, rst, megaraid, ahci)] == [True, True, False, False]
    assert [is_vmd(one) for one in (vmd, rst)] == [True, False]


def test_hardware_is_named_as_lspci_and_lsusb_do() -> None:
    assert hardware_id("pci:v00008086d000015F3sv00008086sd00000000bc02sc00i00") == "8086:15f3"
    assert hardware_id("usb:v046DpC31Cd6401dc00dsc00dp00ic03isc01ip01in00") == "046d:c31c"


def test_of_a_running_machine_only_what_it_needs_and_lacks_is_said() -> None:
    vmd = "pci:v00008086d00009A0Bsv00000000sd00000000bc01sc04i00"
    sound = "pci:v00008086d0000A348sv00001028sd00000860bc04sc03i00"
    card = "pci:v00008086d000015F3sv00008086sd00000000bc02sc00i00"
    devices = (
        MachineDevice(bus="pci", address="0000:00:0e.0", modalias=vmd),
        MachineDevice(bus="pci", address="0000:00:0f.0", modalias=vmd),
        MachineDevice(bus="pci", address="0000:00:1f.3", modalias=sound),
        MachineDevice(bus="pci", address="0000:02:00.0", modalias=card, driver="igc"),
    )
    assert undriven(devices) == ("storage controller 8086:9a0b",)
