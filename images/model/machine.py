"""The machine: what the probe saw of hardware and firmware.

``node`` names (``/dev/sda``) are for showing and for opening in this very run; they never enter a
plan or a manifest as a way to find a disk.
"""

from enum import StrEnum

import msgspec

from images.model.layout import DiskIdentity
from images.model.trust import FirmwareTrust


class Firmware(StrEnum):
    """How the running system was started."""

    BIOS = "bios"
    UEFI = "uefi"


class SecureBoot(StrEnum):
    """The state the firmware reports."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    UNKNOWN = "unknown"


class Occupant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lies in one range of a disk, as a map of the disk shows it. Not enough to make it again.

    Attributes:
        number: of the partition; 0 for what has the disk to itself.
        offset, size: bytes.
        kind: libblkid's or the reader's name of the content, else the partition's role; empty when nothing is known.
        label: of the filesystem, else the partition's name.
        id: of the partition in a layout; empty for what a probe saw.
        boots: firmware starts from it: an ESP, a BIOS boot partition, or the active flag.
    """

    number: int
    offset: int
    size: int
    kind: str = ""
    label: str = ""
    id: str = ""
    boots: bool = False


class MachineDisk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A disk of the running machine.

    Attributes:
        node: its device node or file, for showing and opening now.
        identity: how it is named in documents.
        size: bytes; sector_size, physical_sector_size: bytes.
        removable: a stick or a card.
        contents: one line for each thing on it, for people (``partition 1 ext4 "root" 20.00 GiB``).
        obstacles: why it may not be a target; empty when it may.
        table: the kernel's name of its partition table (``gpt``, ``dos``); empty for none.
        occupants: what lies where on it, in order of offset.
    """

    node: str
    identity: DiskIdentity
    size: int
    sector_size: int
    physical_sector_size: int
    removable: bool = False
    contents: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()
    table: str = ""
    occupants: tuple[Occupant, ...] = ()


class Nic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network interface."""

    name: str
    mac: str
    driver: str = ""
    up: bool = False


class MachineDevice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A device that a driver could be needed for.

    Attributes:
        bus: the kernel's name of its bus (``pci``, ``usb``, ``virtio`` …).
        address: its name on that bus (``0000:00:1f.2``).
        modalias: what a driver claims it by.
        driver: what drives it now; empty for nothing.
        hidden_disks: NVMe drives that a SATA controller in RAID mode hides behind itself, as the kernel counts them.
    """

    bus: str
    address: str
    modalias: str
    driver: str = ""
    hidden_disks: int = 0


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One machine at one time.

    Attributes:
        ram: bytes that the kernel has, which is less than is installed.
        modaliases: of all devices, sorted.
        devices: the same with where they are and what drives them; empty where only a restore's facts were asked for,
            and in documents of liferaft 0.1.
        trust: what the firmware lets start; None where it was not asked for, or is a BIOS.
    """

    version: int = 1
    firmware: Firmware
    secure_boot: SecureBoot
    architecture: str
    ram: int
    product: str
    disks: tuple[MachineDisk, ...]
    nics: tuple[Nic, ...]
    modaliases: tuple[str, ...]
    devices: tuple[MachineDevice, ...] = ()
    trust: FirmwareTrust | None = None
