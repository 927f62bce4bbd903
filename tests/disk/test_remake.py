"""Disks restored onto disks with other sectors, and onto smaller ones: volumes made anew, judged by mounting them."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.errors import LiferaftError, RefusedError
from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.plan.steps import RemakeFat, RemakeVolume, RestoreVolume
from restore.planning.rules import parse_rule
from tests.flow.disks import MIB, blank, make_tree, need, run

TOOLS = (
    "losetup",
    "sfdisk",
    "mkfs.fat",
    "mke2fs",
    "mkfs.xfs",
    "mkswap",
    "mount",
    "mcopy",
    "setfacl",
    "setcap",
    "blkid",
)
#: Start and size in MiB.
ESP, ROOT, DATA, SWAP = (1, 64), (65, 100), (165, 330), (495, 32)
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


@pytest.fixture(scope="module", autouse=True)
def _ready() -> None:
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    need(*TOOLS)


@contextlib.contextmanager
def loop(path: Path, sector_size: int = 512, *words: str) -> Iterator[Path]:
    node = run("losetup", "--find", "--show", f"--sector-size={sector_size}", *words, path).strip()
    try:
        yield Path(node)
    finally:
        run("losetup", "--detach", node)


@contextlib.contextmanager
def part(disk: Path, place: tuple[int, int], sector_size: int) -> Iterator[Path]:
    """A loop device over a part of a disk image; place in MiB."""
    start, size = place
    with loop(disk, sector_size, f"--offset={start * MIB}", f"--sizelimit={size * MIB}") as node:
        yield node


@contextlib.contextmanager
def mounted(node: Path, folder: Path, *words: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    run("mount", *words, node, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def rich_files(folder: Path) -> None:
    """Everything a file of Linux can be."""
    make_tree(folder / "plain")
    (folder / "sealed").write_bytes(b"secret")
    os.chown(folder / "sealed", 1234, 5678)
    (folder / "sealed").chmod(0o4751)
    os.link(folder / "sealed", folder / "plain" / "other name")
    (folder / "tool").write_bytes(b"\x7fELF")
    run("setcap", "cap_net_raw+ep", folder / "tool")
    (folder / "shared").mkdir(mode=0o2770)
    run("setfacl", "-m", "u:77:rwx,g:88:r-x", "-d", "-m", "u:77:rw-", folder / "shared")
    run("setfacl", "-m", "u:99:r--", folder / "plain" / "sparse")
    os.setxattr(folder / "plain" / "sparse", "user.note", b"\0binary\xff")
    os.setxattr(folder / "plain" / "sparse", "trusted.note", b"for root")
    os.mkfifo(folder / "pipe")
    os.mknod(folder / "disk", 0o060640, os.makedev(8, 17))
    os.mknod(folder / "null", 0o020666, os.makedev(1, 3))
    (folder / "dangling").symlink_to("/nowhere/at all")
    (folder / os.fsdecode(b"latin \xe9")).write_bytes(b"not UTF-8")
    os.utime(folder / "tool", ns=(1_234_567_890_123_456_789, 1_034_567_890_987_654_321))
    os.utime(folder / "shared", ns=(1_234_567_890_123_456_789, 1_134_567_890_000_000_001))


def facts(folder: Path) -> dict[str, tuple[object, ...]]:
    """What the kernel says of every file; the first name of a file with several stands for its inode."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        there, name = path.lstat(), str(path.relative_to(folder))
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(there.st_mode) else ""
        names = sorted(os.listxattr(path, follow_symlinks=False))
        attributes = tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in names)
        found[name] = (
            there.st_mode, there.st_uid, there.st_gid, there.st_mtime_ns, there.st_rdev, content, attributes,
            there.st_size if stat.S_ISREG(there.st_mode) else 0,
            os.readlink(path) if path.is_symlink() else "", first.setdefault(there.st_ino, name),
        )  # fmt: skip
    return found


