"""What the kernel remembers of a disk is not what lies on it. Needs root, loop devices and partitions on them."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.sources import open_source
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, run

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root"),
    pytest.mark.skipif(bool(real.needs("losetup", "partx", "sfdisk", "mke2fs")), reason="util-linux is missing"),
]

START, SIZE = 24 * MIB, 16 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """An image with two ext4 partitions and the loop device over it."""
    image = tmp_path / "disk.img"
    with image.open("xb") as stream:
        stream.truncate(48 * MIB)
    table = f"label: gpt\n2048,32768\n{START // 512},{SIZE // 512}\n"
    subprocess.run(["sfdisk", "--quiet", image], input=table, text=True, check=True, capture_output=True)
    device = run("losetup", "--find", "--show", image).strip()
    try:
        run("partx", "--add", device)
        try:
            for number in (1, 2):
                run("mke2fs", "-q", "-t", "ext4", f"{device}p{number}")
            yield image, device
        finally:
            run("partx", "--delete", device)
    finally:
        run("losetup", "--detach", device)


def test_a_disk_is_read_and_not_what_was_read_of_it_before(disk: tuple[Path, str], tmp_path: Path) -> None:
    # A mounted partition, even read-only, holds the disk's node and keeps its page cache from one opening to the
    # next, while the other partition is written through a cache of its own.
    image, device = disk
    held, worked = tmp_path / "held", tmp_path / "worked"
    held.mkdir()
    worked.mkdir()
    run("mount", "-o", "ro", f"{device}p1", held)
    try:
        with open_source(Path(device)) as source:
            before = source.read_at(START, SIZE)
        run("mount", f"{device}p2", worked)
        try:
            (worked / "file").write_bytes(os.urandom(3 * MIB))
        finally:
            run("umount", worked)
        with open_source(Path(device)) as source:
            found = source.read_at(START, SIZE)
    finally:
        run("umount", held)
    run("sync")
    real_content = image.read_bytes()[START : START + SIZE]
    assert before != real_content, "nothing was written, nothing was tested"
    assert found == real_content
