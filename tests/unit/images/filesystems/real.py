"""Real filesystems made by real tools, and what those tools say is in use. Shared by the tests of this folder."""

import hashlib
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

from core.errors import DeviceError
from images.filesystems.detect import read_used
from images.filesystems.used import UsedMap
from images.model.extents import Extent, gaps, merge
from images.sources import BlockSource, open_source

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
TRUTH = DATA / "_groundtruth"
NO_DATA = f"{DATA} is not here: real inputs of other projects"

MIB = 1 << 20


class CountingSource:
    """A source that keeps account of what is read from it, in bytes: the longest read, and all of them.

    Reads that touch ``bad`` fail, as those of a medium with a bad sector do.
    """

    def __init__(self, inner: BlockSource, bad: Extent | None = None) -> None:
        self._inner = inner
        self._bad = bad or Extent(0, 0)
        self.size = inner.size
        self.sector_size = inner.sector_size
        self.longest = 0
        self.total = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.longest = max(self.longest, length)
        self.total += length
        if offset < self._bad.end and self._bad.start < offset + length:
            raise DeviceError(f"{length} bytes at {offset} cannot be read.")
        return self._inner.read_at(offset, length)


def needs(*tools: str) -> str:
    """Which of the tools are missing; a test that needs them skips with that reason."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def run(*argv: str | Path, codes: tuple[int, ...] = (0,), stdin: str = "") -> str:
    """What a tool printed; its exit code must be one of ``codes``."""
    env = os.environ | {"LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"}
    done = subprocess.run(
        [str(word) for word in argv], input=stdin, capture_output=True, text=True, errors="replace", timeout=60, env=env
    )
    assert done.returncode in codes, f"{argv}: {done.returncode}: {done.stderr or done.stdout}"
    return done.stdout


def make_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def make_tree(root: Path, seed: int, *, size: int = 3 * MIB, accent: str = "é") -> Path:
    """A folder of random files: many small ones, some of a few hundred KiB, one sparse, names of all sorts."""
    random_ = random.Random(seed)
    root.mkdir()
    left, number = size, 0
    while left > 0:
        folder = root / f"folder {number % 7}" / f"{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        length = random_.choice((0, 1, 100, 5000, 70000, 400000))
        (folder / f"file-{number}-{accent}.bin").write_bytes(random_.randbytes(length))
        left -= length + 512
        number += 1
    with (root / "sparse").open("wb") as file:
        file.seek(3 * MIB)
        file.write(b"end")
    return root


def digests(root: Path) -> dict[str, str]:
    """Every file below ``root`` and its digest."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "lost+found" not in path.parts
    }


def used(path: Path) -> tuple[UsedMap, list[Extent]]:
    """The reader's answer, and its extents once they have kept their promise."""
    with open_source(path) as source:
        answer = read_used(source)
        extents = list(answer.extents())
        assert_sound(extents, source.size)
    return answer, extents


def assert_sound(extents: list[Extent], size: int) -> None:
    """Merged, sorted, inside the volume."""
    position = -1
    for extent in extents:
        assert position < extent.start < extent.end <= size
        position = extent.end


def whole(path: Path) -> str:
    """The reason why the volume is captured whole; fails when it is not."""
    answer, extents = used(path)
    assert not answer.trusted
    assert extents == [Extent(0, path.stat().st_size)]
    return answer.reason


def dumpe2fs_used(path: Path) -> list[Extent]:
    """Everything that dumpe2fs does not list as free blocks."""
    text = run("dumpe2fs", path)
    block_size, count = (int(_field(text, name)) for name in ("Block size", "Block count"))
    cluster = re.search(r"Cluster size:\s+(\d+)", text)
    unit = int(cluster[1]) if cluster else block_size
    free = []
    for line in re.findall(r"^  Free blocks: (.+)$", text, re.MULTILINE):
        for words in line.split(","):
            first, _, last = words.strip().partition("-")
            # with bigalloc the last number is the first block of the last free cluster
            end = int(last or first) * block_size + unit
            free.append(Extent(int(first) * block_size, min(end, count * block_size)))
    return list(gaps(merge(free), Extent(0, count * block_size)))


def _field(text: str, name: str) -> str:
    match = re.search(rf"^{name}:\s+(\S+)", text, re.MULTILINE)
    assert match is not None
    return match[1]


def partclone_used(tool: str, path: Path) -> list[Extent]:
    """What ``partclone.* --domain`` marks as used."""
    domain = path.with_suffix(".domain")
    domain.unlink(missing_ok=True)
    run(tool, "--domain", "--source", path, "--output", domain, "--logfile", path.with_suffix(".log"))
    lines = re.findall(r"^(0x\w+)\s+(0x\w+)\s+\+", domain.read_text(), re.MULTILINE)
    return list(merge(Extent(int(start, 16), int(start, 16) + int(size, 16)) for start, size in lines))


def assert_covers(ours: list[Extent], theirs: list[Extent]) -> None:
    """Ours is a superset of theirs."""
    missing = [gap for extent in theirs for gap in gaps(ours, extent)]
    assert missing == []


def restore_copy(path: Path, extents: list[Extent]) -> Path:
    """A copy in which only ``extents`` were written; the rest is garbage, the worst that a target may hold."""
    copy = path.with_suffix(".copy")
    garbage = random.Random(1).randbytes(MIB)
    with path.open("rb") as source, copy.open("wb") as target:
        size = path.stat().st_size
        for offset in range(0, size, MIB):
            target.write(garbage[: size - offset])
        for extent in extents:
            source.seek(extent.start)
            target.seek(extent.start)
            left = extent.size
            while left:
                left -= target.write(source.read(min(left, MIB)))
    return copy
