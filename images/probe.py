"""The probe: reads this machine into a :class:`Machine`, and says which disks may not be targets and why.

What lsblk and sysfs say is turned into facts here; nothing is opened for writing and nothing is
assembled, activated or mounted.
"""

import platform
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.documents import decode_stored
from core.process import Runner
from core.units import format_size, to_bytes
from images.model.layout import DiskIdentity
from images.model.machine import Firmware, Machine, MachineDisk, Nic, Occupant, SecureBoot

#: The volume label of liferaft's own ISO: a disk that carries it is the rescue medium.
MEDIUM_LABEL = "LIFERAFT"

_COLUMNS = (
    "NAME,KNAME,TYPE,SIZE,LOG-SEC,PHY-SEC,MODEL,SERIAL,WWN,TRAN,RM,RO,MOUNTPOINTS,FSTYPE,LABEL,"
    "START,PTTYPE,PARTLABEL,PARTTYPE,PARTFLAGS"
)
#: Partition types that firmware starts from: ESP and BIOS boot on GPT, ESP on dos (UEFI 2.10 5.3.3 and 5.2.2).
_BOOT_TYPES = frozenset({"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "21686148-6449-6e6f-744e-656564454649", "0xef"})
_ACTIVE = "0x80"
#: Sysfs counts a partition's start in these, whatever the disk's sectors are (Documentation/ABI, sysfs-block).
_SYSFS_SECTOR = 512
_EFI = Path("/sys/firmware/efi")
_SECURE_BOOT = _EFI / "efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


class BlockDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device of lsblk's tree. ``name`` is its node, ``kname`` the kernel's; sizes in bytes.

    ``start`` of a partition is in units of 512 bytes; None where there is none.
    """

    name: str
    kname: str
    type: str
    size: int
    log_sec: int = msgspec.field(name="log-sec", default=512)
    phy_sec: int = msgspec.field(name="phy-sec", default=512)
    model: str | None = None
    serial: str | None = None
    wwn: str | None = None
    tran: str | None = None
    rm: bool = False
    ro: bool = False
    mountpoints: tuple[str | None, ...] = ()
    fstype: str | None = None
    label: str | None = None
    start: int | None = None
    pttype: str | None = None
    partlabel: str | None = None
    parttype: str | None = None
    partflags: str | None = None
    children: tuple["BlockDevice", ...] = ()

    def descendants(self) -> Iterator["BlockDevice"]:
        """Itself and everything built on it."""
        yield self
        for child in self.children:
            yield from child.descendants()

    def mounts(self) -> Iterator[tuple["BlockDevice", str]]:
        """Each place where it, or something on it, is mounted or used as swap (``[SWAP]``)."""
        for device in self.descendants():
            for place in device.mountpoints:
                if place:
                    yield device, place


class _Lsblk(msgspec.Struct, frozen=True):
    blockdevices: tuple[BlockDevice, ...]


def block_devices(runner: Runner) -> tuple[BlockDevice, ...]:
    """The tree of block devices, disks first-level."""
    output = runner.run(["lsblk", "--json", "--bytes", "--paths", "--output", _COLUMNS], timeout=60).stdout
    return decode_stored(output.encode(), _Lsblk, name="the output of lsblk").blockdevices


def probe_machine(runner: Runner, *, root: Path = Path("/")) -> Machine:
    """Everything about this machine that a plan depends on.

    Args:
        root: where /sys and /proc are found (a recorded machine in tests).
    """
    return Machine(
        firmware=Firmware.UEFI if (root / _EFI.relative_to("/")).exists() else Firmware.BIOS,
        secure_boot=_secure_boot(root),
        architecture=platform.machine(),
        ram=_ram(root),
        product=_first_line(root / "sys/class/dmi/id/product_name"),
        disks=tuple(machine_disk(device) for device in block_devices(runner) if _is_disk(device)),
        nics=_nics(root),
        modaliases=_modaliases(root),
    )


def machine_disk(device: BlockDevice) -> MachineDisk:
    """One disk with what is on it and what speaks against writing to it."""
    return MachineDisk(
        node=device.name,
        identity=identity_of(device),
        size=device.size,
        sector_size=device.log_sec,
        physical_sector_size=device.phy_sec,
        removable=is_removable(device),
        contents=tuple(_contents(device)),
        obstacles=tuple(_obstacles(device)),
        table=device.pttype or "",
        occupants=tuple(_occupants(device)),
    )


def is_removable(device: BlockDevice) -> bool:
    """Whether it can be taken out: a stick, a card, a disk in a USB case."""
    return device.rm or device.tran == "usb"


def identity_of(device: BlockDevice) -> DiskIdentity:
    """How documents name that disk."""
    return DiskIdentity(
        wwn=(device.wwn or "").strip(),
        serial=(device.serial or "").strip(),
        model=(device.model or "").strip(),
        transport=(device.tran or "").strip(),
    )


def disk_holding(devices: tuple[BlockDevice, ...], node: str) -> BlockDevice | None:
    """The disk that is ``node`` or has it among its descendants."""
    for disk in devices:
        if any(node in (device.name, device.kname) for device in disk.descendants()):
            return disk
    return None


def disk_of_path(devices: tuple[BlockDevice, ...], path: Path) -> BlockDevice | None:
    """The disk on which a file or folder lies; None when it lies on none (NFS, tmpfs, overlay …)."""
    resolved = path.resolve()
    best: tuple[int, BlockDevice] | None = None
    for disk in devices:
        for _, place in disk.mounts():
            if place.startswith("/") and (resolved == Path(place) or Path(place) in resolved.parents):
                depth = len(Path(place).parts)
                if best is None or depth > best[0]:
                    best = (depth, disk)
    return best[1] if best else None


def _is_disk(device: BlockDevice) -> bool:
    return device.type == "disk" and device.size > 0 and not device.kname.startswith(("/dev/zram", "/dev/ram"))


def _contents(disk: BlockDevice) -> Iterator[str]:
    for device in disk.descendants():
        if device is disk and (device.children or not device.fstype):
            continue
        words = [_place(device), device.fstype or "", f'"{device.label}"' if device.label else ""]
        yield " ".join(word for word in (*words, format_size(device.size)) if word)


def _occupants(disk: BlockDevice) -> Iterator[Occupant]:
    """The partitions with their places; of a disk without any, what has it to itself."""
    if disk.fstype and not disk.children:
        yield Occupant(number=0, offset=0, size=disk.size, kind=disk.fstype, label=disk.label or "")
    parts = [device for device in disk.children if device.type == "part" and device.start is not None]
    for part in sorted(parts, key=lambda part: part.start or 0):
        number = re.search(r"\d+$", part.kname)
        yield Occupant(
            number=int(number.group()) if number else 0,
            offset=to_bytes(part.start or 0, _SYSFS_SECTOR),
            size=part.size,
            kind=part.fstype or "",
            label=part.label or part.partlabel or "",
            boots=(part.parttype or "").lower() in _BOOT_TYPES or part.partflags == _ACTIVE,
        )


def _place(device: BlockDevice) -> str:
    """What a device is on its disk, without the disk's name, which another boot may change."""
    if device.type == "disk":
        return "whole disk"
    number = re.search(r"\d+$", device.kname)
    if device.type == "part" and number:
        return f"partition {number.group()}"
    return f"{device.type} {device.name.removeprefix('/dev/').removeprefix('mapper/')}"


def medium_obstacle(node: str) -> str:
    """What speaks against a disk that carries a rescue medium, the running one or another."""
    return f"{node} carries the rescue medium"


def _obstacles(disk: BlockDevice) -> Iterator[str]:
    """Every reason against, not the first (DESIGN §3.3)."""
    if disk.ro:
        yield f"{disk.name} is read-only"
    for device in disk.descendants():
        if device.fstype == "iso9660" and (device.label or "").startswith(MEDIUM_LABEL):
            yield medium_obstacle(disk.name)
            break
    for device, place in disk.mounts():
        yield f"{device.name} is used as swap" if place == "[SWAP]" else f"{device.name} is mounted on {place}"
    for device in disk.descendants():
        if device is not disk and device.type != "part":
            yield f"{device.name} ({device.type}) holds it"


def _secure_boot(root: Path) -> SecureBoot:
    try:
        data = (root / _SECURE_BOOT.relative_to("/")).read_bytes()
    except OSError:
        return SecureBoot.UNKNOWN
    return SecureBoot.ENABLED if data[-1:] == b"\x01" else SecureBoot.DISABLED


def _ram(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _nics(root: Path) -> tuple[Nic, ...]:
    found = []
    for folder in sorted((root / "sys/class/net").glob("*")):
        if folder.name == "lo" or not (folder / "address").exists():
            continue
        driver = folder / "device/driver"
        found.append(
            Nic(
                name=folder.name,
                mac=_first_line(folder / "address"),
                driver=driver.resolve().name if driver.exists() else "",
                up=_first_line(folder / "operstate") == "up",
            )
        )
    return tuple(found)


def _modaliases(root: Path) -> tuple[str, ...]:
    """The modaliases of all devices, whatever their bus: what a kernel needs drivers for."""
    found = {_first_line(path) for path in (root / "sys/bus").glob("*/devices/*/modalias")}
    return tuple(sorted(found - {""}))


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").split("\n", 1)[0].strip()
    except OSError:
        return ""
