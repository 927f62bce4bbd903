"""What is fuzzed: every reader of bytes that liferaft did not write itself (DESIGN §3.11).

A target takes bytes and returns, or raises one of liferaft's own errors. Anything else (another exception, a
hang, an allocation beyond the bound) is a bug. What it returns is checked where a rule is known: extents are sorted,
inside the volume, and together no larger than it.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import zstandard

from core.documents import decode_stored, decode_written, encode
from core.errors import LiferaftError
from images.filesystems.exfat import read_exfat
from images.filesystems.ext import read_ext
from images.filesystems.fat import read_fat
from images.filesystems.ntfs import read_ntfs
from images.filesystems.swap import read_swap
from images.filesystems.used import UsedMap
from images.filesystems.xfs import read_xfs
from images.model.machine import Machine
from images.model.manifest import Manifest
from images.model.soundness import check_manifest
from images.sources import BlockSource
from images.store.catalogue import Catalogue
from images.store.index import Index, index_in_memory
from images.store.keys import decode_slot
from images.store.pages import decode_page, diff_trees, find_slot, read_tree
from images.store.records import decode_record, decompress, unseal
from images.store.sealed import SealedDocument
from images.store.signature import check_signature
from restore.fit.fitting import fit
from restore.fit.wishes import Wishes
from restore.plan.plan import Plan
from restore.planning.rules import Growth
from restore.table.head import head_extents
from tests.fuzz.browsing import browse_target, btrfs_trees, ext_trees, fat_trees, ntfs_trees, xfs_trees
from tests.fuzz.parity import parity_target
from tests.fuzz.seeds import sample_manifest, stacked_manifest
from tests.fuzz.sparse import SparseSource, make
from tests.fuzz.stack import check_member, check_stack, check_text, member_images
from tests.fuzz.tables import check_tables, table_images

MIB = 1 << 20
Target = Callable[[bytes], None]

_REPOSITORY = bytes(range(16))
#: A reader of a map may read the map, and not much more, however often the metadata sends it in circles.
_READ_LIMIT = 256 * MIB


def targets() -> dict[str, Callable[[], Target]]:
    """Name -> maker of the target; making it may run mkfs."""
    return {
        "tables": _on_images(check_tables, table_images),
        "ext": _on_images(_map_of(read_ext), _ext_images),
        "fat": _on_images(_map_of(read_fat), _fat_images),
        "exfat": _on_images(_map_of(read_exfat), _exfat_images),
        "ntfs": _on_images(_map_of(read_ntfs), _ntfs_images),
        "xfs": _on_images(_map_of(read_xfs), _xfs_images),
        "swap": _on_images(_map_of(read_swap), _swap_images),
        "manifest": lambda: _document(Manifest),
        "catalogue": lambda: _document(Catalogue),
        "sealed": lambda: _document(SealedDocument),
        "machine": lambda: _document(Machine),
        "plan": lambda: _plan,
        "fit": lambda: _fit,
        "members": _on_images(check_member, member_images),
        "lvm-text": lambda: check_text,
        "stack": lambda: _stack,
        "page": lambda: _page,
        "tree": lambda: _tree,
        "record": lambda: _record,
        "index": lambda: _index,
        "key-slot": lambda: _slot,
        "signature": lambda: _signature,
        "parity": parity_target,
        "browse-ext": browse_target(ext_trees),
        "browse-fat": browse_target(fat_trees),
        "browse-ntfs": browse_target(ntfs_trees),
        "browse-btrfs": browse_target(btrfs_trees),
        "browse-xfs": browse_target(xfs_trees),
    }


def guarded(target: Target) -> Target:
    """The target with liferaft's own errors as a good answer."""

    def run(data: bytes) -> None:
        with contextlib.suppress(LiferaftError):
            target(data)

    return run


def _on_images(
    check: Callable[[SparseSource], None], images: Callable[[Path], Iterator[SparseSource]]
) -> Callable[[], Target]:
    def maker() -> Target:
        with tempfile.TemporaryDirectory() as folder:
            bases = list(images(Path(folder)))

        def run(data: bytes) -> None:
            if data:
                check(bases[data[0] % len(bases)].patched(data[1:]))

        return run

    return maker


def _map_of(reader: Callable[[BlockSource], UsedMap | None]) -> Callable[[SparseSource], None]:
    def check(source: SparseSource) -> None:
        answer = reader(source)
        if answer is None:
            return
        position, covered = -1, 0
        for extent in answer.extents():
            assert position < extent.start < extent.end <= source.size, (position, extent, source.size)
            position = extent.end
            covered += extent.size
        assert answer.trusted or covered == source.size, "not trusted, and not whole"
        assert source.bytes_read <= _READ_LIMIT, f"{source.bytes_read} bytes read"

    return check


def _document(kind: type[object]) -> Target:
    return lambda data: _discard(decode_stored(data, kind, name="input"))


