"""What UEFI firmware is told: an entry for the EFI system partition that the system uses, on whichever disk it lies."""

import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from core.errors import ProcessError
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
from restore.boot.repair import Around, BootRepair, repair_boot
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


#: As Debian's grub-install writes it beside a signed GRUB; without one GRUB has that in it.
CFG = "search.fs_uuid {} root mduuid/1\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"
ONE, TWO = "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a001", "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a002"
#: The files of EFI system partitions by their UUID: the one that fstab names, the same, another Debian's, and one each
#: of a GRUB that is not signed.
STUBS = {
    "ee": {"grub.cfg": CFG.format(ONE)},
    "e2": {"grub.cfg": CFG.format(ONE).replace(" mduuid/1", "")},
    "e3": {"grub.cfg": CFG.format(TWO)},
    "e4": {NAMES.loaders[-1]: "core of one"},
}
#: As firmware spells paths.
LOADER, FALLBACK = rf"\EFI\debian\{NAMES.loaders[0]}", "\\" + NAMES.fallback.replace("/", "\\")
ROOT = _part(2, "aa", FilesystemKind.EXT4)


def _answer(nodes: dict[str, Partition], entries: str, program: str) -> Callable[[tuple[str, ...]], str]:
    """The root and ESPs of ``STUBS`` have files, of which fstab names ee; loop devices are called after the offset.
    GRUB's files for UEFI are installed."""

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "losetup" and "--show" in argv:
            start = next(int(word.partition("=")[2]) for word in argv if word.startswith("--offset="))
            return f"/dev/loop{start // (2048 * 512)}\n"
        if argv[0] == "efibootmgr":
            # It prints them after every change, what it has made before all others (efibootmgr.c, add_to_order).
            made = entries.replace("BootOrder: ", "BootOrder: 0007,") + "Boot0007* debian\tHD(x)\n"
            return entries if "--verbose" in argv else made
        if argv[0] == "mount" and argv[-2] in nodes:
            held, place = nodes[argv[-2]].filesystem, Path(argv[-1])
            if held is not None and held.uuid == "aa":
                for name in ("etc/fstab", "usr/lib/os-release"):
                    (place / name).parent.mkdir(parents=True)
                (place / "run").mkdir()
                (place / "usr/sbin").mkdir(parents=True)
                (place / "usr/sbin" / program).touch()
                (place / "usr/lib/grub" / NAMES.grub).mkdir(parents=True)
                (place / "usr/lib/grub" / NAMES.grub / "modinfo.sh").touch()
                (place / "etc/fstab").write_text("UUID=aa / ext4 defaults 0 1\nUUID=ee /boot/efi vfat defaults 0 2\n")
                (place / "usr/lib/os-release").write_text("ID=debian\n")
            elif held is not None and held.uuid in STUBS:
                for name in (f"EFI/debian/{NAMES.loaders[0]}", NAMES.fallback):
                    (place / name).parent.mkdir(parents=True)
                    (place / name).touch()
                for name, content in STUBS[held.uuid].items():
                    (place / "EFI/debian" / name).write_text(content)
        return ""

    return answer


def _repaired(
    planned: Disk, other: Disk, variables: Path, monkeypatch: pytest.MonkeyPatch, entries: str = ""
) -> tuple[BootRepair, list[tuple[str, ...]]]:
    """The boot of /dev/planned repaired with /dev/other beside it, and what efibootmgr was asked for."""
    runner, done = _run(planned, other, variables, monkeypatch, entries)
    return done, [call for call in runner.calls if call[0] == "efibootmgr"]


