"""Volumes of other projects' test data with the file trees that independent tools saw in them."""

import bz2
import contextlib
import gzip
import json
import lzma
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import zstandard

from images.browse.entry import Kind
from images.browse.point import OutsideError
from images.browse.tree import Found, Tree
from images.model.manifest import CaptureMode, Volume, VolumeRole
from images.sources import BlockSource, WindowSource, open_source

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
TRUTH = DATA / "_groundtruth"


class PlainVolume:
    """A source that passes for a volume of a recovery point."""

    def __init__(self, inner: BlockSource, name: str = "0123456789ab disk0-part1") -> None:
        self.inner = inner
        self.name = name
        self.reads: list[tuple[int, int]] = []
        self.volume = Volume(
            id=name.split()[-1],
            disk="disk0",
            role=VolumeRole.PARTITION,
            offset=0,
            size=inner.size,
            root=None,
            height=0,
            allocated=inner.size,
            mode=CaptureMode.USED,
        )

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def sector_size(self) -> int:
        return self.inner.sector_size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutsideError(f"{length} bytes at {offset} are outside {self.size}")
        self.reads.append((offset, length))
        return self.inner.read_at(offset, length)


@contextlib.contextmanager
def opened(path: Path, start: int = 0, size: int | None = None) -> Iterator[Tree]:
    """The tree of a volume in a file."""
    with open_source(path) as source:
        window = WindowSource(source, start, source.size - start if size is None else size)
        yield Tree(PlainVolume(window))  # type: ignore[arg-type]


def walk(tree: Tree, top: Found | None = None) -> Iterator[Found]:
    """Everything below a folder."""
    for found in tree.children(top or tree.root):
        yield found
        if found.entry.kind is Kind.FOLDER:
            yield from walk(tree, found)


def bytes_of(tree: Tree, found: Found) -> bytes:
    """The whole content of a file."""
    content = tree.content(found)
    pieces = tree.pieces(found, content)
    return b"".join(bytes(piece.size) if piece.data is None else piece.data for piece in pieces)


def truth_trees() -> list[Path]:
    """The file trees there are, relative to the folder of truths."""
    return sorted(path.relative_to(TRUTH) for path in TRUTH.rglob("*.tree.jsonl.gz")) if TRUTH.is_dir() else []


def read_tree(name: Path) -> list[dict[str, object]]:
    """What another tool saw."""
    with gzip.open(TRUTH / name, "rt") as stream:
        return [json.loads(line) for line in stream]


def raw_image(name: Path, folder: Path) -> tuple[Path, int, int | None] | None:
    """The volume a truth speaks of: a raw file made from the data, and where the volume lies in it.

    None when no tool here can make it raw.
    """
    image, part = name.name.removesuffix(".tree.jsonl.gz").rsplit(".", 1)
    relative = name.with_name(image)
    facts = json.loads((TRUTH / f"{relative}.gt.json").read_text())
    out = folder / image
    if not _unpack(relative, out):
        return None
    if facts.get("container") not in (None, "raw") or image.endswith(".vhdx"):
        raw = out.with_name(out.name + ".raw")
        if image.endswith(".E01") or subprocess.run(["qemu-img", "convert", "-O", "raw", out, raw]).returncode:
            return None
        out = raw
    if part == "fs":
        return out, 0, None
    table = facts["sfdisk"]
    entry = next(entry for entry in table["partitions"] if str(entry["node"]).endswith(part.removeprefix("p")))
    unit = int(table.get("sectorsize", 512))
    return out, entry["start"] * unit, entry["size"] * unit


def _copy_sparse(stream: IO[bytes], out: Path) -> None:
    """Zeros become holes: some of these volumes are large and nearly empty."""
    zeros = bytes(1 << 20)
    with out.open("wb") as copy:
        while piece := stream.read(len(zeros)):
            if piece == zeros[: len(piece)]:
                copy.seek(len(piece), 1)
            else:
                copy.write(piece)
        copy.truncate()


def _unpack(relative: Path, out: Path) -> bool:
    plain = DATA / relative
    if plain.is_file():
        with plain.open("rb") as stream:
            _copy_sparse(stream, out)
        return True
    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstandard.open}
    for ending, opener in openers.items():
        if (packed := plain.with_name(plain.name + ending)).is_file():
            with opener(packed, "rb") as stream:
                _copy_sparse(stream, out)
            return True
    folder = plain.parent
    if folder.name.endswith(".tar.gz.d") and (packed := folder.with_name(folder.name.removesuffix(".d"))).is_file():
        with tarfile.open(packed) as archive:
            member = next(member for member in archive if member.name.endswith(out.name))
            source = archive.extractfile(member)
            assert source is not None
            _copy_sparse(source, out)
        return True
    return False
