"""A system's tools find its encrypted containers open under the names of its crypttab, and only they and only then."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from core.errors import ProcessError
from core.events import ignore
from core.stopping import stoppable
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
from images.model.stack import Luks
from restore.boot import repair
from restore.boot.crypttab import erased_at_start, named_by_crypttab, opens_something, sealed
from restore.boot.held import Held, HeldPartition
from restore.boot.mounts import Root
from restore.stack.mountable import OpenedLuks, StackDevice
from tests.runners import ScriptedRunner

UUID = "6d1a7f5e-2f0b-4c8a-9a0e-3b7f1c2d4e5f"
EXT4 = Filesystem(kind=FilesystemKind.EXT4, uuid="aa")
PART = Partition(
    id="part5",
    number=5,
    start_lba=200704,
    sector_count=4096,
    type="0x83",
    role=PartitionRole.LOGICAL,
    name="sealed",
    filesystem=Filesystem(kind=FilesystemKind.UNKNOWN, uuid=UUID, detail="crypto_LUKS"),
)
LUKS = Luks(id="luks0", uuid=UUID, device="part5", version=2, payload_offset=16 << 20, size=1 << 30, label="safe")
OPENED = OpenedLuks(LUKS, f"/dev/mapper/luks-{UUID}", "/dev/nvme0n1p5")
ROOT = StackDevice(id="lv0", filesystem=EXT4, names=("/dev/mapper/vg-root",), modules=frozenset({"dm_mod", "dm_crypt"}))


@pytest.mark.parametrize("size", [0, 83])
def test_an_initramfs_that_opens_nothing_has_an_empty_crypttab(size: int) -> None:
    # lsinitramfs -l, Debian 13.
    listing = f"""drwxr-xr-x   2 root     root            0 Nov 21 13:47 cryptroot
