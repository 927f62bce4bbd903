"""The second, longer look at a machine: each device with its driver, and what the firmware lets start.

For preflight and inventories. A restore needs none of it, and a recovery point does not keep it; so the first look
(:mod:`images.probe`) leaves it out. Only sysfs is read.
"""

import re
from pathlib import Path

import msgspec

from core.errors import DamagedError
from images.efi_signatures import MAXIMUM_SIZE, parse_signature_lists
from images.model.machine import Firmware, Machine, MachineDevice
from images.model.trust import FirmwareTrust, SignatureDatabase

_EFIVARS = Path("sys/firmware/efi/efivars")
#: shim's variables as a configuration table, which also holds what does not fit into one variable.
_SHIM_TABLE = Path("sys/firmware/efi/mok-variables")
#: efivarfs puts the variable's attributes before its content (Documentation/filesystems/efivarfs.rst).
_ATTRIBUTES_SIZE = 4
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SECURITY = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
_SBAT_LIMIT = 16 * 1024


def describe_hardware(machine: Machine, *, root: Path = Path("/")) -> Machine:
    """The machine with ``devices`` and ``trust`` filled in.

    Args:
        root: where /sys is found (a recorded machine in tests).
    """
    trust = read_trust(root) if machine.firmware is Firmware.UEFI else None
    return msgspec.structs.replace(machine, devices=read_devices(root), trust=trust)


def read_devices(root: Path) -> tuple[MachineDevice, ...]:
    """Every device with a modalias, by bus and address."""
    found = []
    for path in sorted((root / "sys/bus").glob("*/devices/*/modalias")):
        modalias = _text(path)
        if not modalias:
            continue
        folder = path.parent
        driver = folder / "driver"
        hidden = _text(folder / "remapped_nvme")
        found.append(
            MachineDevice(
                bus=folder.parent.parent.name,
                address=folder.name,
                modalias=modalias,
                driver=driver.resolve().name if driver.exists() else "",
                hidden_disks=int(hidden) if re.fullmatch(r"\d{1,3}", hidden) else 0,
            )
        )
    return tuple(found)


def read_trust(root: Path) -> FirmwareTrust:
    """What the firmware of a UEFI machine lets start. What cannot be read is said, not left out."""
    unreadable: list[str] = []

    def database(name: str, vendor: str) -> SignatureDatabase:
        try:
            return parse_signature_lists(_variable(root, name, vendor), name=name)
        except DamagedError as error:
            unreadable.append(error.message)
        except OSError as error:
            unreadable.append(f"{name} cannot be read: {error.strerror}.")
        return SignatureDatabase()

    found = FirmwareTrust(
        allowed=database("db", _SECURITY),
        forbidden=database("dbx", _SECURITY),
        machine_owner=database("MokListRT", _SHIM),
        sbat_level=_sbat_level(root, unreadable),
        setup_mode=_flag(root, "SetupMode", unreadable),
    )
    return msgspec.structs.replace(found, unreadable=tuple(unreadable))


def _sbat_level(root: Path, unreadable: list[str]) -> str:
    try:
        raw = _variable(root, "SbatLevelRT", _SHIM)
    except OSError as error:
        unreadable.append(f"SbatLevelRT cannot be read: {error.strerror}.")
        return ""
    if len(raw) > _SBAT_LIMIT:
        unreadable.append(f"SbatLevelRT has {len(raw)} bytes; expected at most {_SBAT_LIMIT}.")
        return ""
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")


def _flag(root: Path, name: str, unreadable: list[str]) -> bool:
    try:
        return _variable(root, name, _GLOBAL) == b"\x01"
    except OSError as error:
        unreadable.append(f"{name} cannot be read: {error.strerror}.")
        return False


def _variable(root: Path, name: str, vendor: str) -> bytes:
    """The content of a variable; nothing where there is none.

    Raises:
        OSError: it is there and cannot be read.
    """
    table = root / _SHIM_TABLE / name
    if vendor == _SHIM and table.exists():
        return _content(table)
    path = root / _EFIVARS / f"{name}-{vendor}"
    return _content(path)[_ATTRIBUTES_SIZE:] if path.exists() else b""


def _content(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAXIMUM_SIZE + _ATTRIBUTES_SIZE + 1)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").split("\n", 1)[0].strip()
    except OSError:
        return ""
