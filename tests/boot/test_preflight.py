"""A PC as it is sold, started from a stick with a repository on it: Secure Boot, the wizard, probe and preflight.

One boot. The witnesses inside are the kernel (which driver it bound to each device, what it refuses) and mokutil (what
the firmware trusts); outside, kmod reads the tables of the default ISO.
"""

import hashlib
import json
import random
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from builder.document import MediumDocument
from builder.drivers.device_role import Role, role_of
from builder.drivers.module_index import ModuleIndex
from builder.finished.opened import open_medium
from builder.preflight.findings import FindingKind, Severity
from builder.preflight.preflight import check_medium
from builder.preflight.render import verdict
from core.process import Runner
from core.units import GIB, MIB
from images.model.machine import Machine, SecureBoot
from rescue.jobs.preflight import read_machines
from tests.boot.lab import BOOT_TIMEOUT, Guest, _share, _start_agent, blank_disk
from tests.boot.machine import Controller, Drive, Firmware
from tests.boot.machine import Machine as Emulated
from tests.boot.place import DEFAULT_ISO
from tests.boot.restoring import Lab, liferaft
from tests.boot.wizard import WizardDriver
from tests.flow.small import make, noise_disk, take

#: Patterns of modules.alias that are tried with kmod: a sixth of what there is, in two seconds.
_TRIED = 800


@pytest.fixture(scope="module")
def document() -> MediumDocument:
    with open_medium(DEFAULT_ISO) as medium:
        assert medium.document is not None
        return medium.document


@pytest.fixture(scope="module")
def tables(document: MediumDocument, tmp_path_factory: pytest.TempPathFactory, runner: Runner) -> Path:
    """The kernel's tables out of the base, as a tree for modprobe."""
    root = tmp_path_factory.mktemp("tables")
    squashfs = root / "base.squashfs"
    with open_medium(DEFAULT_ISO) as medium:
        medium.extract("live/base.squashfs", squashfs)
    folder = f"usr/lib/modules/{document.kernel}"
    runner.run(["unsquashfs", "-q", "-n", "-f", "-d", str(root), str(squashfs), f"{folder}/modules.*"])
    squashfs.unlink()
    (root / "lib").symlink_to("usr/lib")
    return root


def test_modules_are_those_that_kmod_finds(tables: Path, document: MediumDocument) -> None:
    """Each pattern made a modalias by filling its wildcards in; kmod 30 and later also name what is built in."""
    folder = tables / "usr/lib/modules" / document.kernel

    def text(name: str) -> str:
        return (folder / f"modules.{name}").read_text()

    index = ModuleIndex(alias=text("alias"), dep=text("dep"), builtin_modinfo=text("builtin.modinfo"))
    chance = random.Random(5)
    patterns = [line.split()[1] for line in text("alias").splitlines() if line.startswith("alias ")]
    for pattern in chance.sample(patterns, _TRIED):
        alias = re.sub(r"\[([^\]!^])[^\]]*\]", r"\1", pattern)
        alias = alias.replace("?", "1").replace("*", chance.choice(("", "0", "00000000", "FF")))
        words = ["modprobe", "-d", str(tables), "-S", document.kernel, "-R", alias]
        said = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout.split()
        found = {name.replace("-", "_") for name in said}
        claims = index.claims(alias)
        assert claims.modules == found - claims.built_in, alias


@dataclass(frozen=True)
class Seen:
    """What was seen of the machine.

    Attributes:
        machine: its own document. screen: the wizard's list of repositories.
        verdict: the wizard's screen on the medium that runs.
        data: what was said of the stick's data partition when it was written.
        secure_boot, keys, level: mokutil's words on the state, on db and on SBAT. lockdown: the kernel's.
    """

    machine: Machine
    screen: list[str]
    verdict: list[str]
    data: dict[str, object]
    secure_boot: str
    keys: str
    level: str
    lockdown: str


