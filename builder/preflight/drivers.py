"""What of a machine's devices a medium cannot drive: no module, no firmware file, no signature, a RAID mode."""

from collections.abc import Iterable, Iterator

import msgspec

from builder.drivers.device_role import AMD, Role, hardware_id, is_raid_mode, is_vmd, pci_id, role_of
from builder.drivers.firmware_package import package_of
from builder.drivers.module_index import Claims
from builder.preflight.findings import Finding, FindingKind, Severity
from builder.preflight.medium import MediumAbilities
from images.model.machine import Machine, MachineDevice, SecureBoot

_WANTED = "Give the medium its driver: liferaft inject ISO --driver FOLDER, or kernel.modules in the recipe"
#: What a rescue can do without: sound, cameras, sensors, and pictures (consoles use what firmware set up).
_SPARED = frozenset({Role.DISPLAY, Role.OTHER, Role.NONE})
_MENTIONED = 4
#: In the release of the kernel whose flavour has the drivers of virtual machines only.
_CLOUD = "-cloud-"


class Judged(msgspec.Struct, frozen=True):
    """A device, what it is for, and who on the medium drives it."""

    device: MachineDevice
    role: Role
    claims: Claims

    @property
    def driven(self) -> bool:
        """Whether anything on the medium claims it."""
        return self.claims.driven

    @property
    def title(self) -> str:
        """``network card 8086:15f3 (0000:02:00.0)``."""
        where = f" ({self.device.address})" if self.device.address else ""
        return f"{self.role} {hardware_id(self.device.modalias)}{where}"


def judge_devices(machine: Machine, abilities: MediumAbilities) -> tuple[Judged, ...]:
    """Every device of the machine; what its document lacks of places and drivers is left empty."""
    devices = machine.devices or tuple(
        MachineDevice(bus=alias.partition(":")[0], address="", modalias=alias) for alias in machine.modaliases
    )
    return tuple(_judge(device, abilities) for device in devices)


def driver_findings(judged: tuple[Judged, ...], abilities: MediumAbilities, machine: Machine) -> Iterator[Finding]:
    """Everything about devices.

    Raises:
        DamagedError: a module on the medium cannot be read.
    """
    yield from _undriven(judged, abilities.document.kernel)
    yield from _raid_modes(judged)
    needed = [one for one in judged if one.role is not Role.NONE and one.claims.modules]
    yield from _missing_firmware(needed, abilities)
    if machine.secure_boot is SecureBoot.ENABLED:
        yield from _unsigned(needed, abilities)


def _judge(device: MachineDevice, abilities: MediumAbilities) -> Judged:
    claims = abilities.index.claims(device.modalias)
    driver = device.driver.replace("-", "_")
    if not claims.driven and driver in abilities.index.built_in:
        claims = Claims(frozenset(), frozenset({driver}))
    return Judged(device, role_of(device.modalias), claims)


def _undriven(judged: tuple[Judged, ...], kernel: str) -> Iterator[Finding]:
    """Devices without a driver. Those that a rescue can spare are one note together."""
    wired = any(one.driven and one.role is Role.NETWORK for one in judged)
    input_works = any(one.driven and one.role is Role.INPUT for one in judged)
    spared = [one for one in judged if not one.driven and one.role in _SPARED and one.role is not Role.NONE]
    for one in judged:
        if one.driven or one.role in _SPARED:
            continue
        match one.role:
            case Role.STORAGE if one.device.bus in ("usb", "mmc"):
                # A stick, or a reader without a card: seldom the disk that a machine starts from.
                severity = Severity.WARNING
            case Role.STORAGE | Role.USB_HOST:
                severity = Severity.BLOCKS
            case Role.NETWORK:
                severity = Severity.WARNING if wired else Severity.BLOCKS
            case Role.WIRELESS:
                severity = Severity.NOTE if wired else Severity.WARNING
            case _:
                severity = Severity.NOTE if input_works else Severity.WARNING
        message, remedy = f"The {one.title} has no driver on the medium.", _remedy(one, kernel)
        yield _finding(one, FindingKind.DRIVER, severity, message, remedy)
    if spared:
        names = ", ".join(one.title for one in spared[:_MENTIONED])
        more = f" and {len(spared) - _MENTIONED} more" if len(spared) > _MENTIONED else ""
        yield Finding(
            kind=FindingKind.DRIVER,
            severity=Severity.NOTE,
            message=f"Without a driver, and not needed for a restore: {names}{more}.",
        )


