"""Preflight on a small medium whose modules gcc made; kmod says which of them drives what."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from builder.drivers.module_index import ModuleIndex
from builder.finished.opened import open_medium
from builder.preflight.findings import Finding, FindingKind, MachinePreflight, Severity
from core.documents import encode
from core.errors import DamagedError, UsageError
from core.process import SystemRunner
from images.model.machine import Firmware, Machine, MachineDevice, SecureBoot
from rescue.jobs.preflight import preflight, read_machines
from tests.flow.disks import need, run
from tests.flow.media import KERNEL_RELEASE, make_medium, make_module, make_tree

GIB = 1 << 30
LIFERAFT = str(Path(sys.executable).with_name("liferaft"))
AHCI = "pci:v00008086d0000A352sv00001028sd00000860bc01sc06i01"
E1000E = "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00"
BNX2 = "pci:v000014E4d0000163Bsv00001028sd0000028Cbc02sc00i00"
XHCI = "pci:v00001B21d00002142sv00001462sd00007B18bc0Csc03i30"
VMD = "pci:v00008086d0000467Fsv00001028sd00000AB0bc01sc04i00"
RST = "pci:v00008086d0000282Asv00001028sd00000798bc01sc04i00"
NVME = "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02"
SOUND = "pci:v00008086d0000A348sv00001028sd00000860bc04sc03i00"
WIFI = "pci:v00008086d00002723sv00008086sd00000084bc02sc80i00"
BRIDGE = "pci:v00008086d0000A382sv00008086sd00000000bc06sc01i00"
#: Modules as the kernel's tree has them: what each claims, needs, and asks for.
MODULES = {
    "drivers/ata/ahci.ko": ("alias=pci:v*d*sv*sd*bc01sc06i01*", "alias=pci:v00008086d0000282Asv*sd*bc*sc*i*"),
    "drivers/net/e1000e.ko": ("alias=pci:v00008086d000010D3sv*sd*bc*sc*i*",),
    "drivers/ptp/ptp-test.ko": ("firmware=ptp/clock.bin",),
    "drivers/net/bnx2.ko": (
        "alias=pci:v000014E4d0000163Bsv*sd*bc*sc*i*",
        "firmware=bnx2/bnx2-mips-09-6.2.1b.fw",
        "firmware=bnx2/bnx2-rv2p-09-6.0.17.fw",
    ),
    "drivers/usb/xhci-pci.ko": ("alias=pci:v*d*sv*sd*bc0Csc03i30*",),
    "drivers/pci/vmd.ko": ("alias=pci:v00008086d0000467Fsv*sd*bc*sc*i*",),
    "drivers/hid/odd-set.ko": ("alias=usb:v046Dp*d0[0-2]*dc*dsc*dp*ic03isc0[!1]ip*in*", "alias=of:N*T*Cacme,odd-part"),
}
PLACES = {BNX2: "0000:04:00.0", E1000E: "0000:00:19.0"}


class Bench(msgspec.Struct):
    iso: Path
    tree: Path
    folder: Path


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    need("gcc", "depmod", "modprobe", "mksquashfs", "unsquashfs", "xorriso", "cpio")
    folder, runner = tmp_path_factory.mktemp("preflight"), SystemRunner()
    made = {
        name: make_module(
            folder / "modules" / Path(name).name,
            runner,
            info=info,
            imports=("ptp_clock_register",) if "e1000e" in name else (),
            exports=("ptp_clock_register",) if "ptp" in name else (),
        )
        for name, info in MODULES.items()
    }
    tree = make_tree(folder / "tree", made, runner)
    firmware = tree / "usr/lib/firmware/ptp/clock.bin.zst"
    firmware.parent.mkdir(parents=True)
    firmware.write_bytes(b"firmware")
    early = folder / "early"
    early.mkdir()
    return Bench(make_medium(folder / "iso", tree, early, runner), tree, folder)


def machine(*aliases: str, devices: tuple[MachineDevice, ...] = (), **fields: object) -> Machine:
    whole = {
        "firmware": Firmware.BIOS,
        "secure_boot": SecureBoot.UNKNOWN,
        "architecture": "x86_64",
        "ram": 8 * GIB,
        "product": "OptiPlex 7060",
        "disks": (),
        "nics": (),
        "modaliases": tuple(sorted(aliases)),
        "devices": devices,
        **fields,
    }
    return Machine(**whole)  # type: ignore[arg-type]


@pytest.fixture
def judge(bench: Bench, tmp_path: Path) -> Callable[[Machine], MachinePreflight]:
    def judge(one: Machine) -> MachinePreflight:
        document = tmp_path / "machine.json"
        document.write_bytes(encode(one))
        return preflight(bench.iso, (document,), SystemRunner()).machines[0]

    return judge


def of_kind(report: MachinePreflight, kind: FindingKind) -> list[Finding]:
    return [finding for finding in report.findings if finding.kind is kind]


@pytest.mark.parametrize(
    "alias",
    [
        *(AHCI, E1000E, BNX2, XHCI, VMD, RST, NVME, SOUND, BRIDGE),
        "usb:v046DpC31Cd0101dc00dsc00dp00ic03isc00ip01in00",
        "usb:v046DpC31Cd0101dc00dsc00dp00ic03isc01ip01in00",
        "usb:v046DpC31Cd0301dc00dsc00dp00ic03isc00ip01in00",
        "of:NsomethingT(null)Cacme,odd-part",
        "of:NsomethingT(null)Cacme,odd_part",
        "of:NsomethingT(null)Cacme,odd-part2",
        "nonsense",
    ],
)
def test_modules_are_those_that_kmod_finds(alias: str, bench: Bench) -> None:
    folder = bench.tree / "usr/lib/modules" / KERNEL_RELEASE
    index = ModuleIndex(alias=(folder / "modules.alias").read_text(), dep=(folder / "modules.dep").read_text())
    said = run("modprobe", "-d", bench.tree, "-S", KERNEL_RELEASE, "-R", alias, success=(0, 1))
    assert index.claims(alias).modules == {name.replace("-", "_") for name in said.split()}


def test_a_module_brings_what_kmod_would_load_with_it(bench: Bench) -> None:
    folder = bench.tree / "usr/lib/modules" / KERNEL_RELEASE
    index = ModuleIndex(
        alias="", dep=(folder / "modules.dep").read_text(), softdep="softdep ahci pre: xhci_pci post: vmd\n"
    )
    said = run("modprobe", "-d", bench.tree, "-S", KERNEL_RELEASE, "--show-depends", "e1000e")
    named = {Path(line.split()[1]).name.removesuffix(".ko").replace("-", "_") for line in said.splitlines()}
    assert index.closure(frozenset({"e1000e"})) == named == {"e1000e", "ptp_test"}
    assert index.closure(frozenset({"ahci"})) == {"ahci", "xhci_pci", "vmd"}


#: QEMU's virtio disk: vendor and device of the VIRTIO specification, 4.1.2.
VIRTIO_DISK = "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00"


def test_what_the_kernel_has_in_its_image_drives_though_no_alias_says_so() -> None:
    """From the lists of Debian's linux-image-6.12.117+deb13-cloud-amd64: names, and no alias of these drivers."""
    builtin = "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/nvme/host/nvme.ko\n"
    index = ModuleIndex(alias="", dep="", builtin=builtin, builtin_modinfo="nvme_core.license=GPL\0")
    assert index.claims(NVME).built_in == {"nvme"} and index.claims(VIRTIO_DISK).built_in == {"virtio_pci"}
    assert not any(index.claims(alias).driven for alias in (AHCI, XHCI, E1000E))


