"""What a device is for, read off its modalias: whether a rescue system needs it.

Sources: the kernel's scripts/mod/file2alias.c (the form of each bus's modalias); the PCI Code and ID Assignment
Specification and USB's class codes (the numbers); Microsoft's VMBus channel GUIDs as include/linux/hyperv.h has them.
"""

import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from images.model.machine import MachineDevice


class Role(StrEnum):
    """What a device is for."""

    STORAGE = "storage controller"
    NETWORK = "network card"
    WIRELESS = "wireless card"
    USB_HOST = "USB controller"
    INPUT = "keyboard or mouse"
    DISPLAY = "graphics card"
    OTHER = "device"
    #: Needs no driver in a rescue system, or has none anywhere: bridges, hubs, what ACPI lists.
    NONE = "part of the board"


class PciId(msgspec.Struct, frozen=True):
    """What a PCI modalias says: vendor, device, base class, subclass, interface."""

    vendor: int
    device: int
    base: int
    sub: int
    interface: int


#: Intel's VMD: NVMe drives are behind it, on a bus of their own (drivers/pci/controller/vmd.c).
VMD = frozenset((0x201D, 0x28C0, 0x467F, 0x4C3D, 0x7D0B, 0x9A0B, 0xA77F, 0xAD0B, 0xB06F, 0xB60B))
INTEL, AMD = 0x8086, 0x1022

_PCI = re.compile(
    r"pci:v(?P<v>[0-9A-F]{8})d(?P<d>[0-9A-F]{8})sv[0-9A-F]{8}sd[0-9A-F]{8}"
    r"bc(?P<bc>[0-9A-F]{2})sc(?P<sc>[0-9A-F]{2})i(?P<i>[0-9A-F]{2})"
)
_USB = re.compile(r"usb:v[0-9A-F]{4}p[0-9A-F]{4}d[0-9A-F]{4}dc(?P<dc>..)dsc..dp..ic(?P<ic>..)isc(?P<isc>..)")
_VIRTIO = re.compile(r"virtio:d(?P<d>[0-9A-F]{8})v")
_PCI_ROLES = {
    (0x02, 0x00): Role.NETWORK,
    (0x02, 0x07): Role.NETWORK,
    (0x02, 0x80): Role.WIRELESS,
    (0x0C, 0x03): Role.USB_HOST,
}
_PCI_BASES = {0x01: Role.STORAGE, 0x02: Role.NETWORK, 0x03: Role.DISPLAY, 0x06: Role.NONE, 0x05: Role.NONE}
#: Interface of a USB controller that makes the machine a device of another, not a host.
_USB_DEVICE_MODE = 0xFE
_USB_ROLES = {"08": Role.STORAGE, "03": Role.INPUT, "09": Role.NONE, "E0": Role.WIRELESS, "0A": Role.NONE}
#: Communications: modems and serial lines have other subclasses than network cards (ECM 06, EEM 0C, NCM 0D, MBIM 0E).
_USB_NETWORK = frozenset({"06", "0C", "0D", "0E"})
_VIRTIO_ROLES = {
    1: Role.NETWORK,
    2: Role.STORAGE,
    8: Role.STORAGE,
    16: Role.DISPLAY,
    18: Role.INPUT,
    26: Role.STORAGE,
}
_FIXED = {
    "vmbus:d96361baa104294db60572e2ffb1dc7f": Role.STORAGE,
    "vmbus:32264132cb86a2449b5c50d1417354f5": Role.STORAGE,
    "vmbus:4acc9b2f6900f34ab76b6fd0be528cda": Role.STORAGE,
    "vmbus:635161f83edfc546913ff2d2f965ed0e": Role.NETWORK,
    "vmbus:6dad12f9172bea48bd65f927a61c7684": Role.INPUT,
    "xen:vbd": Role.STORAGE,
    "xen:vif": Role.NETWORK,
    "mmc:block": Role.STORAGE,
    "scsi:t-0x00": Role.STORAGE,
}


def pci_id(modalias: str) -> PciId | None:
    """What a PCI modalias says; None for one of another bus."""
    found = _PCI.match(modalias)
    return PciId(*(int(found[name], 16) for name in ("v", "d", "bc", "sc", "i"))) if found else None


def role_of(modalias: str) -> Role:
    """What the device is for."""
    if (pci := pci_id(modalias)) is not None:
        return _pci_role(pci)
    if (usb := _USB.match(modalias)) is not None:
        if usb["ic"] == "02":
            return Role.NETWORK if usb["isc"] in _USB_NETWORK else Role.OTHER
        return Role.NONE if usb["dc"] == "09" else _USB_ROLES.get(usb["ic"], Role.OTHER)
    if (virtio := _VIRTIO.match(modalias)) is not None:
        return _VIRTIO_ROLES.get(int(virtio["d"], 16), Role.OTHER)
    return _FIXED.get(modalias, Role.NONE)


def is_raid_mode(modalias: str) -> bool:
    """A controller of the chipset's maker that firmware put in a RAID or VMD mode: disks may be hidden behind it."""
    pci = pci_id(modalias)
    return pci is not None and ((pci.base, pci.sub) == (0x01, 0x04) or is_vmd(modalias)) and pci.vendor in (INTEL, AMD)


def is_vmd(modalias: str) -> bool:
    """Intel's Volume Management Device."""
    pci = pci_id(modalias)
    return pci is not None and pci.vendor == INTEL and pci.device in VMD


def hardware_id(modalias: str) -> str:
    """``8086:9a0b``, as lspci and lsusb show it; the modalias where it has none."""
    if (pci := pci_id(modalias)) is not None:
        return f"{pci.vendor:04x}:{pci.device:04x}"
    usb = re.match(r"usb:v([0-9A-F]{4})p([0-9A-F]{4})", modalias)
    return f"{usb[1]}:{usb[2]}".lower() if usb else modalias


def _pci_role(pci: PciId) -> Role:
    if (pci.base, pci.sub) == (0x0C, 0x03) and pci.interface == _USB_DEVICE_MODE:
        return Role.OTHER
    return _PCI_ROLES.get((pci.base, pci.sub)) or _PCI_BASES.get(pci.base, Role.OTHER)


def undriven(devices: Iterable[MachineDevice]) -> tuple[str, ...]:
    """Of a machine that runs: what a rescue needs and nothing drives, as ``storage controller 8086:9a0b``."""
    needed = (Role.STORAGE, Role.NETWORK, Role.USB_HOST)
    found = ((role_of(device.modalias), device) for device in devices if not device.driver)
    return tuple(dict.fromkeys(f"{role} {hardware_id(device.modalias)}" for role, device in found if role in needed))
