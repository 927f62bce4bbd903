"""What UEFI firmware is told: an entry for the EFI system partition that the system uses, on whichever disk it lies."""

import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from core.events import ignore
from images.model.filesystem import Filesystem
from images.model.layout import (
    Disk,
    DiskIdentity,
    FilesystemKind,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from images.model.machine import Firmware
from restore.boot.held import HeldPartition, held_partitions
from restore.boot.repair import BootRepair, repair_boot
from restore.boot.system import uefi_names
from tests.runners import ScriptedRunner

NAMES = uefi_names(os.uname().machine)
GUIDS = {number: UUID(f"b7a9d2c4-3c1e-4a5e-9d60-0123456789a{number}") for number in range(4)}


def _part(number: int, uuid: str, kind: FilesystemKind, role: PartitionRole = PartitionRole.PRIMARY) -> Partition:
    return Partition(
        id=f"part{number}",
        number=number,
        start_lba=2048 * number,
        sector_count=2048,
        type="",
        role=role,
        uuid=GUIDS[number],
        filesystem=Filesystem(kind=kind, uuid=uuid),
    )


def _esp(number: int, uuid: str) -> Partition:
    return _part(number, uuid, FilesystemKind.FAT32, PartitionRole.ESP)


def _disk(name: str, *partitions: Partition, kind: TableKind = TableKind.GPT) -> Disk:
    table = PartitionTable(kind=kind, identifier="", partitions=partitions)
    return Disk(id=name, identity=DiskIdentity(), size=1 << 30, sector_size=512, table=table)


ROOT = _part(2, "aa", FilesystemKind.EXT4)


def _answer(nodes: dict[str, Partition], entries: str) -> Callable[[tuple[str, ...]], str]:
    """The root and the ESP that its fstab names (UUID ee) have files; loop devices are called after the offset."""

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "losetup" and "--show" in argv:
            start = next(int(word.partition("=")[2]) for word in argv if word.startswith("--offset="))
            return f"/dev/loop{start // (2048 * 512)}\n"
        if argv[0] == "efibootmgr":
            return entries if "--verbose" in argv else ""
        if argv[0] == "mount" and argv[-2] in nodes:
            held, place = nodes[argv[-2]].filesystem, Path(argv[-1])
            if held is not None and held.uuid == "aa":
                for name in ("etc/fstab", "usr/lib/os-release"):
                    (place / name).parent.mkdir(parents=True)
                (place / "etc/fstab").write_text("UUID=aa / ext4 defaults 0 1\nUUID=ee /boot/efi vfat defaults 0 2\n")
                (place / "usr/lib/os-release").write_text("ID=debian\n")
            elif held is not None and held.uuid == "ee":
                for name in (f"EFI/debian/{NAMES.loaders[0]}", NAMES.fallback):
                    (place / name).parent.mkdir(parents=True)
                    (place / name).touch()
        return ""

    return answer


def _repaired(
    planned: Disk, other: Disk, variables: Path, monkeypatch: pytest.MonkeyPatch, entries: str = ""
) -> tuple[BootRepair, list[tuple[str, ...]]]:
    """The boot of /dev/planned repaired with /dev/other beside it, and what efibootmgr was asked for."""
    # Loop devices for partitions are for root; here none is made.
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    others: dict[str, HeldPartition] = {
        f"/dev/other{held.partition.number}": held for held in held_partitions("/dev/other", other)
    }
    nodes = {node: held.partition for node, held in others.items()}
    nodes |= {f"/dev/loop{held.partition.number}": held.partition for held in held_partitions("/dev/planned", planned)}
    runner = ScriptedRunner(_answer(nodes, entries))
    done = repair_boot(
        "/dev/planned",
        planned,
        Firmware.UEFI,
        runner,
        ignore,
        others=others,
        other_disks={"/dev/other": other},
        efi_variables=variables,
    )
    return done, [call for call in runner.calls if call[0] == "efibootmgr"]


@pytest.fixture
def variables(tmp_path: Path) -> Path:
    (tmp_path / "efivars").mkdir()
    (tmp_path / "efivars" / "BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c").touch()
    return tmp_path / "efivars"


@pytest.mark.parametrize(
    ("planned", "other", "disk", "part"),
    [
        # The plan names the disk with the ESP; the root lies on the other one.
        (_disk("a", _esp(1, "ee")), _disk("b", ROOT), "/dev/planned", 1),
        # The disk of the root has an ESP that the system does not use.
        (_disk("a", _esp(1, "ff"), ROOT), _disk("b", _esp(3, "ee")), "/dev/other", 3),
        # Of a dos table there is no partition that the firmware could be told by its GUID.
        (_disk("a", _esp(1, "ee"), ROOT), _disk("b", _esp(3, "ff"), kind=TableKind.DOS), "/dev/planned", 1),
    ],
)
def test_the_entry_names_the_disk_with_the_esp_that_is_used(
    planned: Disk, other: Disk, disk: str, part: int, variables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, calls = _repaired(planned, other, variables, monkeypatch)
    assert done.warnings == ()
    # efibootmgr(8); UEFI spells paths with backslashes.
    loader = rf"\EFI\debian\{NAMES.loaders[0]}"
    assert calls == [
        ("efibootmgr", "--verbose"),
        (
            *("efibootmgr", "--create", "--disk", disk, "--part", str(part)),
            *("--label", "debian", "--loader", loader),
        ),
    ]


def test_an_entry_that_is_there_is_not_made_again(variables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = f"Boot0000* debian HD(3,GPT,{GUIDS[3]},0x800,0x800)/File(x)\n".upper()
    planned, other = _disk("a", _esp(1, "ff"), ROOT), _disk("b", _esp(3, "ee"))
    assert _repaired(planned, other, variables, monkeypatch, entry)[1] == [("efibootmgr", "--verbose")]
    # The entry of another ESP is none of this one's.
    assert len(_repaired(planned, other, variables, monkeypatch, entry.replace("9A3", "9A1"))[1]) == 2


def test_firmware_without_variables_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert _repaired(_disk("a", _esp(1, "ee")), _disk("b", ROOT), folder, monkeypatch)[1] == []
