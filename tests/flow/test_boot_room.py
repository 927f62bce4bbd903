"""A /boot on a smaller disk keeps its size, or room for the next kernel, by the figures of e2fsprogs and the files."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.capture import CaptureResult
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable, ShrinkVolume
from tests.flow.disks import MIB, blank, need, put_ext, run
from tests.flow.test_fit import files_at

Capture = Callable[[Path], CaptureResult]
KERNEL, INITRAMFS = 2 * MIB, 6 * MIB
BOOT, ROOT = 40 * MIB, 80 * MIB


def _tree(folder: Path, files: dict[str, int]) -> Path:
    for name, size in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    return folder


def _disk(folder: Path, boot: dict[str, int], root: dict[str, int]) -> Path:
    """/boot and the root as Debian's installer lays them out."""
    need("mke2fs", "sfdisk")
    disk = blank(folder / "source.img", MIB + BOOT + ROOT + MIB)
    run("sfdisk", "-q", disk, stdin=f"label: dos\nstart=1MiB,size={BOOT // MIB}MiB,bootable\nsize={ROOT // MIB}MiB\n")
    put_ext(disk, MIB, BOOT, _tree(folder / "boot", boot))
    put_ext(disk, MIB + BOOT, ROOT, _tree(folder / "root", root))
    return disk


KERNELS = {
    "vmlinuz-6.12.1-amd64": KERNEL,
    "vmlinuz-6.12.9-amd64": KERNEL - 4096,
    "initrd.img-6.12.1-amd64": INITRAMFS,
    "initrd.img-6.12.9-amd64": INITRAMFS // 2,
    "grub/grub.cfg": 9000,
}


def _plan(folder: Path, size: int) -> Plan:
    target = folder / f"target-{size}.img"
    with target.open("wb") as stream:
        stream.truncate(size)
    return plan_restore(str(folder / "repo"), "latest", [target], RestoreChoices(), SystemRunner())


def _sizes(plan: Plan) -> list[int]:
    table = next(step.table for step in plan.steps if isinstance(step, CreateTable))
    return [part.sector_count * 512 for part in table.partitions]


def _used(image: Path, offset: int, size: int) -> int:
    """What dumpe2fs says is in use of a filesystem, bytes."""
    part = image.with_suffix(".part")
    part.write_bytes(image.read_bytes()[offset : offset + size])
    lines = (line.partition(":") for line in run("dumpe2fs", "-h", part).splitlines())
    facts = {name: value.strip() for name, _, value in lines}
    return (int(facts["Block count"]) - int(facts["Free blocks"])) * int(facts["Block size"])


def _smallest(folder: Path) -> int:
    """Of all disks that would do."""
    with pytest.raises(RefusedError) as caught:
        _plan(folder, 10 * MIB)
    found = re.search(r"smallest that would do has (\d+) bytes", str(caught.value))
    assert found
    return int(found[1])


def _scarce(plan: Plan) -> list[str]:
    return [note for note in plan.notes if "no room for one more kernel" in note]


def _smallest_with_room(folder: Path) -> int:
    """The same, with room for one more kernel: the plan of the smallest says it."""
    (note,) = _scarce(_plan(folder, _smallest(folder)))
    found = re.search(r"A target of (\d+) bytes .* has the room", note)
    assert found
    return int(found[1])


def test_boot_keeps_its_size_and_at_last_room_for_one_more_kernel(tmp_path: Path, capture: Capture) -> None:
    disk = _disk(tmp_path, KERNELS, {"etc/data": 16 * MIB})
    used = _used(disk, MIB, BOOT)
    capture(disk)
    assert _sizes(_plan(tmp_path, 90 * MIB)) == [BOOT, 90 * MIB - MIB - BOOT]
    plan = _plan(tmp_path, _smallest_with_room(tmp_path))
    assert not _scarce(plan)
    boot, root = _sizes(plan)
    # A smaller filesystem has less metadata, and keeps 3 % to spare.
    assert abs(boot - used - KERNEL - INITRAMFS) <= 5 * MIB
    assert boot < BOOT
    assert root < ROOT // 2


