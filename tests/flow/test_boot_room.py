"""A /boot on a smaller disk keeps its size, or room for the next kernel, by the figures of e2fsprogs and the files."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.process import SystemRunner
from images.capture import CaptureResult
from rescue.jobs.restore import RestoreChoices, plan_restore
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable
from tests.flow.disks import MIB, blank, need, put_ext, run

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
    with pytest.raises(RefusedError) as caught:
        _plan(folder, 10 * MIB)
    found = re.search(r"smallest that would do has (\d+) bytes", str(caught.value))
    assert found
    return int(found[1])


def test_boot_keeps_its_size_and_at_last_room_for_one_more_kernel(tmp_path: Path, capture: Capture) -> None:
    disk = _disk(tmp_path, KERNELS, {"etc/data": 16 * MIB})
    used = _used(disk, MIB, BOOT)
    capture(disk)
    assert _sizes(_plan(tmp_path, 90 * MIB)) == [BOOT, 90 * MIB - MIB - BOOT]
    smallest = _smallest(tmp_path)
    boot, root = _sizes(_plan(tmp_path, smallest))
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
        sizes[name] = _sizes(_plan(folder, _smallest(folder)))
    assert sizes["with"][0] == sizes["without"][0]
    more = sizes["with"][1] - sizes["without"][1]
    assert abs(more - (KERNEL + INITRAMFS)) <= 2 * MIB


def test_a_boot_that_has_no_room_today_is_not_made_smaller(tmp_path: Path, capture: Capture) -> None:
    disk = _disk(tmp_path, KERNELS | {"vmlinuz-6.12.10-amd64": 8 * MIB}, {"etc/data": MIB})
    capture(disk)
    assert _sizes(_plan(tmp_path, _smallest(tmp_path)))[0] == BOOT
