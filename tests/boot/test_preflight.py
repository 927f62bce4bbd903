"""Preflight of the default ISO: its tables against kmod, and a machine with Secure Boot, probed by the medium itself.

The witnesses inside are the kernel (which driver it bound to each device) and mokutil (what the firmware trusts).
"""

import hashlib
import random
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from builder.document import MediumDocument
from builder.drivers.device_role import Role, role_of
from builder.drivers.module_index import ModuleIndex
from builder.finished.opened import open_medium
from builder.preflight.findings import FindingKind, Severity
from builder.preflight.preflight import check_medium
from core.process import Runner
from images.model.machine import Machine, SecureBoot
from rescue.jobs.preflight import read_machines
from tests.boot.lab import BOOT_TIMEOUT, Guest, _share, _start_agent, blank_disk
from tests.boot.machine import Controller, Drive, Firmware
from tests.boot.machine import Machine as Emulated
from tests.boot.place import DEFAULT_ISO, TREE
from tests.flow.media import rewrite_iso

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


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, runner: Runner) -> tuple[Machine, str, str]:
    """A machine with Secure Boot on, NVMe, AHCI, e1000e and USB: its document, and mokutil's words on db and SBAT."""
    folder = tmp_path_factory.mktemp("probed")
    lab = folder / "lab"
    lab.mkdir()
    iso = folder / "lab.iso"
    rewrite_iso(DEFAULT_ISO, iso, {"boot/grub/grub.cfg": _with_a_shell}, runner)
    drives = (
        Drive(iso, Controller.CDROM),
        Drive(blank_disk(folder / "nvme", 64 << 20), Controller.NVME, "NVME"),
        Drive(blank_disk(folder / "sata", 64 << 20), Controller.AHCI, "SATA"),
        Drive(blank_disk(folder / "usb", 64 << 20), Controller.USB, "STICK"),
    )
    extra = (
        "-device",
        "e1000e",
        "-device",
        "intel-hda",
        *_share("lab", lab, ""),
        *_share("tree", TREE, ",readonly=on"),
    )
    machine = Emulated("preflight", Firmware.UEFI, drives, memory=1536, extra=extra, secure_boot=True)
    with machine.run() as running:
        _start_agent(running, lab, TREE)
        guest = Guest(lab)
        assert "SecureBoot enabled" in guest.check("mokutil --sb-state", BOOT_TIMEOUT)
        guest.check("udevadm settle; liferaft probe --json >/run/lab/machine.json")
        keys = guest.check("mokutil --db")
        level = guest.check("mokutil --list-sbat-revocations")
    iso.unlink()
    return read_machines((lab / "machine.json",))["machine"], keys, level


def _with_a_shell(menu: bytes) -> bytes:
    words = b"systemd.debug_shell=ttyS1 systemd.mask=liferaft-tui@ttyS0.service systemd.mask=liferaft-tui@tty1.service"
    return re.sub(rb"^(  linux \S+)", rb"\1 " + words, menu, flags=re.MULTILINE)


def test_the_probe_says_what_mokutil_says(probed: tuple[Machine, str, str]) -> None:
    machine, keys, level = probed
    assert machine.secure_boot is SecureBoot.ENABLED
    assert machine.trust is not None and machine.trust.unreadable == ()
    listed = [line.partition(":")[2].strip().replace(":", "") for line in keys.splitlines() if "SHA1 Finger" in line]
    assert [hashlib.sha1(one.der).hexdigest() for one in machine.trust.allowed.certificates] == listed
    assert listed
    assert machine.trust.sbat_level.split() == [line for line in level.split() if "," in line]


def test_every_driver_that_the_kernel_bound_is_found(
    probed: tuple[Machine, str, str], tables: Path, document: MediumDocument
) -> None:
    machine = probed[0]
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


def test_the_medium_is_ready_for_the_machine_it_started_on(probed: tuple[Machine, str, str], runner: Runner) -> None:
    with open_medium(DEFAULT_ISO) as medium:
        report = check_medium(medium, {"it": probed[0]}, runner).machines[0]
    assert report.worst in (None, Severity.NOTE), report.findings
    assert report.devices == report.driven >= 6


def test_with_its_shim_revoked_it_would_not_start(probed: tuple[Machine, str, str], runner: Runner) -> None:
    machine = probed[0]
    assert machine.trust is not None
    level = "sbat,1,2099010100\nshim,99\n"
    trust = msgspec.structs.replace(machine.trust, sbat_level=level)
    with open_medium(DEFAULT_ISO) as medium:
        report = check_medium(medium, {"it": msgspec.structs.replace(machine, trust=trust)}, runner).machines[0]
    assert [(one.kind, one.severity) for one in report.findings if one.severity is not Severity.NOTE] == [
        (FindingKind.SBAT, Severity.BLOCKS)
    ]