def test_a_root_with_its_kernels_in_it_keeps_room_for_one_more(tmp_path: Path, capture: Capture) -> None:
    boot = {f"boot/{name}": size for name, size in KERNELS.items()}
    sizes = {}
    for name, files in (("with", boot), ("without", {name.replace("boot/", "srv/"): boot[name] for name in boot})):
        folder = tmp_path / name
        folder.mkdir()
        disk = _disk(folder, {"data": MIB}, files | {"etc/data": MIB})
        capture(disk)
        (tmp_path / "repo").rename(folder / "repo")
        smallest = _smallest_with_room(folder) if name == "with" else _smallest(folder)
        sizes[name] = _sizes(_plan(folder, smallest))
    assert sizes["with"][0] == sizes["without"][0]
    more = sizes["with"][1] - sizes["without"][1]
    assert abs(more - (KERNEL + INITRAMFS)) <= 2 * MIB


def test_a_boot_that_has_no_room_today_is_not_made_smaller(tmp_path: Path, capture: Capture) -> None:
    disk = _disk(tmp_path, KERNELS | {"vmlinuz-6.12.10-amd64": 8 * MIB}, {"etc/data": MIB})
    capture(disk)
    plan = _plan(tmp_path, _smallest_with_room(tmp_path))
    assert (_sizes(plan)[0], _scarce(plan)) == (BOOT, [])


def _full_root(folder: Path, data: int = 48 * MIB) -> Path:
    """One filesystem for everything, whose kernels have no room for one more on a slightly smaller disk."""
    need("mke2fs", "sfdisk", "e2fsck", "debugfs")
    disk = blank(folder / "source.img", MIB + ROOT + MIB)
    run("sfdisk", "-q", disk, stdin=f"label: dos\nstart=1MiB,size={ROOT // MIB}MiB,bootable\n")
    files = {f"boot/{name}": size for name, size in KERNELS.items()} | {"srv/data": data}
    put_ext(disk, MIB, ROOT, _tree(folder / "root", files))
    return disk


def test_a_full_root_goes_to_a_slightly_smaller_disk_with_a_warning(tmp_path: Path, capture: Capture) -> None:
    need("fusermount3", "resize2fs")
    disk = _full_root(tmp_path)
    capture(disk)
    plan = _plan(tmp_path, MIB + ROOT - 4 * MIB)
    (note,) = _scarce(plan)
    assert note.startswith("Partition 1 has no room for one more kernel with its initramfs (8.00 MiB)")
    assert "boot repair may fail" in note and "the system does not start" in note
    assert f"A target of {_smallest_with_room(tmp_path)} bytes" in note
    (step,) = [step for step in plan.steps if isinstance(step, ShrinkVolume)]
    assert step.kernel_room == KERNEL + INITRAMFS
    report = run_plan(plan, plan.digest, SystemRunner(), ignore)
    assert [line for line in report.warnings if "one more kernel" in line] == [
        "partition 1: no room for one more kernel with its initramfs (8.00 MiB), as the plan says: make room before "
        "the system updates its kernel"
    ]
    start, size = MIB // 512, _sizes(plan)[0] // 512
    target = tmp_path / f"target-{MIB + ROOT - 4 * MIB}.img"
    assert files_at(target, start, size) == files_at(disk, start, ROOT // 512)


def test_a_plan_whose_disk_has_the_room_says_nothing_of_it(tmp_path: Path, capture: Capture) -> None:
    capture(_full_root(tmp_path, 24 * MIB))
    plan = _plan(tmp_path, _smallest_with_room(tmp_path))
    assert not _scarce(plan)
    assert [step.kernel_room for step in plan.steps if isinstance(step, ShrinkVolume)] == [0]
    # One MiB less, and the room is gone, but not the files.
    assert _scarce(_plan(tmp_path, _smallest_with_room(tmp_path) - MIB))