def _run(
    planned: Disk,
    other: Disk,
    variables: Path,
    monkeypatch: pytest.MonkeyPatch,
    entries: str = "",
    broken: str = "",
    program: str = "grub-install",
) -> tuple[ScriptedRunner, BootRepair]:
    """The same, and all that was run. ``broken``: a node that is not mounted, a place that takes no GRUB."""
    # Loop devices for partitions are for root; here none is made.
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    others: dict[str, HeldPartition] = {
        f"/dev/other{held.partition.number}": held for held in held_partitions("/dev/other", other)
    }
    nodes = {node: held.partition for node, held in others.items()}
    nodes |= {f"/dev/loop{held.partition.number}": held.partition for held in held_partitions("/dev/planned", planned)}
    good = _answer(nodes, entries, program)

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "mount" and argv[-2] == broken:
            raise ProcessError(argv, 32, "wrong fs type")
        if broken and f"--efi-directory={broken}" in argv:
            raise ProcessError(argv, 1, "No space left on device")
        return good(argv)

    runner = ScriptedRunner(answer)
    done = repair_boot(
        "/dev/planned",
        planned,
        Firmware.UEFI,
        runner,
        ignore,
        around=Around(others=others, other_disks={"/dev/other": other}),
        efi_variables=variables,
    )
    return runner, done


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
    assert len(_installed(done)) == 1
    # efibootmgr(8); UEFI spells paths with backslashes.
    assert calls == [
        ("efibootmgr", "--verbose"),
        (
            *("efibootmgr", "--create", "--disk", disk, "--part", str(part)),
            *("--label", "debian", "--loader", LOADER),
        ),
    ]