def make_disk(path: Path, sector_size: int, folder: Path) -> dict[str, dict[str, tuple[object, ...]]]:
    """GPT with ESP, ext4, XFS and swap; what the kernel says of their files."""
    with path.open("wb") as stream:
        stream.truncate(560 * MIB)
    unit = MIB // sector_size
    lines = [
        f"start={start * unit},size={size * unit},type={kind},name={name}"
        for (start, size), kind, name in (
            (ESP, ESP_TYPE, "esp"), (ROOT, "linux", "root"), (DATA, "linux", "data"), (SWAP, "swap", "swap"),
        )
    ]  # fmt: skip
    with loop(path, sector_size) as node:
        run("sfdisk", "-q", node, stdin="\n".join(["label: gpt", *lines]) + "\n")
    tree = make_tree(folder / f"tree-{sector_size}")
    kept = {}
    with part(path, ESP, sector_size) as node:
        bits = ("-F", "32") if sector_size == 512 else ()
        run("mkfs.fat", *bits, "-S", str(sector_size), "-n", "ESP", "-i", "CAFEBABE", node)
        run("mcopy", "-s", "-m", "-i", node, tree / "etc", "::EFI")
    with part(path, ROOT, sector_size) as node:
        run("mke2fs", "-q", "-b", "4096", "-t", "ext4", "-L", "root", "-d", tree, node)
        with mounted(node, folder / "place") as place:
            kept["root"] = facts(place)
    with part(path, DATA, sector_size) as node:
        run("mkfs.xfs", "-q", "-L", "data", "-m", "bigtime=0", node)
        with mounted(node, folder / "place") as place:
            rich_files(place)
        with mounted(node, folder / "place", "-o", "ro") as place:
            kept["data"] = facts(place)
    with part(path, SWAP, sector_size) as node:
        run("mkswap", "-q", "-L", "swap", node)
    return kept


def identities(disk: Path, sector_size: int, *places: tuple[int, int]) -> list[list[str]]:
    found = []
    for place in places:
        with part(disk, place, sector_size) as node:
            told = run("blkid", "-p", "-o", "export", "-s", "UUID", "-s", "LABEL", "-s", "TYPE", node)
        found.append(told.splitlines()[1:])
    return found


def esp_files(disk: Path, sector_size: int, folder: Path) -> dict[str, bytes]:
    with part(disk, ESP, sector_size) as node:
        run("fsck.fat", "-n", node)
        folder.mkdir()
        run("mcopy", "-s", "-n", "-m", "-i", node, "::EFI", folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("old", "new"), [(512, 4096), (4096, 512)])