def test_a_machine_that_the_medium_drives(judge: Callable[[Machine], MachinePreflight]) -> None:
    report = judge(machine(AHCI, E1000E, XHCI, BRIDGE))
    assert (report.devices, report.driven, report.findings) == (3, 3, ())


def test_storage_without_a_driver(judge: Callable[[Machine], MachinePreflight]) -> None:
    device = MachineDevice(bus="pci", address="0000:01:00.0", modalias=NVME, driver="nvme")
    [found] = judge(machine(AHCI, E1000E, XHCI, NVME, devices=(device,))).findings
    assert (found.kind, found.severity, found.device) == (FindingKind.DRIVER, Severity.BLOCKS, "pci 0000:01:00.0")
    assert "144d:a808" in found.message
    assert "inject" in found.remedy and "nvme" in found.remedy


def test_a_stick_without_a_driver_blocks_nothing(judge: Callable[[Machine], MachinePreflight]) -> None:
    stick = "usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00"
    assert [one.severity for one in judge(machine(AHCI, XHCI, stick)).findings] == [Severity.WARNING]


def test_what_the_kernel_itself_has_is_no_gap(judge: Callable[[Machine], MachinePreflight]) -> None:
    """The small medium's modules.builtin names ext9."""
    device = MachineDevice(bus="pci", address="0000:01:00.0", modalias=NVME, driver="ext9")
    assert judge(machine(NVME, devices=(device,))).findings == ()


