"""Mounting a restored system as its own fstab says, ready to run its own tools in it.

Everything is undone by structure: the context manager unmounts in reverse, whatever happened.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from core.errors import LiferaftError, ProcessError
from core.process import Runner
from images.model.layout import Partition

#: What the system's own tools need to see (docs of initramfs-tools, grub-install, lvm).
_BINDS = ("/dev", "/dev/pts", "/proc", "/sys", "/run")


class FstabLine(msgspec.Struct, frozen=True):
    """One mount of a system's fstab."""

    spec: str
    place: str
    kind: str


def parse_fstab(text: str) -> tuple[FstabLine, ...]:
    """The lines that mount something on a path, parents before children."""
    lines = []
    for raw in text.splitlines():
        words = raw.split()
        if len(words) >= 3 and not words[0].startswith("#") and words[1].startswith("/"):
            lines.append(FstabLine(words[0], words[1].rstrip("/") or "/", words[2]))
    return tuple(sorted(lines, key=lambda line: line.place))


def partition_for(spec: str, nodes: Mapping[str, Partition]) -> str | None:
    """The node that an fstab ``UUID=``, ``PARTUUID=`` or ``LABEL=`` means; None when it is none of these nodes."""
    key, _, value = spec.partition("=")
    value = value.strip('"').lower()
    for node, partition in nodes.items():
        filesystem = partition.filesystem
        known = {
            "UUID": filesystem.uuid if filesystem else "",
            "LABEL": filesystem.label if filesystem else "",
            "PARTUUID": str(partition.uuid or ""),
            "PARTLABEL": partition.name,
        }
        if value and known.get(key, "").lower() == value:
            return node
    return None


@contextlib.contextmanager
def mounted_system(root_node: str, nodes: Mapping[str, Partition], runner: Runner) -> Iterator[Path]:
    """The system whose root filesystem is on ``root_node``, mounted with its other filesystems and the kernel's.

    Args:
        nodes: the partitions of the restored disks by device node.

    Yields:
        the folder of its root.
    """
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="liferaft-system-")))
        stack.enter_context(mount(root_node, root, runner))
        for line in parse_fstab((root / "etc/fstab").read_text(errors="replace")):
            node = partition_for(line.spec, nodes)
            if line.place != "/" and node is not None and line.kind != "swap":
                place = root / line.place.lstrip("/")
                place.mkdir(parents=True, exist_ok=True)
                stack.enter_context(mount(node, place, runner))
        for folder in _BINDS:
            stack.enter_context(mount(folder, root / folder.lstrip("/"), runner, "--bind"))
        yield root


@contextlib.contextmanager
def mount(what: str, place: Path, runner: Runner, *options: str) -> Iterator[Path]:
    """A mount that ends with the block."""
    runner.run(["mount", *options, what, str(place)], timeout=120)
    try:
        yield place
    finally:
        try:
            runner.run(["umount", str(place)], timeout=300)
        except ProcessError:
            # A process of the chroot may linger for a moment; lazily is better than never.
            runner.run(["umount", "--lazy", str(place)], timeout=60)


def find_root(nodes: Mapping[str, Partition], runner: Runner) -> str | None:
    """The node of the first partition that holds an operating system: etc/fstab and os-release."""
    for node, partition in nodes.items():
        filesystem = partition.filesystem
        if filesystem is None or filesystem.kind.startswith(("fat", "swap")):
            continue
        with contextlib.suppress(LiferaftError), tempfile.TemporaryDirectory(prefix="liferaft-look-") as folder:
            with mount(node, Path(folder), runner, "--options", "ro"):
                root = Path(folder)
                if (root / "etc/fstab").exists() and (
                    (root / "etc/os-release").is_symlink() or (root / "usr/lib/os-release").exists()
                ):
                    return node
    return None