@pytest.mark.parametrize(
    ("entry", "counts"),
    [
        # efibootmgr 17 and 18, with options of the firmware's behind the path; FAT and GUIDs know no case.
        (f"Boot0003* debian\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/File({LOADER})", True),
        (f"Boot0003* Debian 12\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/{LOADER}", True),
        (f"Boot0003* debian\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/File({LOADER})..BO", True),
        (f"Boot0003* debian\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/{LOADER}0000424f", True),
        (f"Boot0003* debian\tHD(3,GPT,{str(GUIDS[3]).upper()},0x800,0x800)/File({LOADER.upper()})", True),
        (f"Boot0003* debian\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/File({LOADER[1:]})", True),
        # The entry of another ESP is none of this one's, nor is that of another system on this one.
        (f"Boot0003* debian\tHD(1,GPT,{GUIDS[1]},0x800,0x800)/File({LOADER})", False),
        (f"Boot0003* Windows Boot Manager\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/File(\\EFI\\Microsoft\\x.efi)", False),
        (f"Boot0003* debian\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/File({LOADER}.old)", False),
        # Firmware makes and deletes it as it likes.
        (f"Boot0003* UEFI OS\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/File({FALLBACK})", False),
        # Switched off; in no order.
        (f"Boot0003  debian\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/File({LOADER})", False),
        (f"Boot0004* debian\tHD(3,GPT,{GUIDS[3]},0x800,0x800)/File({LOADER})", False),
    ],
)
def test_an_entry_counts_when_it_starts_the_loader_by_itself(
    entry: str, counts: bool, variables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, other = _disk("a", _esp(1, "ff"), ROOT), _disk("b", _esp(3, "ee"))
    done, calls = _repaired(planned, other, variables, monkeypatch, f"BootOrder: 0003,0001\n{entry}\n")
    assert done.warnings == ()
    assert [call[1] for call in calls] == ["--verbose"] + ["--create"] * (not counts)
    assert ("the firmware already has a boot entry for /dev/other" in done.actions) is counts


def test_the_entry_of_a_second_esp_does_not_come_before_the_one_that_there_is(
    variables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system keeps the GRUB on the ESP that it mounts up to date, and that on no other."""
    planned, other = _disk("a", _esp(1, "ee"), ROOT), _disk("b", _esp(3, "e2"))
    # The number of an entry that is gone may stand in the order; efibootmgr refuses it.
    entries = (
        "BootCurrent: 0003\nTimeout: 1 seconds\nBootOrder: 0003,000A,0009\n"
        f"Boot0003* debian\tHD(1,GPT,{GUIDS[1]},0x800,0x800)/File({LOADER})\nBoot000A* PXE\tBBS\n"
    )
    done, calls = _repaired(planned, other, variables, monkeypatch, entries)
    assert done.warnings == ()
    assert [call[1] for call in calls] == ["--verbose", "--create", "--bootorder", "--verbose"]
    assert calls[2][2] == "0003,000A,0007"


def test_firmware_without_variables_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert _repaired(_disk("a", _esp(1, "ee")), _disk("b", ROOT), folder, monkeypatch)[1] == []


def _installed(done: BootRepair) -> list[str]:
    return [line for line in done.actions if "installed" in line]


def test_a_system_with_an_esp_on_each_disk_is_started_from_both(
    variables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that its fstab names comes first: efibootmgr puts what it makes before all others."""
    planned, other = _disk("a", _esp(1, "ee"), ROOT), _disk("b", _esp(3, "e2"))
    runner, done = _run(planned, other, variables, monkeypatch)
    assert done.warnings == ()
    assert len(_installed(done)) == 2 and "/dev/other, too" in _installed(done)[1]
    folders = [word for call in runner.calls for word in call if word.startswith("--efi-directory=")]
    assert folders[0] == "--efi-directory=/boot/efi"
    assert folders[1].startswith("--efi-directory=/run/liferaft-esp-") and len(folders) == 2
    made = [call for call in runner.calls if "--create" in call]
    assert [call[3:6:2] for call in made] == [("/dev/other", "3"), ("/dev/planned", "1")]
    # The second one is let go of before the system's own places are.
    ends = [call[1] for call in runner.calls if call[0] == "umount" and "liferaft-look-" not in call[1]]
    assert ["/run/liferaft-esp-" in end for end in ends].index(True) == 0
    assert any(end.endswith("/boot/efi") for end in ends[1:])


def test_a_second_esp_that_cannot_be_mounted_is_a_warning(variables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned, other = _disk("a", _esp(1, "ee"), ROOT), _disk("b", _esp(3, "e2"))
    _, done = _run(planned, other, variables, monkeypatch, broken="/dev/other3")
    assert len(_installed(done)) == 1
    (warning,) = done.warnings
    assert "the EFI system partition of /dev/other was not repaired" in warning


def test_an_esp_that_takes_no_grub_does_not_keep_the_rest_undone(
    variables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GRUB that was captured with it may start the system, when the firmware knows of it."""
    planned, other = _disk("a", _esp(1, "ee"), ROOT), _disk("b", _esp(3, "e2"))
    runner, done = _run(planned, other, variables, monkeypatch, broken="/boot/efi")
    assert len(_installed(done)) == 1 and "/dev/other, too" in _installed(done)[0]
    (warning,) = done.warnings
    assert warning.startswith("GRUB for UEFI was not installed on the EFI system partition: ")
    assert [call[3] for call in runner.calls if "--create" in call] == ["/dev/other", "/dev/planned"]


@pytest.mark.parametrize("uuid", ["e3", "e4", "ff"])
def test_an_esp_that_starts_another_system_of_that_name_is_left_alone(
    uuid: str, variables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, other = _disk("a", _esp(1, "ee"), ROOT), _disk("b", _esp(3, uuid))
    runner, done = _run(planned, other, variables, monkeypatch)
    assert done.warnings == ()
    assert len(_installed(done)) == 1
    assert [call[3] for call in runner.calls if "--create" in call] == ["/dev/planned"]


@pytest.mark.parametrize(("core", "same"), [("core of one", True), ("core of two", False)])
def test_a_grub_without_a_configuration_beside_it_is_known_by_itself(
    core: str, same: bool, variables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STUBS, "ee", {NAMES.loaders[-1]: core})
    planned, other = _disk("a", _esp(1, "ee"), ROOT), _disk("b", _esp(3, "e4"))
    _, done = _run(planned, other, variables, monkeypatch)
    assert len(_installed(done)) == 1 + same


def test_a_signed_grub_from_packages_is_not_written_over(variables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fedora's grub2-install refuses it; the entries for its own loader are written all the same."""
    planned, other = _disk("a", _esp(1, "ee"), ROOT), _disk("b", _esp(3, "e2"))
    runner, done = _run(planned, other, variables, monkeypatch, program="grub2-install")
    assert done.warnings == ()
    assert not [call for call in runner.calls if "--no-nvram" in call]
    assert [call[3] for call in runner.calls if "--create" in call] == ["/dev/other", "/dev/planned"]
