"""Filesystems whose files are read out: whatever their metadata says, a walk ends, in bounds, with our errors only."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from core.errors import DamagedError
from images.browse.entry import Kind, UnreadableError
from images.browse.tree import Found, Tree
from images.model.manifest import CaptureMode, Volume, VolumeRole
from tests.fuzz.sparse import SparseSource, make

MIB = 1 << 20
#: Entries and bytes of content one input may make us look at.
_ENTRIES, _CONTENT = 60, 4 * MIB


class _NamedSource(SparseSource):
    """An image that says of itself what a volume of a recovery point says."""

    def __init__(self, image: SparseSource) -> None:
        super().__init__(image.blocks, image.size, image.sector_size)
        self.name = "input"
        self.volume = Volume(
            id="input",
            disk="disk0",
            role=VolumeRole.DISK,
            size=image.size,
            offset=0,
            root=None,
            height=0,
            allocated=0,
            mode=CaptureMode.USED,
        )


def browse_target(images: Callable[[Path], Iterator[SparseSource]]) -> Callable[[], Callable[[bytes], None]]:
    """A maker of the target for some images."""

    def maker() -> Callable[[bytes], None]:
        with tempfile.TemporaryDirectory() as folder:
            bases = list(images(Path(folder)))

        def run(data: bytes) -> None:
            if data:
                _walk(Tree(_NamedSource(bases[data[0] % len(bases)].patched(data[1:]))))  # type: ignore[arg-type]

        return run

    return maker


def _walk(tree: Tree) -> None:
    waiting, seen = [tree.root], 0
    with contextlib.suppress(DamagedError):
        _ = tree.default
    while waiting and seen < _ENTRIES:
        folder = waiting.pop()
        try:
            for found in tree.children(folder):
                seen += 1
                if found.entry.kind is Kind.FOLDER:
                    waiting.append(found)
                else:
                    _look(tree, found)
                if seen >= _ENTRIES:
                    break
        except DamagedError:
            continue


def _look(tree: Tree, found: Found) -> None:
    try:
        tree.attributes(found)
        if found.entry.kind is Kind.FILE:
            content = tree.content(found)
            read = 0
            for piece in tree.pieces(found, content):
                assert piece.size > 0
                read += len(piece.data or b"")
                if read > _CONTENT:
                    break
    except (DamagedError, UnreadableError):
        return


def _content(folder: Path) -> Path:
    """A few files: small, long, sparse, linked, in folders."""
    tree = folder / "tree"
    (tree / "deep" / "er").mkdir(parents=True, exist_ok=True)
    (tree / "small.txt").write_bytes(b"hello")
    (tree / "long.bin").write_bytes(bytes(range(256)) * 700)
    (tree / "deep" / "er" / "file").write_bytes(b"x" * 5000)
    if not (tree / "link").is_symlink():
        (tree / "link").symlink_to("deep/er/file")
    return tree


def ext_trees(folder: Path) -> Iterator[SparseSource]:
    """ext with files."""
    tree = str(_content(folder))
    for number, options in enumerate((["-t", "ext2"], ["-t", "ext4", "-O", "^metadata_csum,inline_data,^has_journal"])):
        yield make(folder, f"e{number}", 8 * MIB, ["mke2fs", "-q", "-F", *options, "-d", tree, "IMAGE"])


def fat_trees(folder: Path) -> Iterator[SparseSource]:
    """FAT with files."""
    tree = _content(folder)
    files = [str(tree / "small.txt"), str(tree / "long.bin"), str(tree / "deep")]
    yield make(folder, "fat", 4 * MIB, ["mkfs.fat", "IMAGE"], ["mcopy", "-s", "-i", "IMAGE", *files, "::"])


def ntfs_trees(folder: Path) -> Iterator[SparseSource]:
    """NTFS with files."""
    tree = _content(folder)
    copies = [["ntfscp", "-f", "IMAGE", str(tree / name), name] for name in ("small.txt", "long.bin")]
    yield make(folder, "ntfs", 8 * MIB, ["mkntfs", "-q", "-F", "-f", "IMAGE"], *copies)


def btrfs_trees(folder: Path) -> Iterator[SparseSource]:
    """btrfs with files."""
    yield make(folder, "btrfs", 128 * MIB, ["mkfs.btrfs", "-q", "--rootdir", str(_content(folder)), "IMAGE"])


def xfs_trees(folder: Path) -> Iterator[SparseSource]:
    """XFS with files, from mkfs's own prototype file."""
    tree, proto = _content(folder), folder / "proto"
    lines = ["/dummy", "0 0", "d--755 0 0", f"small ---644 0 0 {tree / 'small.txt'}"]
    lines += [
        f"long ---644 0 0 {tree / 'long.bin'}",
        "deep d--755 0 0",
        f"file ---644 0 0 {tree / 'small.txt'}",
        "$",
        "$",
    ]
    proto.write_text("\n".join(lines) + "\n")
    yield make(folder, "xfs", 320 * MIB, ["mkfs.xfs", "-q", "-m", "crc=0", "-p", str(proto), "IMAGE"])