def test_network_and_wireless(judge: Callable[[Machine], MachinePreflight]) -> None:
    unknown = "pci:v0000D00Dd00000001sv00000000sd00000000bc02sc00i00"
    only = judge(machine(AHCI, unknown)).findings
    assert [(one.severity, one.modalias) for one in only] == [(Severity.BLOCKS, unknown)]
    second = judge(machine(AHCI, E1000E, unknown, WIFI)).findings
    assert [(one.severity, one.modalias) for one in second] == [(Severity.WARNING, unknown), (Severity.NOTE, WIFI)]
    assert "network.wifi" in second[1].remedy


def test_what_a_rescue_can_spare_is_one_note(judge: Callable[[Machine], MachinePreflight]) -> None:
    [found] = judge(machine(AHCI, SOUND)).findings
    assert found.severity is Severity.NOTE and "8086:a348" in found.message


def test_firmware_that_is_missing_names_its_package(judge: Callable[[Machine], MachinePreflight]) -> None:
    """Debian's Contents: bnx2/ is in firmware-bnx2. The clock's file is there, compressed."""
    report = judge(machine(AHCI, BNX2, E1000E))
    [found] = of_kind(report, FindingKind.FIRMWARE_FILE)
    assert (found.severity, found.modules) == (Severity.WARNING, ("bnx2",))
    assert found.files == ("bnx2/bnx2-mips-09-6.2.1b.fw", "bnx2/bnx2-rv2p-09-6.0.17.fw")
    assert 'firmware.packages = ["firmware-bnx2"]' in found.remedy


def test_raid_and_vmd_modes(judge: Callable[[Machine], MachinePreflight]) -> None:
    [vmd] = judge(machine(VMD)).findings
    assert (vmd.kind, vmd.severity) == (FindingKind.RAID_MODE, Severity.NOTE)
    [rst] = judge(machine(RST)).findings
    assert (rst.kind, rst.severity) == (FindingKind.RAID_MODE, Severity.WARNING)
    hiding = MachineDevice(bus="pci", address="0000:00:17.0", modalias=RST, driver="ahci", hidden_disks=2)
    [hidden] = judge(machine(RST, devices=(hiding,))).findings
    assert hidden.severity is Severity.BLOCKS and "hides 2 NVMe drives" in hidden.message
    # 8086:9a0b is VMD, too, but this medium's vmd does not know it.
    newer = "pci:v00008086d00009A0Bsv00000000sd00000000bc01sc04i00"
    [unknown] = judge(machine(newer)).findings
    assert (unknown.kind, unknown.severity) == (FindingKind.DRIVER, Severity.BLOCKS)
    assert "AHCI" in unknown.remedy


def test_unsigned_drivers_under_secure_boot(judge: Callable[[Machine], MachinePreflight]) -> None:
    """gcc signs nothing; a kernel under Secure Boot takes signed modules only."""
    report = judge(machine(AHCI, firmware=Firmware.UEFI, secure_boot=SecureBoot.ENABLED))
    [found] = of_kind(report, FindingKind.UNSIGNED_DRIVER)
    assert (found.severity, found.modules) == (Severity.BLOCKS, ("ahci",))
    assert of_kind(judge(machine(AHCI)), FindingKind.UNSIGNED_DRIVER) == []


def test_ram(bench: Bench, tmp_path: Path) -> None:
    """A kernel with 1 GiB counts less than that, and is not refused for it."""
    runner = SystemRunner()

    def needs(ram: int) -> bytes:
        with open_medium(bench.iso) as opened:
            assert opened.document is not None
            return encode(msgspec.structs.replace(opened.document, ram=ram, ram_copied=2 * ram))

    iso = bench.folder / "hungry.iso"
    run("cp", bench.iso, iso)
    (tmp_path / "medium.json").write_bytes(needs(GIB))
    run("xorriso", "-dev", iso, "-map", tmp_path / "medium.json", "/liferaft/medium.json", "-boot_image", "any", "keep")
    found = {}
    for megabytes in (900, 950, 1980, 4000):
        (tmp_path / "machine.json").write_bytes(encode(machine(AHCI, ram=megabytes << 20)))
        report = preflight(iso, (tmp_path / "machine.json",), runner).machines[0]
        found[megabytes] = [(one.kind, one.severity) for one in report.findings]
    note = (FindingKind.RAM, Severity.NOTE)
    assert found == {900: [(FindingKind.RAM, Severity.BLOCKS)], 950: [note], 1980: [], 4000: []}


