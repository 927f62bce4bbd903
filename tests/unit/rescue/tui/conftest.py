"""A real disk image with a real recovery point, made once."""

import subprocess
from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner, find_tool
from rescue.jobs.capture import capture_disks

SIZE = 64 << 20
_TABLE = "label: gpt\nfirst-lba: 2048\nstart=2048, size=102400, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root\n"


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT disk of 64 MiB with an ext4 filesystem that holds some files."""
    for tool in ("sfdisk", "mke2fs"):
        if find_tool(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("source")
    tree = folder / "tree"
    tree.mkdir()
    for number in range(12):
        (tree / f"file{number}").write_bytes(bytes([number]) * 1_000_000)
    image = folder / "web01.img"
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    subprocess.run(["/usr/sbin/sfdisk", "-q", str(image)], input=_TABLE, text=True, check=True)
    offset = 2048 * 512
    mkfs = ["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(tree), "-E", f"offset={offset}"]
    subprocess.run([*mkfs, str(image), "50M"], check=True)
    return image


@pytest.fixture(scope="session")
def repository(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two recovery points of the disk."""
    folder = tmp_path_factory.mktemp("store") / "backups"
    for name in ("web01 monday", "web01 tuesday"):
        capture_disks([source], str(folder), name=name, runner=SystemRunner(), sink=ignore)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty disk image of 96 MiB."""
    path = tmp_path / "target.img"
    with path.open("wb") as stream:
        stream.truncate(96 << 20)
    return path
