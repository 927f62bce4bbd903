from collections.abc import Mapping
from pathlib import Path

from core.process import Result
from restore.boot.drivers import builtin_drivers, disk_aliases, modules_in, needed_drivers
from restore.boot.repair import _add_modules
from tests.runners import ScriptedRunner

#: Debian 13's /etc/initramfs-tools/modules: its comment names a module as an example.
DEBIAN_MODULES = """\
# List of modules that you want to include in your initramfs.
# They will be loaded at boot time in the order below.
#
# Syntax:  module_name [args ...]
#
# Examples:
#
# raid1
# sd_mod
virtio_blk
"""


def modprobe(answers: Mapping[str, str]) -> ScriptedRunner:
    """Answers as kmod does: 1 for an alias that no module claims."""

    def answer(argv: tuple[str, ...]) -> Result:
        assert argv[0] == "modprobe"
        found = answers.get(argv[-1], "")
        return Result(0 if found else 1, found, "")

    return ScriptedRunner(answer)


def test_a_name_in_a_comment_is_not_a_listed_module(tmp_path: Path) -> None:
    path = tmp_path / "modules"
    path.write_text(DEBIAN_MODULES)
    _add_modules(path, ["ahci", "sd_mod", "virtio_blk"])
    listed = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert listed == ["virtio_blk", "ahci", "sd_mod"]


def test_adding_again_changes_nothing_but_is_possible_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / "modules"
    _add_modules(path, ["nvme"])
    _add_modules(path, ["nvme"])
    assert path.read_text().split().count("nvme") == 1


def test_the_chain_from_the_disk_to_the_bus(tmp_path: Path) -> None:
    pci = tmp_path / "devices/pci0000:00/0000:00:1f.2"
    disk = pci / "ata1/host0/target0:0:0/0:0:0:0/block/sda"
    disk.mkdir(parents=True)
    (pci / "modalias").write_text("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01\n")
    (disk.parent.parent / "modalias").write_text("scsi:t-0x00\n")
    (tmp_path / "class/block").mkdir(parents=True)
    (tmp_path / "class/block/sda").symlink_to(disk)
    assert disk_aliases("/dev/sda", sys=tmp_path) == (
        "scsi:t-0x00",
        "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
    )


def test_a_controller_without_a_driver_is_named() -> None:
    runner = modprobe({"scsi:t-0x00": "sd_mod\n", "pci:xbc01sc06i01": ""})
    found = needed_drivers(Path("/r"), "6.12", ("scsi:t-0x00", "pci:xbc01sc06i01", "platform:x"), runner)
    assert found.needed == {"sd_mod"}
    assert found.unknown == ("pci:xbc01sc06i01",)


def test_a_driver_inside_the_kernel_is_not_missing(tmp_path: Path) -> None:
    folder = tmp_path / "lib/modules/6.12"
    folder.mkdir(parents=True)
    (folder / "modules.builtin.modinfo").write_bytes(b"nvme.license=GPL\0nvme.alias=pci:v*bc01sc08i02*\0")
    alias = "pci:v00001B36d00000010bc01sc08i02"
    assert needed_drivers(tmp_path, "6.12", (alias,), modprobe({})).unknown == ()
    assert needed_drivers(tmp_path, "6.11", (alias,), modprobe({})).unknown == (alias,)


def test_names_are_spelled_one_way(tmp_path: Path) -> None:
    assert modules_in("usr/lib/modules/6/kernel/drivers/ata/ahci.ko.xz\nx/virtio-blk.ko\nx/readme") == {
        "ahci",
        "virtio_blk",
    }
    folder = tmp_path / "lib/modules/6"
    folder.mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    assert builtin_drivers(tmp_path, "6") == {"ext4"}
    assert builtin_drivers(tmp_path, "7") == frozenset()
