"""The host's view of a raw disk file: loop devices, partitions as device nodes, read-only mounts.

The kernel need not scan the table itself and udev need not run: partitions are told to the kernel with ``partx`` and
their nodes are made in a private folder. Everything is a context manager.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.process import Runner
from core.units import to_bytes


@dataclass(frozen=True)
class Partition:
    """One partition as sfdisk reads it. ``start`` and ``size`` are bytes."""

    number: int
    start: int
    size: int
    type: str
    uuid: str
    name: str
    attrs: str
    bootable: bool


@dataclass(frozen=True)
class Table:
    """A partition table as sfdisk reads it."""

    label: str
    id: str
    partitions: tuple[Partition, ...]


def read_table(disk: Path, runner: Runner) -> Table:
    """Read the table of a raw disk file with sfdisk: the independent witness."""
    document = json.loads(runner.run(["sfdisk", "--json", str(disk)]).stdout)["partitiontable"]
    unit = int(document.get("sectorsize", 512))
    partitions = tuple(
        Partition(
            number=int(str(entry["node"]).removeprefix(str(disk)).lstrip("p")),
            start=to_bytes(entry["start"], unit),
            size=to_bytes(entry["size"], unit),
            type=entry["type"],
            uuid=entry.get("uuid", ""),
            name=entry.get("name", ""),
            attrs=entry.get("attrs", ""),
            bootable=bool(entry.get("bootable", False)),
        )
        for entry in document["partitions"]
    )
    return Table(document["label"], document["id"], partitions)


@contextmanager
def loop(
    disk: Path, runner: Runner, *, part: Partition | None = None, readonly: bool = True, sector_size: int = 512
) -> Iterator[Path]:
    """A loop device over ``disk``, or over one partition of it."""
    argv = ["losetup", "--find", "--show", *(["--read-only"] if readonly else [])]
    argv += ["--sector-size", str(sector_size)] if sector_size != 512 else []
    if part is not None:
        argv += ["--offset", str(part.start), "--sizelimit", str(part.size)]
    device = Path(runner.run([*argv, str(disk)]).stdout.strip())
    try:
        yield device
    finally:
        runner.run(["losetup", "--detach", str(device)])


@contextmanager
def mounted(device: Path, place: Path, runner: Runner, *, kind: str = "ext4", options: str = "") -> Iterator[Path]:
    """Mount ``device`` at ``place`` (made when it does not exist)."""
    place.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", kind, *(["-o", options] if options else []), str(device), str(place)]
    runner.run(argv)
    try:
        yield place
    finally:
        runner.run(["umount", str(place)])


@contextmanager
def root_filesystem(disk: Path, part: Partition, place: Path, runner: Runner) -> Iterator[Path]:
    """The ext4 filesystem of ``part`` mounted read-only, its journal untouched."""
    with loop(disk, runner, part=part) as device, mounted(device, place, runner, options="ro,noload") as root:
        yield root


@contextmanager
def writable_partitions(disk: Path, nodes: Path, runner: Runner) -> Iterator[tuple[Path, dict[int, Path]]]:
    """The disk as a writable loop device with partition nodes in ``nodes`` (which becomes a small ``/dev``).

    Yields the disk's node and the partitions' nodes by number.
    """
    with loop(disk, runner, readonly=False) as device:
        runner.run(["partx", "--update", str(device)])
        try:
            with mounted(Path("tmpfs"), nodes, runner, kind="tmpfs", options="mode=755"):
                make_nodes(nodes)
                whole = nodes / device.name
                os.mknod(whole, 0o600 | stat.S_IFBLK, device.stat().st_rdev)
                numbered = {}
                for folder in Path("/sys/block", device.name).glob(f"{device.name}p*"):
                    node = nodes / folder.name
                    major, minor = (folder / "dev").read_text().split(":")
                    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
                    numbered[int(folder.name.removeprefix(f"{device.name}p"))] = node
                yield whole, numbered
        finally:
            runner.run(["partx", "--delete", str(device)])


def make_nodes(folder: Path) -> None:
    """The character devices that programs in a chroot expect."""
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(folder / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        (folder / name).chmod(0o666)
    (folder / "fd").symlink_to("/proc/self/fd")
