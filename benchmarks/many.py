"""Eight disks with 32 partitions each, captured, and eight targets of another size."""

import subprocess
from pathlib import Path

from benchmarks.measure import liferaft

_DISKS, _PARTITIONS = 8, 32
_MIB = 1 << 20
_SIZE = 40 * _MIB


def make_many(folder: Path) -> Path:
    """A repository with one recovery point of all disks."""
    disks = [_disk(folder / f"many{number}.img") for number in range(_DISKS)]
    repo = folder / "many"
    liferaft("capture", *disks, "--repo", repo, "--progress", "none")
    for disk in disks:
        disk.unlink()
    return repo


def make_targets(folder: Path, percent: int) -> list[str]:
    """A target for each disk, of so many percent of its size, as options of ``plan``."""
    words: list[str] = []
    for number in range(_DISKS):
        target = folder / f"many{number}.target"
        with target.open("wb") as stream:
            stream.truncate((_PARTITIONS * _SIZE + 2 * _MIB) * percent // 100 // _MIB * _MIB)
        words += ["--target", f"disk{number}={target}"]
    return words


def _disk(path: Path) -> Path:
    with path.open("wb") as stream:
        stream.truncate(_PARTITIONS * _SIZE + 2 * _MIB)
    lines = "".join(f"size={_SIZE // 512}\n" for _ in range(_PARTITIONS))
    subprocess.run(["sfdisk", "-q", str(path)], input=f"label: gpt\n{lines}", text=True, check=True)
    for number in range(_PARTITIONS):
        offset = _MIB + number * _SIZE
        words = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-E", f"offset={offset}", str(path)]
        subprocess.run([*words, f"{_SIZE // 1024}K"], check=True)
    return path
