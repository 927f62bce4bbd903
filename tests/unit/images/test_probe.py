"""The guards of DESIGN §3.3, on recorded machines."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import DamagedError, RefusedError
from core.process import Result
from images.model.layout import DiskIdentity
from images.model.machine import Firmware, SecureBoot
from images.probe import block_devices, disk_of_path, machine_disk, probe_machine
from restore.plan.plan import TargetDisk
from restore.target.candidates import disk_candidate, find_target
from tests.runners import ScriptedRunner

GIB = 1 << 30


def device(name: str, **fields: Any) -> dict[str, Any]:
    """One device as lsblk --json --paths tells it."""
    return {
        "name": f"/dev/{name}",
        "kname": f"/dev/{name}",
        "type": "part",
        "size": GIB,
        "log-sec": 512,
        "phy-sec": 4096,
        "model": None,
        "serial": None,
        "wwn": None,
        "tran": None,
        "rm": False,
        "ro": False,
        "mountpoints": [None],
        "fstype": None,
        "label": None,
        **fields,
    }


def machine(*disks: dict[str, Any]) -> ScriptedRunner:
    return ScriptedRunner(lambda argv: json.dumps({"blockdevices": disks}))


def obstacles(disk: dict[str, Any]) -> tuple[str, ...]:
    return machine_disk(block_devices(machine(disk))[0]).obstacles


def test_a_free_disk_has_no_obstacle() -> None:
    assert obstacles(device("sda", type="disk", children=[device("sda1", fstype="ext4")])) == ()


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        (device("sda1", mountpoints=["/srv"]), "/dev/sda1 is mounted on /srv"),
        (device("sda1", mountpoints=["[SWAP]"]), "/dev/sda1 is used as swap"),
        (device("sda1", children=[device("mapper/vg-root", type="lvm")]), "/dev/mapper/vg-root (lvm) holds it"),
        (device("sda1", children=[device("md0", type="raid1")]), "/dev/md0 (raid1) holds it"),
        (
            device("sda1", children=[device("mapper/c", type="crypt", mountpoints=["/x"])]),
            "/dev/mapper/c is mounted on /x",
        ),
        (device("sda1", fstype="iso9660", label="LIFERAFT"), "/dev/sda carries the rescue medium"),
    ],
)
def test_what_is_in_use_is_no_target(child: dict[str, Any], reason: str) -> None:
    assert reason in obstacles(device("sda", type="disk", children=[child]))


def test_every_reason_is_given_not_only_the_first() -> None:
    disk = device("sda", type="disk", ro=True, children=[device("sda1", mountpoints=["/a", "/b"])])
    assert len(obstacles(disk)) == 3


def test_the_rescue_stick_itself() -> None:
    stick = device("sdb", type="disk", tran="usb", fstype="iso9660", label="LIFERAFT", mountpoints=["/run/live/medium"])
    assert len(obstacles(stick)) == 2


def test_the_disk_that_carries_the_repository_is_no_target(tmp_path: Path) -> None:
    devices = block_devices(
        machine(
            device("sda", type="disk", children=[device("sda1", mountpoints=["/"])]),
            device("sdb", type="disk", children=[device("sdb1", mountpoints=[str(tmp_path)])]),
        )
    )
    found = disk_of_path(devices, tmp_path / "backup" / "repo")
    assert found is devices[1], "the deepest mount decides"
    candidate = disk_candidate(machine_disk(devices[1]), f"{tmp_path}/backup", devices)
    assert any("carries the repository" in reason for reason in candidate.obstacles)
    elsewhere = disk_candidate(machine_disk(devices[1]), "http://server/backup", devices)
    assert not any("carries the repository" in reason for reason in elsewhere.obstacles)


def _target(**identity: str) -> TargetDisk:
    return TargetDisk(
        source="disk0", identity=DiskIdentity(**identity), file="", size=GIB, sector_size=512, destroys=()
    )


def test_a_target_is_found_again_under_another_name() -> None:
    runner = machine(
        device("sda", type="disk", serial="OTHER", model="M"), device("sdb", type="disk", serial="WANTED", model="M")
    )
    assert find_target(_target(serial="WANTED", model="M"), "http://r", runner).node == "/dev/sdb"


def test_the_wwn_decides() -> None:
    runner = machine(device("sda", type="disk", serial="S", wwn="w1"), device("sdb", type="disk", serial="S", wwn="w2"))
    assert find_target(_target(serial="S", wwn="w2"), "http://r", runner).node == "/dev/sdb"


def test_two_disks_that_look_the_same_are_not_guessed_between() -> None:
    runner = machine(device("sda", type="disk", model="QEMU"), device("sdb", type="disk", model="QEMU"))
    with pytest.raises(RefusedError, match="Several disks"):
        find_target(_target(model="QEMU"), "http://r", runner)


def test_a_disk_of_another_size_is_not_the_target() -> None:
    runner = machine(device("sda", type="disk", serial="S", size=2 * GIB))
    with pytest.raises(RefusedError, match="not in this machine"):
        find_target(_target(serial="S"), "http://r", runner)


def test_a_recorded_machine(tmp_path: Path) -> None:
    for name, content in {
        "proc/meminfo": "MemTotal:        1000000 kB\n",
        "sys/class/dmi/id/product_name": "PowerEdge R640\n",
        "sys/class/net/lo/address": "00:00:00:00:00:00\n",
        "sys/class/net/eno1/address": "aa:bb:cc:dd:ee:ff\n",
        "sys/class/net/eno1/operstate": "up\n",
        "sys/bus/pci/devices/0000:00:1f.2/modalias": "pci:v00008086d00002922\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    variable = tmp_path / "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    variable.parent.mkdir(parents=True)
    variable.write_bytes(b"\x06\0\0\0\x01")
    found = probe_machine(machine(device("zram0", type="disk"), device("sda", type="disk")), root=tmp_path)
    assert (found.firmware, found.secure_boot) == (Firmware.UEFI, SecureBoot.ENABLED)
    assert found.ram == 1_024_000_000
    assert found.product == "PowerEdge R640"
    assert [nic.name for nic in found.nics] == ["eno1"]
    assert found.modaliases == ("pci:v00008086d00002922",)
    assert [disk.node for disk in found.disks] == ["/dev/sda"]


def test_nonsense_from_lsblk_is_an_error_not_an_empty_machine() -> None:
    with pytest.raises(DamagedError, match="lsblk"):
        block_devices(ScriptedRunner(lambda argv: Result(0, "{", "")))