def test_a_disk_goes_to_sectors_of_another_size(old: int, new: int, tmp_path: Path) -> None:
    source, target, repo = tmp_path / "source.img", tmp_path / "target.img", str(tmp_path / "repo")
    kept = make_disk(source, old, tmp_path)
    runner = SystemRunner()
    with loop(source, old, "--read-only") as node:
        capture_disks([node], repo, name="", runner=runner, sink=ignore)
    with loop(blank(target, 600 * MIB), new) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(boot=BootChoice.NO), runner)
        streamed = [step.volume for step in plan.steps if isinstance(step, RestoreVolume)]
        assert [step.number for step in plan.steps if isinstance(step, RemakeFat)] == [1]
        # XFS with sectors of 512 bytes is made anew; one of 4096 works on any disk.
        assert [step.number for step in plan.steps if isinstance(step, RemakeVolume)] == ([3] if new == 4096 else [])
        assert len(streamed) == (2 if new == 4096 else 3)
        report = run_plan(plan, plan.digest, runner, ignore)
        table = json.loads(run("sfdisk", "--json", node))["partitiontable"]
    assert report.warnings == (
        ("partition 1: fat32 became fat16, for it has too few clusters now",) if old == 512 else ()
    )
    assert table["sectorsize"] == new
    places = [(entry["start"] * new // MIB, entry["size"] * new // MIB) for entry in table["partitions"]]
    assert places == [ESP, ROOT, DATA, SWAP]
    before, after = identities(source, old, *places), identities(target, new, *places)
    assert after == before
    assert esp_files(target, new, tmp_path / "esp-after") == esp_files(source, old, tmp_path / "esp-before")
    with part(target, ROOT, new) as node:
        run("e2fsck", "-f", "-n", node)
        with mounted(node, tmp_path / "place", "-o", "ro") as place:
            assert facts(place) == kept["root"]
    with part(target, DATA, new) as node:
        run("xfs_repair", "-n", node)
        with mounted(node, tmp_path / "place", "-o", "ro") as place:
            assert facts(place) == kept["data"]


def test_xfs_goes_to_a_smaller_disk_with_every_fact_of_its_files(tmp_path: Path) -> None:
    source, target, repo = tmp_path / "source.img", tmp_path / "target.img", str(tmp_path / "repo")
    kept = make_disk(source, 512, tmp_path)
    runner = SystemRunner()
    with loop(source, 512, "--read-only") as node:
        capture_disks([node], repo, name="", runner=runner, sink=ignore)
    with loop(blank(target, 420 * MIB)) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(boot=BootChoice.NO), runner)
        assert [step.number for step in plan.steps if isinstance(step, RemakeVolume)] == [3]
        report = run_plan(plan, plan.digest, runner, ignore)
        table = json.loads(run("sfdisk", "--json", node))["partitiontable"]
    assert not report.warnings
    places = [(entry["start"] * 512 // MIB, entry["size"] * 512 // MIB) for entry in table["partitions"]]
    assert places[2][1] < DATA[1]
    assert identities(target, 512, *places) == identities(source, 512, ESP, ROOT, DATA, SWAP)
    with part(source, DATA, 512) as one, part(target, places[2], 512) as other:
        run("xfs_repair", "-n", other)
        ask = ("xfs_db", "-r", "-c", "sb 0", "-c", "print features_ro_compat features_incompat inodesize versionnum")
        assert run(*ask, other) == run(*ask, one)
    with part(target, places[2], 512) as node, mounted(node, tmp_path / "place", "-o", "ro") as place:
        assert facts(place) == kept["data"]
        sparse = place / "plain" / "sparse"
        assert sparse.stat().st_blocks * 512 < sparse.stat().st_size // 2


def test_a_plan_that_names_one_partition_and_means_another_is_stopped(tmp_path: Path) -> None:
    source, target, repo = tmp_path / "source.img", tmp_path / "target.img", str(tmp_path / "repo")
    make_disk(source, 512, tmp_path)
    runner = SystemRunner()
    with loop(source, 512, "--read-only") as node:
        capture_disks([node], repo, name="", runner=runner, sink=ignore)
    with loop(blank(target, 420 * MIB)) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(boot=BootChoice.NO), runner)
        steps = tuple(
            msgspec.structs.replace(step, number=2) if isinstance(step, RemakeVolume) else step for step in plan.steps
        )
        edited = msgspec.structs.replace(plan, steps=steps)
        with pytest.raises(LiferaftError, match="partition 2 does not lie at byte"):
            run_plan(edited, edited.digest, runner, ignore)
    with part(target, ROOT, 512) as node:
        run("e2fsck", "-f", "-n", node)


def test_a_fat_partition_grows_where_a_rule_says_so(tmp_path: Path) -> None:
    source, target, repo = tmp_path / "source.img", tmp_path / "target.img", str(tmp_path / "repo")
    tree = make_tree(tmp_path / "tree")
    with source.open("wb") as stream:
        stream.truncate(60 * MIB)
    run("sfdisk", "-q", source, stdin="label: dos\nstart=2048,size=81920,type=c\n")
    run("mkfs.fat", "-F", "32", "-s", "1", "-n", "STICK", "--offset=2048", source, str(40 * 1024))
    run("mcopy", "-s", "-m", "-i", f"{source}@@{MIB}", tree / "etc", "::EFI")
    runner = SystemRunner()
    capture_disks([source], repo, name="", runner=runner, sink=ignore)
    blank(target, 200 * MIB)
    choices = RestoreChoices(boot=BootChoice.NO, rules=(parse_rule("1=grow"),))
    plan = plan_restore(repo, "latest", [target], choices, runner)
    assert [step.size for step in plan.steps if isinstance(step, RemakeFat)] == [199 * MIB]
    assert not run_plan(plan, plan.digest, runner, ignore).warnings
    with part(target, (1, 199), 512) as node:
        run("fsck.fat", "-n", node)
        assert "LABEL=STICK" in run("blkid", "-p", "-o", "export", node)
        assert f"big size: {199 * MIB // 512} sectors" in run("minfo", "-i", node, "::")
        run("mcopy", "-s", "-n", "-i", node, "::EFI", tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "EFI").iterdir()} == {
        path.name: path.read_bytes() for path in (tree / "etc").iterdir()
    }


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_ext_of_small_blocks_is_made_anew_for_large_sectors(kind: str, tmp_path: Path) -> None:
    source, target, repo = tmp_path / "source.img", tmp_path / "target.img", str(tmp_path / "repo")
    with source.open("wb") as stream:
        stream.truncate(80 * MIB)
    run("sfdisk", "-q", source, stdin="label: gpt\nstart=2048,size=131072\n")
    with part(source, (1, 64), 512) as node:
        run("mke2fs", "-q", "-t", kind, "-b", "1024", "-L", "boot", "-m", "3", "-e", "remount-ro", node)
        with mounted(node, tmp_path / "place") as place:
            rich_files(place)
        with mounted(node, tmp_path / "place", "-o", "ro") as place:
            kept = facts(place)
    runner = SystemRunner()
    capture_disks([source], repo, name="", runner=runner, sink=ignore)
    with loop(blank(target, 90 * MIB), 4096) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(boot=BootChoice.NO), runner)
        assert [step.kind for step in plan.steps if isinstance(step, RemakeVolume)] == [kind]
        assert not run_plan(plan, plan.digest, runner, ignore).warnings
    assert identities(target, 4096, (1, 64)) == identities(source, 512, (1, 64))
    with part(source, (1, 64), 512) as one, part(target, (1, 64), 4096) as other:
        run("e2fsck", "-f", "-n", other)
        told = [run("dumpe2fs", "-h", node).splitlines() for node in (one, other)]
        names = (
            "Filesystem features:",
            "Errors behavior:",
            "Default mount options:",
            "Inode size:",
            "Filesystem UUID:",
        )
        wanted, found = ([line for line in lines if line.startswith(names)] for lines in told)
        assert found == wanted
        assert any(line.split() == ["Block", "size:", "4096"] for line in told[1])
        with mounted(other, tmp_path / "place", "-o", "ro") as place:
            assert facts(place) == kept