-rw-r--r--   1 root     root         {size:4} Nov 21 13:47 cryptroot/crypttab
-rwxr-xr-x   1 root     root         1200 Nov 21 13:47 scripts/local-top/cryptroot
"""
    assert opens_something(listing) is bool(size)
    assert not opens_something(listing.replace("cryptroot/crypttab", "etc/cryptroot/crypttab2"))


def _system(crypttab: str | None) -> Callable[[tuple[str, ...]], str]:
    """A root with files when it is mounted."""

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "mount" and argv[-2] in ("/dev/mapper/vg-root", OPENED.node, "/dev/mapper/sda5_crypt"):
            etc = Path(argv[-1]) / "etc"
            etc.mkdir()
            (etc / "fstab").write_text("/dev/mapper/vg-root / ext4 defaults 0 1\n")
            (etc.parent / "usr/lib").mkdir(parents=True)
            (etc.parent / "usr/lib/os-release").write_text("ID=debian\n")
            if crypttab is not None:
                (etc / "crypttab").write_text(crypttab)
        return ""

    return answer


def _renames(runner: ScriptedRunner) -> list[tuple[str, ...]]:
    return [call[2:] for call in runner.calls if call[:2] == ("dmsetup", "rename")]


@pytest.mark.parametrize(
    "spec",
    [f"UUID={UUID.upper()}", f"/dev/disk/by-uuid/{UUID}", "LABEL=safe", "PARTLABEL=sealed", "PARTUUID=1234abcd-05"],
)
def test_a_container_has_the_name_of_crypttab_until_the_tools_are_done(spec: str, tmp_path: Path) -> None:
    runner = ScriptedRunner(_system(f"swap /dev/sda2 /dev/urandom swap\nsda5_crypt {spec} none luks\n"))
    held = HeldPartition(partition=PART, disk="/dev/nvme0n1", partuuid="1234abcd-05")
    nodes: dict[str, Held] = {"/dev/nvme0n1p5": held, "/dev/mapper/vg-root": ROOT}
    found = Root("/dev/mapper/vg-root")
    with named_by_crypttab(found, nodes, (OPENED,), runner, pytest.fail, tmp_path) as (root, now):
        assert (root, now) == (found, nodes)
        assert _renames(runner) == [(f"luks-{UUID}", "sda5_crypt")]
        # What the root was looked at through is gone: it would be mounted twice.
        assert (
            sum(call[0] == "mount" for call in runner.calls) == sum(call[0] == "umount" for call in runner.calls) == 1
        )
    assert _renames(runner) == [(f"luks-{UUID}", "sda5_crypt"), ("sda5_crypt", f"luks-{UUID}")]


def test_a_path_names_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to("/dev/nvme0n1p5")
    # Such a path is one of the machine's own: /dev/disk/by-id, /dev/md/NAME.
    line = f"sda5_crypt /dev/../{tmp_path}/by-id none luks\n"
    runner = ScriptedRunner(_system(line))
    nodes: dict[str, Held] = {"/dev/mapper/vg-root": ROOT}
    with named_by_crypttab(Root("/dev/mapper/vg-root"), nodes, (OPENED,), runner, pytest.fail, tmp_path):
        assert _renames(runner) == [(f"luks-{UUID}", "sda5_crypt")]


def test_a_root_that_is_the_container_itself_has_its_new_node(tmp_path: Path) -> None:
    runner = ScriptedRunner(_system(f"sda5_crypt UUID={UUID} none luks\n"))
    nodes: dict[str, Held] = {OPENED.node: ROOT}
    with named_by_crypttab(Root(OPENED.node, "@"), nodes, (OPENED,), runner, pytest.fail, tmp_path) as (root, now):
        node = str(tmp_path / "sda5_crypt")
        assert root == Root(node, "@")
        (held,) = now.values()
        assert isinstance(held, StackDevice) and held.names == (*ROOT.names, node)
    mounts = [call for call in runner.calls if call[0] == "mount"]
    assert [call[:-1] for call in mounts] == [("mount", "--options", "ro,subvol=@", OPENED.node)]


@pytest.mark.parametrize(
    ("crypttab", "said"),
    [
        (None, ""),
        (f"luks-{UUID} UUID={UUID} none\n", ""),
        ("sda5_crypt UUID=other none luks\n", "No line of"),
        ("sda5_crypt /dev/sda5 none luks\n", "No line of"),
        (f"../sda5 UUID={UUID} none luks\n", "cannot be of that name"),
        (f"-sda5 UUID={UUID} none luks\n", "cannot be of that name"),
        (f".. UUID={UUID} none luks\n", "of that name"),
        (f"taken UUID={UUID} none luks\n", "this machine has another one of that name"),
    ],
)
def test_what_keeps_its_name(crypttab: str | None, said: str, tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "taken").touch()
    runner = ScriptedRunner(_system(crypttab))
    nodes: dict[str, Held] = {"/dev/mapper/vg-root": ROOT}
    with named_by_crypttab(Root("/dev/mapper/vg-root"), nodes, (OPENED,), runner, told.append, tmp_path):
        assert _renames(runner) == []
    assert len(told) == bool(said)
    assert all(said in line and UUID in line for line in told)


def test_nothing_is_looked_at_when_nothing_is_open() -> None:
    runner = ScriptedRunner(_system(None))
    with named_by_crypttab(Root("/dev/mapper/vg-root"), {"/dev/mapper/vg-root": ROOT}, (), runner, pytest.fail):
        assert runner.calls == []


def test_a_mapping_gets_its_name_back_after_a_failure(tmp_path: Path) -> None:
    runner = ScriptedRunner(_system(f"sda5_crypt UUID={UUID} none luks\n"))
    nodes: dict[str, Held] = {"/dev/mapper/vg-root": ROOT}
    with pytest.raises(ProcessError):
        with named_by_crypttab(Root("/dev/mapper/vg-root"), nodes, (OPENED,), runner, pytest.fail, tmp_path):
            raise ProcessError(("update-initramfs",), 1, "")
    assert _renames(runner)[-1] == ("sda5_crypt", f"luks-{UUID}")


def test_a_mapping_gets_its_name_back_when_somebody_stops_the_renaming(tmp_path: Path) -> None:
    good = _system(f"sda5_crypt UUID={UUID} none luks\n")

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "udevadm" and len(_renames(runner)) == 1:
            signal.raise_signal(signal.SIGINT)
        return good(argv)

    runner = ScriptedRunner(answer)
    nodes: dict[str, Held] = {"/dev/mapper/vg-root": ROOT}
    with pytest.raises(KeyboardInterrupt), stoppable():
        with named_by_crypttab(Root("/dev/mapper/vg-root"), nodes, (OPENED,), runner, pytest.fail, tmp_path):
            pytest.fail("it was stopped before")
    assert _renames(runner)[-1] == ("sda5_crypt", f"luks-{UUID}")


@pytest.mark.parametrize("opened", [(), (OPENED,)])
def test_a_system_that_may_lie_in_what_nobody_opened_is_said_to(
    opened: tuple[OpenedLuks, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Loop devices for partitions are for root; here none is made.
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    held = HeldPartition(partition=PART, disk="/dev/nvme0n1", partuuid="1234abcd-05")
    array = StackDevice(
        id="md0",
        filesystem=Filesystem(kind=FilesystemKind.UNKNOWN, detail="crypto_LUKS"),
        names=(),
        modules=frozenset(),
    )
    nodes: dict[str, Held] = {"/dev/nvme0n1p5": held, "/dev/mapper/vg-root": ROOT}
    assert sealed(nodes, opened) == ("" if opened else " (partition 5: encrypted, and captured without a key)")
    others: dict[str, Held] = {"/dev/md/0": array}
    assert "md0: encrypted" in sealed(others, opened)
    table = PartitionTable(kind=TableKind.DOS, identifier="0x1234abcd", partitions=(PART,))
    disk = Disk(id="disk0", identity=DiskIdentity(), size=1 << 30, sector_size=512, table=table)
    runner, around = ScriptedRunner(lambda argv: "/dev/loop0\n"), repair.Around(opened=opened)
    done = repair.repair_boot("/dev/none", disk, Firmware.BIOS, runner, ignore, around=around)
    assert [("partition 5" in line) for line in done.warnings] == [not opened]


@pytest.mark.parametrize(
    ("filesystem", "what"),
    [
        (Filesystem(kind=FilesystemKind.SWAP, detail="swap"), ""),
        (Filesystem(kind=FilesystemKind.UNKNOWN), ""),
        (None, ""),
        (EXT4, "holds ext4"),
        (Filesystem(kind=FilesystemKind.UNKNOWN, detail="crypto_LUKS"), "holds crypto_LUKS"),
    ],
)
def test_a_partition_that_is_no_swap_and_would_be_erased_is_said(
    filesystem: Filesystem | None, what: str, tmp_path: Path
) -> None:
    """With a random key crypttab(5) makes swap anew at every start, on whatever has the name."""
    node, other = tmp_path / "sda2", tmp_path / "sdb1"
    for path in (node, other):
        path.touch()
    held = HeldPartition(
        partition=msgspec.structs.replace(PART, filesystem=filesystem), disk="/dev/sda", partuuid="1234abcd-05"
    )
    device, gone, stranger = (f"/dev/../{path}" for path in (node, tmp_path / "sdc1", other))
    (tmp_path / "etc").mkdir()
    assert erased_at_start(tmp_path, {str(node): held}) == ()
    (tmp_path / "etc/crypttab").write_text(
        f"data {device} none luks\nswap {device} /dev/urandom swap\nold {gone} /dev/urandom swap\n"
        f"id /dev/disk/by-uuid/{UUID} /dev/urandom swap\n"
    )
    said = erased_at_start(tmp_path, {str(node): held})
    assert [f"{device} {what}: change" in line and "has swap made anew" in line for line in said] == [True] * bool(what)
    (tmp_path / "etc/crypttab").write_text(f"far {stranger} /dev/random swap\n")
    (line,) = erased_at_start(tmp_path, {str(node): held})
    assert f"{stranger} is not on the restored disks" in line


KERNEL = "6.12.1-amd64"


@pytest.mark.parametrize("size", [0, 83])
def test_the_initramfs_is_made_while_the_container_has_its_name_and_looked_into(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's hook makes one that opens nothing when it finds no container of the name in crypttab, and says 0."""
    made: list[bool] = []
    system = _system(f"sda5_crypt UUID={UUID} none luks\n")

    def answer(argv: tuple[str, ...]) -> str:
        system(argv)
        if argv[0] == "mount" and argv[-2] == "/dev/mapper/vg-root":
            root = Path(argv[-1])
            for name in (f"boot/vmlinuz-{KERNEL}", f"lib/modules/{KERNEL}/modules.dep", "usr/sbin/update-initramfs"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).touch()
            (root / "etc/initramfs-tools").mkdir()
        if "--resolve-alias" in argv:
            return "nvme\n"
        if "update-initramfs" in argv:
            made.append(True)
        if "lsinitramfs" in argv:
            modules = ["kernel/dm-mod.ko.xz", "kernel/dm-crypt.ko.xz", *(["kernel/nvme.ko.xz"] if made else [])]
            files = [(f"usr/lib/modules/{KERNEL}/{name}", 9) for name in modules] + [("cryptroot/crypttab", size)]
            return "".join(f"-rw-r--r--   1 root     root {length:12} Nov 21 13:47 {name}\n" for name, length in files)
        return ""

    monkeypatch.setattr(repair, "disk_aliases", lambda node: ("pci:v1bc01",))
    runner = ScriptedRunner(answer)
    table = PartitionTable(kind=TableKind.DOS, identifier="0x1234abcd", partitions=())
    disk = Disk(id="disk0", identity=DiskIdentity(), size=1 << 30, sector_size=512, table=table)
    others: dict[str, Held] = {"/dev/mapper/vg-root": ROOT}
    around = repair.Around(others=others, opened=(OPENED,))
    done = repair.repair_boot("/dev/nvme0n1", disk, Firmware.BIOS, runner, ignore, around=around)
    verbs = [word for call in runner.calls for word in call if word in ("rename", "update-initramfs")]
    assert verbs == ["rename", "update-initramfs", "rename"]
    assert f"initramfs of {KERNEL} made again with nvme" in done.actions
    warned = [line for line in done.warnings if "does not open the LUKS container" in line]
    assert len(warned) == (size == 0)
