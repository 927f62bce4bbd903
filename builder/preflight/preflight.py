"""Preflight: a finished medium judged for machines, before the disaster. As a list of verbs.

Every question is answered from the medium's own files and the machine's document; nothing is started and no machine
is asked.
"""

from collections.abc import Iterator, Mapping

from builder.finished.opened import OpenedMedium
from builder.preflight.drivers import counted, driver_findings, judge_devices
from builder.preflight.findings import Finding, FindingKind, MachinePreflight, PreflightReport, Severity
from builder.preflight.medium import MediumAbilities, read_abilities
from builder.preflight.trust import trust_findings
from core.events import Event, Sink, Stage, ignore
from core.process import Runner
from core.units import MIB, format_size
from images.model.machine import Firmware, Machine

#: Debian's names of architectures, by the kernel's.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: Of installed memory the kernel counts less: what it and the firmware keep for themselves. In QEMU 87 MiB of 640 with
#: UEFI, 55 MiB of 832 with BIOS (docs/medium.md).
_KEPT_BACK = 96 * MIB


def check_medium(
    medium: OpenedMedium, machines: Mapping[str, Machine], runner: Runner, sink: Sink = ignore
) -> PreflightReport:
    """Judge ``medium`` for each machine.

    Args:
        machines: what a person calls each, and its document.
        sink: is told what is done; whoever raises there ends it.

    Raises:
        RefusedError: the medium is too old to be read.
        DamagedError: it cannot be read.
    """
    judged = []
    with read_abilities(medium, runner, sink) as abilities:
        for name, machine in machines.items():
            sink(Event(stage=Stage.PREFLIGHT, message=f"Comparing the medium with {name}"))
            judged.append(check_machine(name, machine, abilities))
        return PreflightReport(
            medium=medium.name,
            kernel=abilities.document.kernel,
            built=abilities.document.built,
            machines=tuple(judged),
        )


def check_machine(name: str, machine: Machine, abilities: MediumAbilities) -> MachinePreflight:
    """Judge a medium for one machine; findings come worst first."""
    judged = judge_devices(machine, abilities)
    findings = [
        *_start_findings(machine, abilities),
        *_ram_findings(machine, abilities),
        *driver_findings(judged, abilities, machine),
        *trust_findings(machine, abilities.chain),
    ]
    order = list(Severity)
    devices, driven = counted(judged)
    return MachinePreflight(
        name=name,
        product=machine.product,
        devices=devices,
        driven=driven,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
    )


def _start_findings(machine: Machine, abilities: MediumAbilities) -> Iterator[Finding]:
    """Whether the machine can start it at all."""
    architecture = _ARCHITECTURES.get(machine.architecture, machine.architecture)
    if architecture != abilities.document.architecture:
        yield Finding(
            kind=FindingKind.ARCHITECTURE,
            severity=Severity.BLOCKS,
            message=f"The medium is for {abilities.document.architecture}, the machine is {machine.architecture}.",
            remedy=f"Build a medium for {architecture}.",
        )
    elif machine.firmware is Firmware.BIOS and architecture == "arm64":
        yield Finding(
            kind=FindingKind.BOOT,
            severity=Severity.BLOCKS,
            message="The machine started without UEFI, and media for arm64 start from UEFI only.",
        )
    if not machine.modaliases and not machine.devices:
        yield Finding(
            kind=FindingKind.UNKNOWN,
            severity=Severity.WARNING,
            message="The document names no devices: which drivers the machine needs is not known.",
            remedy="Look at the machine again: liferaft probe --json > machine.json.",
        )


def _ram_findings(machine: Machine, abilities: MediumAbilities) -> Iterator[Finding]:
    document = abilities.document
    needed = document.ram_copied if abilities.fetched else document.ram
    has = f"the machine has {format_size(machine.ram)}"
    if machine.ram < needed - _KEPT_BACK:
        yield Finding(
            kind=FindingKind.RAM,
            severity=Severity.BLOCKS,
            message=f"The medium needs {format_size(needed)} of RAM, {has}.",
            remedy="Start it from CD or stick."
            if abilities.fetched and machine.ram >= document.ram - _KEPT_BACK
            else "Leave out packages that the recipe adds, or give the machine more RAM.",
        )
    elif machine.ram < document.ram_copied - _KEPT_BACK:
        yield Finding(
            kind=FindingKind.RAM,
            severity=Severity.NOTE,
            message=f"Copied to RAM, or started over the network, the medium needs {format_size(document.ram_copied)} "
            f"of RAM; {has}.",
            remedy="Start it from CD or stick, and leave the medium in the machine.",
        )
