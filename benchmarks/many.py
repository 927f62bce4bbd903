"""Eight disks with 32 partitions each, captured, and eight targets that are a little smaller."""

import subprocess
from pathlib import Path

from benchmarks.measure import liferaft

_DISKS, _PARTITIONS = 8, 32
_MIB = 1 << 20
_SIZE = 40 * _MIB


def make_many(folder: Path) -> tuple[Path, list[Path]]:
    """A repository with one recovery point of all disks, and the targets: so small that every filesystem shrinks."""
    disks = [_disk(folder / f"many{number}.img") for number in range(_DISKS)]
    repo = folder / "many"
    liferaft("capture", *disks, "--repo", repo, "--progress", "none")
    targets = [folder / f"many{number}.target" for number in range(_DISKS)]
    for disk, target in zip(disks, targets, strict=True):
        disk.unlink()
        with target.open("wb") as stream:
            stream.truncate((_PARTITIONS * _SIZE + 2 * _MIB) * 9 // 10 // _MIB * _MIB)
    return repo, targets


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