def _plan(data: bytes) -> None:
    plan = decode_written(data, Plan, name="input")
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def _fit(data: bytes) -> None:
    """A manifest that decodes and is sound can be planned with, whatever its numbers are."""
    document = _with_numbers(msgspec.json.decode(encode(sample_manifest())), iter(data))
    manifest = decode_stored(msgspec.json.encode(document), Manifest, name="input")
    check_manifest(manifest, "input")
    for disk in manifest.layout.disks:
        for size in (disk.size, disk.size * 2, disk.size // 2):
            fitted = fit(disk, size, disk.sector_size, Wishes(growth=Growth.LAST))
            if fitted.table is not None and not fitted.reasons:
                head_extents(fitted.table, MIB, disk.sector_size)
                assert all(part.end_lba * disk.sector_size <= size for part in fitted.table.partitions)


def _stack(data: bytes) -> None:
    document = _with_numbers(msgspec.json.decode(encode(stacked_manifest())), iter(data))
    check_stack(decode_stored(msgspec.json.encode(document), Manifest, name="input"))


def _with_numbers(value: object, data: Iterator[int]) -> object:
    """A document in which the input decides which numbers change, and to what."""
    if isinstance(value, dict):
        return {key: _with_numbers(inner, data) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_numbers(inner, data) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool):
        choice = next(data, 0)
        if choice & 7 == 1:
            return value + next(data, 0) - 128
        if choice & 7 == 2:
            return next(data, 0) << (next(data, 0) % 64)
        if choice & 7 == 3:
            return -value
    return value


def _page(data: bytes) -> None:
    if data:
        decode_page(data[1:], data[0] % 4, "page")


def _tree(data: bytes) -> None:
    """Pages that point anywhere, at themselves too: depth and number are bounded by the volume."""
    if len(data) < 4:
        return
    chunks = 1 + int.from_bytes(data[:3], "little")
    pages = data[3:].split(b"LRTP")

    def fetch(identifier: bytes) -> bytes:
        return b"LRTP" + pages[identifier[0] % len(pages)]

    for _, _slot_found in zip(range(2000), read_tree(bytes(32), chunks, fetch, "tree"), strict=False):
        pass
    find_slot(bytes(32), chunks, chunks // 2, fetch, "tree")
    for _, _change in zip(range(2000), diff_trees((bytes(32), chunks), (b"\1" * 32, 300), fetch, "d"), strict=False):
        pass


def _record(data: bytes) -> None:
    header = decode_record(data, "record")
    payload = unseal(data, header, None, "record")
    plain = decompress(header, payload, zstandard.ZstdDecompressor(), "record")
    assert len(plain) == header.plain_length


def _index(data: bytes) -> None:
    view = memoryview(data)
    with contextlib.suppress(LiferaftError):
        list(index_in_memory(data, _REPOSITORY, "index").entries())
    # Without the digest, as a reader over a network sees it.
    index = Index(lambda at, length: view[at : at + length], len(data), _REPOSITORY, "index")
    list(index.entries())
    index.find(bytes(32))


def _slot(data: bytes) -> None:
    decode_slot(data, "slot")


def _signature(data: bytes) -> None:
    check_signature(data, "00" * 32, (bytes(32),), "signature")


def _discard(_: object) -> None:
    """A document is read for its errors."""


def _ext_images(folder: Path) -> Iterator[SparseSource]:
    for number, options in enumerate(
        (
            ["-t", "ext2", "-O", "^dir_index"],
            ["-t", "ext4", "-O", "^metadata_csum,^uninit_bg,^has_journal"],
            ["-t", "ext4", "-O", "^metadata_csum,bigalloc,^has_journal"],
            ["-t", "ext4", "-O", "^metadata_csum,meta_bg,^resize_inode,^has_journal", "-b", "1024"],
            ["-t", "ext4"],
        )
    ):
        yield make(folder, f"ext{number}", 32 * MIB, ["mke2fs", "-q", "-F", *options, "IMAGE"])


def _fat_images(folder: Path) -> Iterator[SparseSource]:
    for kind, size in (("12", 4 * MIB), ("16", 32 * MIB), ("32", 64 * MIB)):
        yield make(folder, f"fat{kind}", size, ["mkfs.fat", "-F", kind, "IMAGE"])


def _exfat_images(folder: Path) -> Iterator[SparseSource]:
    yield make(folder, "exfat", 16 * MIB, ["mkfs.exfat", "IMAGE"])


def _ntfs_images(folder: Path) -> Iterator[SparseSource]:
    yield make(folder, "ntfs", 16 * MIB, ["mkntfs", "-q", "-F", "-f", "IMAGE"])
    yield make(folder, "ntfs64k", 32 * MIB, ["mkntfs", "-q", "-F", "-f", "-c", "65536", "IMAGE"])


def _xfs_images(folder: Path) -> Iterator[SparseSource]:
    size = 320 * MIB
    yield make(folder, "xfs4", size, ["mkfs.xfs", "-q", "-m", "crc=0", "IMAGE"])
    yield make(folder, "xfs5", size, ["mkfs.xfs", "-q", "IMAGE"])


def _swap_images(folder: Path) -> Iterator[SparseSource]:
    yield make(folder, "swap", MIB, ["mkswap", "-q", "IMAGE"])