def _remedy(one: Judged, kernel: str) -> str:
    if _CLOUD in kernel:
        return "The medium has the kernel of virtual machines; build one with the stock kernel (kernel.flavour)."
    driver = f" (this machine drives it with {one.device.driver})" if one.device.driver else ""
    if is_raid_mode(one.device.modalias):
        return f"Set the controller to AHCI in the firmware's setup, or bring its driver. {_WANTED}{driver}."
    if one.role is Role.WIRELESS:
        return f"A recipe with [[network.wifi]] keeps wireless drivers and their firmware{driver}."
    return f"{_WANTED}; the backports kernel (kernel.flavour) drives newer hardware{driver}."


def _raid_modes(judged: tuple[Judged, ...]) -> Iterator[Finding]:
    """Controllers that have a driver and still may hide disks."""
    for one in judged:
        if not one.driven or not is_raid_mode(one.device.modalias):
            continue
        pci = pci_id(one.device.modalias)
        if is_vmd(one.device.modalias):
            message = f"The {one.title} is Intel VMD: NVMe drives are behind it. The medium has its driver."
            remedy = "If a disk is missing in the wizard, switch VMD off in the firmware's setup."
            severity = Severity.NOTE
        elif one.device.hidden_disks:
            message = f"The {one.title} is in RAID mode and hides {one.device.hidden_disks} NVMe drives."
            remedy = "Set the SATA mode to AHCI in the firmware's setup; Windows has to be prepared for it first."
            severity = Severity.BLOCKS
        else:
            maker = "AMD-RAID" if pci is not None and pci.vendor == AMD else "Intel RST"
            message = f"The {one.title} is in RAID mode ({maker}): NVMe drives may be hidden behind it."
            remedy = "If a disk is missing in the wizard, set the SATA mode to AHCI in the firmware's setup."
            severity = Severity.WARNING
        yield _finding(one, FindingKind.RAID_MODE, severity, message, remedy)


def _missing_firmware(needed: list[Judged], abilities: MediumAbilities) -> Iterator[Finding]:
    """Modules that name firmware which the medium lacks. Which of the files a device asks for, only it knows."""
    said: set[str] = set()
    for one in needed:
        for module in abilities.modules(abilities.index.closure(one.claims.modules)):
            lacking = tuple(sorted(name for name in module.firmware if abilities.lacks_firmware(name)))
            if not lacking or module.name in said:
                continue
            said.add(module.name)
            all_of_them = len(lacking) == len(module.firmware)
            severity = Severity.WARNING if all_of_them and one.role not in _SPARED else Severity.NOTE
            count = "none" if all_of_them else f"{len(module.firmware) - len(lacking)}"
            has = f"has {count} of the {len(module.firmware)} files" if len(module.firmware) > 1 else "lacks the file"
            message = f"The driver {module.name} of the {one.title} may ask for firmware: the medium {has} it names."
            yield msgspec.structs.replace(
                _finding(one, FindingKind.FIRMWARE_FILE, severity, message, _firmware_remedy(lacking)),
                modules=(module.name,),
                files=lacking,
            )


def _firmware_remedy(lacking: tuple[str, ...]) -> str:
    packages = sorted({package for name in lacking if (package := package_of(name))})
    if packages:
        names = ", ".join(f'"{package}"' for package in packages)
        return f"firmware.packages = [{names}] in the recipe, or liferaft inject ISO --firmware FOLDER."
    return "liferaft inject ISO --firmware FOLDER with the file from the machine's /lib/firmware or its maker."


def _unsigned(needed: list[Judged], abilities: MediumAbilities) -> Iterator[Finding]:
    """Under Secure Boot the kernel is locked down and takes signed modules only (kernel_lockdown(7))."""
    said: set[str] = set()
    for one in needed:
        for module in abilities.modules(abilities.index.closure(one.claims.modules)):
            if module.signed or module.name in said:
                continue
            said.add(module.name)
            severity = Severity.NOTE if one.role in _SPARED else Severity.BLOCKS
            message = f"The driver {module.name} of the {one.title} is not signed, and Secure Boot is on."
            remedy = "Switch Secure Boot off in the firmware's setup while restoring, or sign the module (mokutil)."
            yield msgspec.structs.replace(
                _finding(one, FindingKind.UNSIGNED_DRIVER, severity, message, remedy), modules=(module.name,)
            )


def _finding(one: Judged, kind: FindingKind, severity: Severity, message: str, remedy: str) -> Finding:
    device = f"{one.device.bus} {one.device.address}".strip()
    return Finding(
        kind=kind, severity=severity, message=message, remedy=remedy, device=device, modalias=one.device.modalias
    )


def counted(judged: Iterable[Judged]) -> tuple[int, int]:
    """How many devices a rescue system cares for, and how many of them the medium drives."""
    cared = [one for one in judged if one.role not in _SPARED and one.role is not Role.WIRELESS]
    return len(cared), sum(one.driven for one in cared)