@pytest.fixture(scope="module")
def seen(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A machine with Secure Boot on, NVMe, AHCI, e1000e and USB, on which the stick starts."""
    folder = tmp_path_factory.mktemp("seen")
    shared = folder / "shared"
    shared.mkdir()
    stick, data = _stick(lab, folder)
    drives = (
        Drive(stick, Controller.USB, "LRSTICK"),
        Drive(blank_disk(folder / "nvme", 64 * MIB), Controller.NVME, "NVME"),
        Drive(blank_disk(folder / "sata", 64 * MIB), Controller.AHCI, "SATA"),
    )
    extra = ("-device", "e1000e", "-device", "intel-hda", *_share("lab", shared, ""))
    machine = Emulated("preflight", Firmware.UEFI, drives, memory=1536, extra=extra, secure_boot=True)
    with machine.run() as running:
        _start_agent(running, shared, None)
        guest = Guest(shared)
        secure_boot = guest.check("mokutil --sb-state", BOOT_TIMEOUT)
        lockdown = guest.check("cat /sys/kernel/security/lockdown")
        guest.check("udevadm settle; liferaft probe --json >/run/lab/machine.json")
        keys = guest.check("mokutil --db")
        level = guest.check("mokutil --list-sbat-revocations")
        wizard = WizardDriver(running.console)
        said = wizard.check_running_medium()
        screen = wizard.find_repository("1 recovery point on")
    stick.unlink()
    document = read_machines((shared / "machine.json",))["machine"]
    return Seen(document, screen, said, data, secure_boot, keys, level, lockdown)


def _stick(lab: Lab, folder: Path) -> tuple[Path, dict[str, object]]:
    """A stick as ``liferaft write-usb`` makes it, and its report on the data partition."""
    repository = make(folder / "repo")
    take(repository, noise_disk(folder / "disk.img"))
    stick = blank_disk(folder / "stick.img", 2 * GIB)
    # A root shell on the second serial line: systemd-debug-generator(8).
    iso = lab.medium("preflight", 'kernel_parameters = ["systemd.debug_shell=ttyS1"]\n')
    argv = ["write-usb", str(iso), str(stick), "--data", "--repository", str(repository), "--yes", "--json"]
    report = json.loads(liferaft(argv, lab.runner))
    return stick, report["data"]


def test_firmware_enforces_secure_boot_and_the_kernel_locks_down(seen: Seen) -> None:
    assert "SecureBoot enabled" in seen.secure_boot
    # lockdown(7): what is in brackets is in force; unsigned modules are refused then.
    assert "[integrity]" in seen.lockdown


def test_the_wizard_finds_the_repository_on_the_stick_it_was_started_from(seen: Seen) -> None:
    assert seen.data["filesystem"] == "exfat"
    assert isinstance(seen.data["size"], int) and seen.data["size"] > GIB - 2 * MIB
    text = "\n".join(seen.screen)
    print(text)
    assert re.search(r"1 recovery point on sd[a-z]3\b", text)
    assert "/repository" in text


def test_the_probe_says_what_mokutil_says(seen: Seen) -> None:
    machine = seen.machine
    assert machine.secure_boot is SecureBoot.ENABLED
    assert machine.trust is not None and machine.trust.unreadable == ()
    listed = [
        line.partition(":")[2].strip().replace(":", "") for line in seen.keys.splitlines() if "SHA1 Finger" in line
    ]
    assert [hashlib.sha1(one.der).hexdigest() for one in machine.trust.allowed.certificates] == listed
    assert listed
    assert machine.trust.sbat_level.split() == [line for line in seen.level.split() if "," in line]


def test_every_driver_that_the_kernel_bound_is_found(seen: Seen, tables: Path, document: MediumDocument) -> None:
    machine = seen.machine
    folder = tables / "usr/lib/modules" / document.kernel
    index = ModuleIndex(
        alias=(folder / "modules.alias").read_text(),
        dep=(folder / "modules.dep").read_text(),
        builtin=(folder / "modules.builtin").read_text(),
    )
    needed = (Role.STORAGE, Role.NETWORK, Role.USB_HOST)
    cards = [one for one in machine.devices if one.bus == "pci" and role_of(one.modalias) in needed]
    bound = {one.driver: one for one in cards}
    assert {"nvme", "ahci", "e1000e", "xhci_hcd", "virtio-pci"} == set(bound)
    for driver, device in bound.items():
        # A driver is called as its module is, but for USB's.
        name = {"xhci_hcd": "xhci_pci"}.get(driver, driver).replace("-", "_")
        assert name in index.claims(device.modalias).modules | index.built_in, device


def test_the_medium_is_ready_for_the_machine_it_started_on(seen: Seen, runner: Runner) -> None:
    with open_medium(DEFAULT_ISO) as medium:
        report = check_medium(medium, {"it": seen.machine}, runner).machines[0]
    assert report.worst in (None, Severity.NOTE), report.findings
    assert report.devices == report.driven >= 6


def test_the_wizard_says_the_same_of_the_stick_it_runs_from(seen: Seen, runner: Runner) -> None:
    with open_medium(DEFAULT_ISO) as medium:
        report = check_medium(medium, {"it": seen.machine}, runner).machines[0]
    text = "\n".join(seen.verdict)
    print(text)
    assert verdict(report) == "This medium drives everything here that a restore needs."
    assert verdict(report) in text
    assert f"{report.driven} of {report.devices} devices that a restore needs have a driver" in text


def test_with_its_shim_revoked_it_would_not_start(seen: Seen, runner: Runner) -> None:
    machine = seen.machine
    assert machine.trust is not None
    level = "sbat,1,2099010100\nshim,99\n"
    trust = msgspec.structs.replace(machine.trust, sbat_level=level)
    with open_medium(DEFAULT_ISO) as medium:
        report = check_medium(medium, {"it": msgspec.structs.replace(machine, trust=trust)}, runner).machines[0]
    assert [(one.kind, one.severity) for one in report.findings if one.severity is not Severity.NOTE] == [
        (FindingKind.SBAT, Severity.BLOCKS)
    ]