def test_a_netboot_folder(bench: Bench, tmp_path: Path) -> None:
    """As write_netboot lays it out: the medium's files, and what firmware asks for at the top."""
    folder = tmp_path / "netboot"
    with open_medium(bench.iso) as opened:
        assert opened.document is not None
        for path in opened.paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            opened.extract(path, folder / path)
        hungry = msgspec.structs.replace(opened.document, ram=GIB, ram_copied=2 * GIB)
    (folder / "liferaft/medium.json").write_bytes(encode(hungry))
    document = tmp_path / "machine.json"
    document.write_bytes(encode(machine(AHCI, NVME, ram=1500 << 20)))
    found = preflight(folder, (document,), SystemRunner()).machines[0].findings
    assert [(one.kind, one.severity) for one in found] == [
        (FindingKind.RAM, Severity.BLOCKS),
        (FindingKind.DRIVER, Severity.BLOCKS),
    ]
    assert found[0].remedy == "Start it from CD or stick."


def test_another_architecture(judge: Callable[[Machine], MachinePreflight]) -> None:
    [found] = of_kind(judge(machine(AHCI, architecture="aarch64")), FindingKind.ARCHITECTURE)
    assert found.severity is Severity.BLOCKS and "arm64" in found.remedy


def test_a_document_without_devices_is_not_a_machine_without_needs(
    judge: Callable[[Machine], MachinePreflight],
) -> None:
    [found] = judge(machine()).findings
    assert (found.kind, found.severity) == (FindingKind.UNKNOWN, Severity.WARNING)


def test_a_document_of_liferaft_0_1_is_read(tmp_path: Path) -> None:
    old = {
        "version": 1,
        "firmware": "bios",
        "secure_boot": "unknown",
        "architecture": "x86_64",
        "ram": GIB,
        "product": "old",
        "disks": [],
        "nics": [],
        "modaliases": [AHCI],
    }
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert read_machines((tmp_path,))["old"].modaliases == (AHCI,)


def test_a_fleet_in_one_call(bench: Bench, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    fleet = {"db1": machine(AHCI, E1000E), "web1": machine(AHCI, BNX2), "web2": machine(NVME)}
    for name, one in fleet.items():
        (inventory / f"{name}.json").write_bytes(encode(one))
    words = (LIFERAFT, "preflight", "--machine", str(inventory), str(bench.iso))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[2:6]}
    assert rows["db1"].endswith("ready") and rows["web1"].endswith("warnings") and rows["web2"].endswith("NOT READY")
    told = subprocess.run((*words, "--json"), capture_output=True, timeout=60)
    levels = {
        one["name"]: {finding["severity"] for finding in one["findings"]} for one in json.loads(told.stdout)["machines"]
    }
    assert levels == {"db1": set(), "web1": {"warning"}, "web2": {"blocks"}}


def test_exit_codes(bench: Bench, tmp_path: Path) -> None:
    for name, one, code in (("fine", machine(AHCI), 0), ("perhaps", machine(BNX2), 4), ("no", machine(NVME), 3)):
        (tmp_path / name).write_bytes(encode(one))
        words = (LIFERAFT, "preflight", "--machine", str(tmp_path / name), str(bench.iso))
        assert subprocess.run(words, capture_output=True, timeout=60).returncode == code


def test_documents_that_are_none(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_machines((tmp_path / "no.json",))
    with pytest.raises(UsageError, match="no machine documents"):
        read_machines((tmp_path,))
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DamagedError, match=r"a\.json"):
        read_machines((tmp_path / "a.json",))
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a.json", tmp_path / "b/a.json"):
        path.write_bytes(encode(machine(AHCI)))
    with pytest.raises(UsageError, match="both be called a"):
        read_machines((tmp_path / "a.json", tmp_path / "b"))
    (tmp_path / "new.json").write_bytes(encode(machine(AHCI, version=2)))
    with pytest.raises(DamagedError, match="version: expected 1, found 2"):
        read_machines((tmp_path / "new.json",))


@pytest.mark.parametrize("what", ["cut", "altered", "not one"])
def test_media_that_cannot_be_read(what: str, bench: Bench, tmp_path: Path) -> None:
    whole = bytearray(bench.iso.read_bytes())
    place = whole.index((bench.iso.parent / "base.squashfs").read_bytes())
    match what:
        case "cut":
            whole = whole[: place + (bench.iso.parent / "base.squashfs").stat().st_size // 2]
        case "altered":
            # Where the squashfs says its tables are (its superblock, 64 bytes from offset 32).
            whole[place + 32 : place + 96] = bytes(64)
        case _:
            whole = bytearray(65536)
    iso, document = tmp_path / "bad.iso", tmp_path / "machine.json"
    iso.write_bytes(whole)
    document.write_bytes(encode(machine(AHCI)))
    with pytest.raises(DamagedError, match=r"bad\.iso"):
        preflight(iso, (document,), SystemRunner())


def test_this_machine_is_judged_without_a_document(bench: Bench) -> None:
    need("lsblk")
    report = preflight(bench.iso, (), SystemRunner())
    assert [one.name for one in report.machines] == ["this machine"]
