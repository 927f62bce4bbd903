"""The machine: what the probe saw of hardware and firmware.

``node`` names (``/dev/sda``) are for showing and for opening in this very run; they never enter a
plan or a manifest as a way to find a disk.
"""

from enum import StrEnum

import msgspec

from images.model.layout import DiskIdentity


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


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One machine at one time. ``ram`` in bytes."""

    version: int = 1
    firmware: Firmware
    secure_boot: SecureBoot
    architecture: str
    ram: int
    product: str
    disks: tuple[MachineDisk, ...]
    nics: tuple[Nic, ...]
    modaliases: tuple[str, ...]