def test_ntfs_of_large_sectors_goes_to_small_ones(tmp_path: Path) -> None:
    need("mkntfs", "ntfs-3g", "ntfsinfo", "ntfsfix")
    source, target, repo = tmp_path / "source.img", tmp_path / "target.img", str(tmp_path / "repo")
    tree = make_tree(tmp_path / "tree")
    with source.open("wb") as stream:
        stream.truncate(80 * MIB)
    with loop(source, 4096) as node:
        run("sfdisk", "-q", node, stdin=f"label: gpt\nstart={3 * MIB // 4096},size={64 * MIB // 4096}\n")
    with part(source, (3, 64), 4096) as node:
        run("mkntfs", "-q", "-f", "-p", str(3 * MIB // 4096), "-H", "255", "-S", "63", "-L", "lifted", node)
        folder = tmp_path / "place"
        folder.mkdir()
        run("ntfs-3g", node, folder)
        shutil.copytree(tree / "etc", folder / "etc")
        run("umount", folder)
    runner = SystemRunner()
    with loop(source, 4096, "--read-only") as node:
        capture_disks([node], repo, name="", runner=runner, sink=ignore)
    with loop(blank(target, 90 * MIB)) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(boot=BootChoice.NO), runner)
        assert not run_plan(plan, plan.digest, runner, ignore).warnings
    assert identities(target, 512, (3, 64)) == identities(source, 4096, (3, 64))
    with part(target, (3, 64), 512) as node:
        told = run("ntfsinfo", "-m", node)
        assert "Sector Size: 512" in told
        assert "Volume Flags: 0x0000" in told
        run("ntfsfix", "-n", node)
        content = target.read_bytes()[3 * MIB :]
        assert content[28:32] == (3 * MIB // 512).to_bytes(4, "little")
        assert content[:512] == content[64 * MIB - 512 : 64 * MIB]
        run("ntfs-3g", "-o", "ro", node, folder)
        try:
            found = {path.name: path.read_bytes() for path in (folder / "etc").iterdir()}
        finally:
            run("umount", folder)
    assert found == {path.name: path.read_bytes() for path in (tree / "etc").iterdir()}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (("mkntfs", "-q", "-f", "-s", "512"), "its MFT records have 1024 bytes"),
        (("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-O", "quota"), "it has features that are not made again"),
        (("mkfs.exfat",), "it holds exfat, which this version does not bring to sectors of 4096 bytes"),
    ],
)
def test_what_cannot_come_to_other_sectors_is_refused_in_the_plan(
    make: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    need(make[0])
    source, target, repo = tmp_path / "source.img", tmp_path / "target.img", str(tmp_path / "repo")
    with source.open("wb") as stream:
        stream.truncate(80 * MIB)
    run("sfdisk", "-q", source, stdin="label: gpt\nstart=2048,size=100MiB\n".replace("100", "64"))
    with part(source, (1, 64), 512) as node:
        run(*make, node)
    runner = SystemRunner()
    capture_disks([source], repo, name="", runner=runner, sink=ignore)
    with loop(blank(target, 100 * MIB), 4096) as node, pytest.raises(RefusedError) as caught:
        plan_restore(repo, "latest", [node], RestoreChoices(), runner)
    assert any(reason in line for line in caught.value.reasons)
