"""What preflight says: findings, one machine's and a whole fleet's. Nouns only."""

import datetime
from enum import StrEnum

import msgspec

PREFLIGHT_VERSION = 1


class Severity(StrEnum):
    """How much it matters, worst first."""

    BLOCKS = "blocks"
    WARNING = "warning"
    NOTE = "note"


class FindingKind(StrEnum):
    """What it is about."""

    ARCHITECTURE = "architecture"
    BOOT = "boot"
    RAM = "ram"
    DRIVER = "driver"
    FIRMWARE_FILE = "firmware-file"
    UNSIGNED_DRIVER = "unsigned-driver"
    RAID_MODE = "raid-mode"
    SIGNATURE = "signature"
    REVOKED = "revoked"
    SBAT = "sbat"
    UNKNOWN = "unknown"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that the medium cannot do on a machine, or might not.

    Attributes:
        kind, severity: what it is about, and whether it stops a restore.
        message: one sentence.
        remedy: what mends it; empty where nothing has to be done.
        device: bus and address, or the modalias, of the device it is about; empty for none.
        modalias: of that device.
        modules: names of the kernel modules it is about.
        files: firmware files that are missing, as the kernel asks for them.
    """

    kind: FindingKind
    severity: Severity
    message: str
    remedy: str = ""
    device: str = ""
    modalias: str = ""
    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class MachinePreflight(msgspec.Struct, frozen=True, kw_only=True):
    """A medium judged for one machine.

    Attributes:
        name: of the machine's document. product: what the machine says it is.
        findings: worst first; empty when the medium drives all of it.
        devices: how many devices a rescue system cares for. driven: how many of them the medium drives.
    """

    name: str
    product: str
    devices: int
    driven: int
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Severity | None:
        """The highest severity among the findings."""
        return next((level for level in Severity if any(one.severity is level for one in self.findings)), None)


class PreflightReport(msgspec.Struct, frozen=True, kw_only=True):
    """A medium judged for machines.

    Attributes:
        medium: where it lies. kernel: its release. built: when it was made.
        machines: in the order they were given.
    """

    version: int = PREFLIGHT_VERSION
    medium: str
    kernel: str
    built: datetime.datetime
    machines: tuple[MachinePreflight, ...]

    @property
    def worst(self) -> Severity | None:
        """The highest severity of all machines."""
        found = {machine.worst for machine in self.machines}
        return next((level for level in Severity if level in found), None)
