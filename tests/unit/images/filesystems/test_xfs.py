"""XFS: real filesystems of every layout, against xfs_db, partclone, xfs_repair, dissect.xfs and themselves."""

import hashlib
import os
import random
import re
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from dissect.xfs.xfs import XFS
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DamagedError, DeviceError
from images.filesystems.checksums import CRC32C, crc
from images.filesystems.xfs import read_xfs
from images.model.extents import Extent, gaps, merge, total
from images.model.layout import FilesystemKind
from images.sources import BytesSource
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, make_file, run, used, whole

pytestmark = pytest.mark.skipif(
    bool(real.needs("mkfs.xfs", "xfs_db", "xfs_repair")), reason="xfsprogs is not installed"
)

#: MiB, and what mkfs.xfs is asked for.
LAYOUTS = {
    "v5": (48, ""),
    "v5-1k": (48, "-b size=1024"),
    "v5-64k": (160, "-b size=65536"),
    "v5-4k-sectors": (64, "-s size=4096"),
    "v5-agfl-4k-1k-inodes": (64, "-s size=4096 -i size=1024"),
    "v5-four-groups": (64, "-d agcount=4"),
    "v5-everything": (64, "-m rmapbt=1,reflink=1,finobt=1,inobtcount=1,bigtime=1 -i nrext64=1,sparse=1"),
    "v5-nothing": (64, "-m rmapbt=0,reflink=0,finobt=0,inobtcount=0,bigtime=0 -i nrext64=0,sparse=0"),
    "v5-log-in-second-group": (80, "-d agcount=3 -l agnum=1"),
    "v5-striped": (80, "-d su=64k,sw=2 -l su=256k"),
    "v4": (48, "-m crc=0"),
    "v4-512": (32, "-m crc=0 -b size=512"),
    "v4-old-log": (48, "-m crc=0 -l version=1"),
    "v4-no-lazy-count": (48, "-m crc=0 -l lazy-count=0"),
    "v4-case-blind": (48, "-m crc=0 -n version=ci"),
}


def make_xfs(path: Path, megabytes: int, options: str = "", tree: Path | None = None) -> Path:
    """An XFS of any size: mkfs.xfs refuses small ones except to XFS's own tests, which set these variables."""
    make_file(path, megabytes * MIB)
    proto = path.with_suffix(".proto")
    words = options.split()
    if tree is not None:
        proto.write_text(prototype(tree))
        words += ["-p", str(proto)]
    env = os.environ | {"TEST_DIR": "x", "TEST_DEV": "x", "QA_CHECK_FS": "x"}
    done = subprocess.run(["mkfs.xfs", "-q", "-f", *words, path], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return path


def prototype(folder: Path) -> str:
    """What mkfs.xfs fills a new filesystem from (mkfs.xfs(8), -p)."""

    def entries(place: Path) -> list[str]:
        lines = []
        for item in sorted(place.iterdir()):
            if item.is_dir():
                lines += [f"{item.name} d--755 0 0", *entries(item)]
            else:
                lines.append(f"{item.name} ---644 0 0 {item}")
        return [*lines, "$"]

    return "\n".join(["/", "0 0", "d--755 0 0", *entries(folder)]) + "\n"


def free_list(path: Path) -> list[Extent]:
    """The blocks on the free lists of all groups, as xfs_db prints them."""
    size, blocks, count = geometry(path)
    listed = []
    for group in range(count):
        text = run(
            "xfs_db", "-r", "-c", f"agf {group}", "-c", "p flfirst flcount", "-c", f"agfl {group}", "-c", "p bno", path
        )
        facts = dict(re.findall(r"^(flfirst|flcount) = (\d+)$", text, re.MULTILINE))
        ring = [int(word) if word != "null" else -1 for word in re.findall(r"\d+:(\d+|null)", text)]
        for index in range(int(facts["flcount"])):
            block = group * blocks + ring[(int(facts["flfirst"]) + index) % len(ring)]
            listed.append(Extent(block * size, (block + 1) * size))
    return list(merge(sorted(listed)))


def geometry(path: Path) -> tuple[int, int, int]:
    """Block size in bytes, blocks of a group, groups: as xfs_db prints them."""
    text = run("xfs_db", "-r", "-c", "sb 0", "-c", "p blocksize agblocks agcount", path)
    size, blocks, count = (int(word) for word in re.findall(r"= (\d+)$", text, re.MULTILINE))
    return size, blocks, count


def xfs_db_used(path: Path) -> list[Extent]:
    """Everything that xfs_db does not list as free, and the free lists, which it counts as free."""
    size, blocks, _ = geometry(path)
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+)$", run("xfs_db", "-r", "-c", "freesp -d", path), re.MULTILINE)
    free = sorted(Extent(s := (int(g) * blocks + int(b)) * size, s + int(n) * size) for g, b, n in rows)
    dblocks = int(run("xfs_db", "-r", "-c", "sb 0", "-c", "p dblocks", path).split("=")[1])
    bounds = Extent(0, dblocks * size)
    return list(merge(sorted([*gaps(merge(free), bounds), *free_list(path)])))


def xfs_files(path: Path) -> dict[str, str]:
    """Every file and its digest, as dissect.xfs reads them."""
    found = {}
    with path.open("rb") as stream:
        places = [("", XFS(stream).root)]
        while places:
            name, inode = places.pop()
            for child, entry in inode.listdir().items():
                if child in (".", ".."):
                    continue
                if stat.S_ISDIR(entry.filetype):
                    places.append((f"{name}{child}/", entry))
                elif stat.S_ISREG(entry.filetype):
                    found[name + child] = hashlib.sha256(entry.open().read()).hexdigest()
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("xfs") / "tree"
    random_ = random.Random(5)
    for number in range(60):
        place = root / f"folder-{number % 4}" / f"{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file-{number}.bin").write_bytes(random_.randbytes(random_.choice((0, 1, 100, 5000, 70000, 300000))))
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small XFS with all checksums, for damage."""
    return make_xfs(tmp_path_factory.mktemp("plain") / "fs", 32, "-d agcount=2 -L thelabel").read_bytes()


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_xfs_db_and_the_copy_is_whole(tmp_path: Path, tree: Path, name: str) -> None:
    path = make_xfs(tmp_path / "fs.img", *LAYOUTS[name], tree)
    answer, extents = used(path)
    assert answer.reason == ""
    assert answer.trusted
    assert answer.filesystem.kind is FilesystemKind.XFS
    assert extents == xfs_db_used(path)
    assert total(extents) < path.stat().st_size * 0.95
    if name in ("v5-everything", "v4-512") and not real.needs("partclone.xfs"):
        real.assert_covers(extents, real.partclone_used("partclone.xfs", path))
    copy = real.restore_copy(path, extents)
    run("xfs_repair", "-n", "-f", copy)
    if name in ("v5", "v5-1k", "v4", "v4-512"):
        assert xfs_files(copy) == real.digests(tree)


def test_facts_equal_blkid(tmp_path: Path) -> None:
    path = make_xfs(tmp_path / "fs.img", 32, "-L größe-☃")
    facts = dict(line.split("=", 1) for line in run("blkid", "-p", "-o", "export", path).splitlines() if "=" in line)
    filesystem = used(path)[0].filesystem
    assert filesystem.detail == facts["TYPE"]
    assert filesystem.uuid == facts["UUID"]
    assert filesystem.label == "größe-☃"
    assert filesystem.block_size == 4096
    assert filesystem.size == 32 * MIB


@pytest.mark.parametrize("options", ["", "-m crc=0"])
def test_uuid_that_was_changed(tmp_path: Path, options: str) -> None:
    """Version 5 keeps the old one in its metadata (meta_uuid), version 4 has none there; the log is made anew."""
    path = make_xfs(tmp_path / "fs.img", 32, options)
    run("xfs_admin", "-U", "0c1f2e3d-1111-4222-8333-444455556666", path)
    answer, extents = used(path)
    assert answer.trusted, answer.reason
    assert answer.filesystem.uuid == "0c1f2e3d-1111-4222-8333-444455556666"
    assert extents == xfs_db_used(path)


def test_log_that_xfs_repair_made_anew(tmp_path: Path) -> None:
    """-L zeroes the log and writes it again, with a cycle that is not the first."""
    path = make_xfs(tmp_path / "fs.img", 32)
    run("xfs_repair", "-L", "-f", path)
    answer, extents = used(path)
    assert answer.trusted, answer.reason
    assert extents == xfs_db_used(path)


def test_log_on_another_device_and_realtime_section(tmp_path: Path) -> None:
    log = make_file(tmp_path / "log", 16 * MIB)
    path = make_xfs(tmp_path / "fs.img", 32, f"-l logdev={log}")
    assert whole(path) == "its log is on another device"
    realtime = make_file(tmp_path / "rt", 32 * MIB)
    path = make_xfs(tmp_path / "with-rt.img", 32, f"-m reflink=0 -r rtdev={realtime}")
    answer, extents = used(path)
    assert answer.trusted, answer.reason
    assert extents == xfs_db_used(path)
    run("xfs_repair", "-n", "-f", "-r", realtime, real.restore_copy(path, extents))


def test_space_behind_the_filesystem_is_not_kept(tmp_path: Path) -> None:
    path = make_xfs(tmp_path / "fs.img", 32)
    os.truncate(path, 40 * MIB)
    answer, extents = used(path)
    assert answer.trusted
    assert extents[-1].end <= 32 * MIB


def sealed(content: bytearray, offset: int, size: int, at: int) -> None:
    """Make a block's CRC-32C right again."""
    content[offset + at : offset + at + 4] = bytes(4)
    struct.pack_into(
        "<I", content, offset + at, crc(CRC32C, 0xFFFFFFFF, bytes(content[offset : offset + size])) ^ 0xFFFFFFFF
    )


def reason_after(plain: bytes, offset: int, form: str, value: int | bytes, *, seal: tuple[int, int, int] | None) -> str:
    content = bytearray(plain)
    struct.pack_into(form, content, offset, value)
    if seal:
        sealed(content, *seal)
    answer = read_xfs(BytesSource(bytes(content)))
    assert answer is not None
    assert not answer.trusted
    assert list(answer.extents()) == [Extent(0, len(content))]
    return answer.reason


_SUPERBLOCK = (0, 512, 224)
_AGF = (512, 512, 216)
_AGFL = (1536, 512, 32)


@pytest.mark.parametrize(
    ("offset", "form", "value", "words"),
    [
        (4, ">I", 3000, "its block size is 3000"),
        (102, ">H", 100, "its sector size is 100"),
        (84, ">I", 63, "it has 63 blocks in an allocation group"),
        (84, ">I", 1 << 30, "blocks in an allocation group"),
        (88, ">I", 0, "blocks in 0 allocation groups"),
        (88, ">I", 1 << 31, "allocation groups of"),
        (8, ">Q", 1 << 60, "allocation groups of"),
        (124, ">B", 40, "with 40 bits"),
        (124, ">B", 2, "with 2 bits"),
        (96, ">I", 1 << 31, "its log has"),
        (96, ">I", 1, "its log has 1 blocks"),
        (48, ">Q", 1 << 40, "its log lies outside"),
        (48, ">Q", 0, "its log is on another device"),
        (100, ">H", 0xB4A3, "its version is 3"),
        (100, ">H", 0xB6A5, "the retired feature shared"),
        (126, ">B", 1, "making, growing or repairing it was never finished"),
        (200, ">I", 0x100018A, "features liferaft does not know (features2 0x1000000)"),
        (212, ">I", 0x1000D, "features liferaft does not know (ro_compat 0x10000)"),
        (216, ">I", 0x20B, "features liferaft does not know (incompat 0x200)"),
        (216, ">I", 0x1B, "it is marked as damaged: run xfs_repair"),
        (144, ">Q", 1, "its superblock counts 1 free blocks, its allocation groups"),
        (32, ">16s", bytes(range(16)), "its log needs recovery"),
    ],
)
def test_superblock(plain: bytes, offset: int, form: str, value: int | bytes, words: str) -> None:
    """With its checksum made right, as a bug of a writer would leave it."""
    assert words in reason_after(plain, offset, form, value, seal=_SUPERBLOCK)


@pytest.mark.parametrize("flag", [0x40, 0x80, 0x100])
def test_features_that_say_nothing_about_free_space(plain: bytes, flag: int) -> None:
    """Exchange-range, parent pointers, metadata directories: xfsprogs here is too old to make them."""
    content = bytearray(plain)
    incompat = struct.unpack_from(">I", content, 216)[0] | flag
    for group in range(2):
        offset = group * 16 * MIB
        struct.pack_into(">I", content, offset + 216, incompat)
        sealed(content, offset, 512, 224)
    answer, before = read_xfs(BytesSource(bytes(content))), read_xfs(BytesSource(plain))
    assert answer is not None and before is not None
    assert answer.trusted, answer.reason
    assert list(answer.extents()) == list(before.extents())


@pytest.mark.parametrize(
    ("seal", "at", "form", "value", "words"),
    [
        (_AGF, 0, ">4s", b"XAGI", "its magic is b'XAGI'"),
        (_AGF, 4, ">I", 2, "its version is 2"),
        (_AGF, 8, ">I", 1, "its number is 1, not 0"),
        (_AGF, 12, ">I", 4095, "its length is 4095, not 4096"),
        (_AGF, 16, ">I", 0xFFFFFFF0, "points outside"),
        (_AGF, 16, ">I", 0, "points outside"),
        (_AGF, 16, ">I", 2, "no sound block"),  # the tree by size: another magic
        (_AGF, 28, ">I", 2, "no sound block"),
        (_AGF, 28, ">I", 0, "with 0 levels"),
        (_AGF, 28, ">I", 1 << 31, "levels"),
        (_AGF, 40, ">I", 500, "the free list of allocation group 0 has 4 entries"),
        (_AGF, 48, ">I", 1 << 30, "entries"),
        (_AGF, 52, ">I", 5, "counts 5 free blocks"),
        (_AGF, 56, ">I", 5, "5 at most together"),
        (_AGF, 60, ">I", 5, "its superblock counts"),
        (_AGF, 64, ">16s", bytes(16), "its uuid is"),
        (_AGFL, 0, ">4s", b"XAGF", "the free list of allocation group 0 is another's"),
        (_AGFL, 40, ">I", 1 << 20, "the free list of allocation group 0 names a block outside it"),
        (_AGFL, 40, ">I", 4000, "lists a block that is in use"),
    ],
)
def test_headers_of_a_group(
    plain: bytes, seal: tuple[int, int, int], at: int, form: str, value: int | bytes, words: str
) -> None:
    assert words in reason_after(plain, seal[0] + at, form, value, seal=seal)


@pytest.mark.parametrize("offset", [20, 512 + 100, 1536 + 40, 4096 + 100, 16 * MIB + 20, 16 * MIB + 512 + 100])
def test_any_bit_of_metadata_is_under_a_checksum(plain: bytes, offset: int) -> None:
    content = bytearray(plain)
    content[offset] ^= 1
    answer = read_xfs(BytesSource(bytes(content)))
    assert answer is not None
    assert "checksum" in answer.reason or "no sound block" in answer.reason


def test_copies_of_the_superblock_must_agree(plain: bytes) -> None:
    content = bytearray(plain)
    struct.pack_into(">I", content, 16 * MIB + 88, 3)
    sealed(content, 16 * MIB, 512, 224)
    answer = read_xfs(BytesSource(bytes(content)))
    assert answer is not None
    assert answer.reason == "its superblock and the copy in allocation group 1 contradict each other (group_count)"


def log_of(content: bytes) -> tuple[int, int]:
    """Where the log lies and how long it is, in bytes; 4 KiB blocks."""
    start, blocks, group_blocks, bits = (
        struct.unpack_from(form, content, at)[0] for at, form in ((48, ">Q"), (96, ">I"), (84, ">I"), (124, ">B"))
    )
    return ((start >> bits) * group_blocks + (start & ((1 << bits) - 1))) * 4096, blocks * 4096


def test_log_judged_as_xfs_logprint_does(tmp_path: Path, plain: bytes) -> None:
    """Turned so that the last record ends in every place of the log that matters, and torn in each of them."""
    start, size = log_of(plain)
    blocks = size // 512
    for turn in (0, 1, 5, 5000, blocks - 7, blocks - 2, blocks - 1):
        content = bytearray(plain)
        content[start : start + size] = turned(plain[start : start + size], turn)
        path = tmp_path / "fs.img"
        path.write_bytes(content)
        assert "state: <CLEAN>" in run("xfs_logprint", "-t", path), turn
        answer = read_xfs(BytesSource(bytes(content)))
        assert answer is not None
        assert answer.trusted, (turn, answer.reason)
        struct.pack_into(">B", content, start + (turn + 1) % blocks * 512 + 9, 0)  # no longer an unmount record
        path.write_bytes(content)
        assert "state: <DIRTY>" in run("xfs_logprint", "-t", path, codes=(0, 1)), turn
        answer = read_xfs(BytesSource(bytes(content)))
        assert answer is not None
        assert "its log needs recovery" in answer.reason


def turned(log: bytes, turn: int) -> bytes:
    """A log in its seventh cycle, full of records that say "unmounted", the last one at block ``turn``."""
    count = len(log) // 512
    assert struct.unpack_from(">I", log, 12)[0] == 512
    assert count % 2 == 0
    header, operation = bytearray(log[:512]), bytearray(log[512:1024])
    head = turn + 2 if turn + 2 <= count else turn + 2 - count
    blocks = []
    for number in range(count):
        cycle = 7 if number < head else 6
        if (number - turn) % 2 == 0:
            struct.pack_into(">I", header, 4, cycle)
            struct.pack_into(">QQ", header, 16, cycle << 32 | number, cycle << 32 | number)
            blocks.append(bytes(header))
        else:
            struct.pack_into(">I", operation, 0, cycle)
            blocks.append(bytes(operation))
    return b"".join(blocks)


def torn_space(plain: bytes, block_size: int, *, crcs: bool, holes: int) -> tuple[bytes, list[int]]:
    """An XFS whose first group has ``holes`` single free blocks more, so that its tree needs levels; and its blocks.

    The kernel would make such a tree of a disk that was filled and thinned out. Here it is written by the format's
    rules, level by level; xfs_db reads it too, and says whether it was done right.
    """
    content = bytearray(plain)
    base = 4 * struct.unpack_from(">H", content, 102)[0] // 4
    header = 56 if crcs else 16
    root, levels, free = (struct.unpack_from(">I", content, base + at)[0] for at in (16, 28, 52))
    assert levels == 1
    count = struct.unpack_from(">H", content, root * block_size + 6)[0]
    records = [struct.unpack_from(">II", content, root * block_size + header + 8 * n) for n in range(count)]
    start, length = max(records, key=lambda record: record[1])
    records.remove((start, length))
    position = start + length - 2 * holes
    taken = list(range(start, start + holes // 20 + 10))
    records += [(taken[-1] + 1, position - taken[-1] - 2), *((position + 2 * n, 1) for n in range(holes))]
    records.sort()
    level, numbers, used_blocks = 0, iter(taken), []
    entries = [(struct.pack(">II", *record), 0) for record in records]
    while level == 0 or len(entries) > 1:
        most = (block_size - header) // (12 if level else 8)
        pieces = [entries[n : n + most] for n in range(0, len(entries), most)]
        blocks = [next(numbers) for _ in pieces]
        for index, (block, piece) in enumerate(zip(blocks, pieces, strict=True)):
            left = blocks[index - 1] if index else 0xFFFFFFFF
            right = blocks[index + 1] if index + 1 < len(blocks) else 0xFFFFFFFF
            body = bytearray(block_size)
            struct.pack_into(">4sHHII", body, 0, b"AB3B" if crcs else b"ABTB", level, len(piece), left, right)
            if crcs:
                struct.pack_into(">QQ16sI", body, 16, block * block_size // 512, 0, bytes(content[32:48]), 0)
            for place, (key, pointer) in enumerate(piece):
                body[header + 8 * place : header + 8 * place + 8] = key
                if level:
                    struct.pack_into(">I", body, header + 8 * most + 4 * place, pointer)
            content[block * block_size : (block + 1) * block_size] = body
            if crcs:
                sealed(content, block * block_size, block_size, 52)
        used_blocks += blocks
        entries = [(piece[0][0], block) for block, piece in zip(blocks, pieces, strict=True)]
        level += 1
    now_free = sum(size for _, size in records)
    for at, value in ((16, used_blocks[-1]), (28, level), (52, now_free), (56, max(size for _, size in records))):
        struct.pack_into(">I", content, base + at, value)
    struct.pack_into(">Q", content, 144, struct.unpack_from(">Q", content, 144)[0] + now_free - free)
    if crcs:
        sealed(content, 0, base, 224)
        sealed(content, base, base, 216)
    return bytes(content), used_blocks


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    """Version 4, nothing under a checksum: three levels of blocks of 512 bytes."""
    path = make_xfs(tmp_path_factory.mktemp("torn") / "fs", 20, "-m crc=0 -b size=512 -d agcount=1")
    return torn_space(path.read_bytes(), 512, crcs=False, holes=4000)


def test_trees_of_several_levels(tmp_path: Path, torn: tuple[bytes, list[int]]) -> None:
    plain = make_xfs(tmp_path / "plain", 48, "-b size=1024 -d agcount=2").read_bytes()
    for number, (content, blocks) in enumerate((torn, torn_space(plain, 1024, crcs=True, holes=6000))):
        path = tmp_path / f"fs-{number}"
        path.write_bytes(content)
        answer, extents = used(path)
        assert answer.trusted, answer.reason
        assert len(extents) > 3000
        assert extents == xfs_db_used(path)
        assert len(blocks) > 40


def damaged(content: bytes, *changes: tuple[int, bytes]) -> str:
    """The reason of a volume with some bytes replaced."""
    changed = bytearray(content)
    for offset, patch in changes:
        changed[offset : offset + len(patch)] = patch
    answer = read_xfs(BytesSource(bytes(changed)))
    assert answer is not None
    assert not answer.trusted
    return answer.reason


def test_trees_that_contradict_themselves(torn: tuple[bytes, list[int]]) -> None:
    """Without checksums, so that only the tree's own rules are left."""
    content, blocks = torn
    leaf, node, root = blocks[1] * 512, blocks[-2] * 512, blocks[-1] * 512
    assert struct.unpack_from(">HH", content, root + 4)[0] == 2
    assert struct.unpack_from(">HH", content, node + 4)[0] == 1
    first = struct.unpack_from(">II", content, leaf + 16)
    pointers = root + 16 + 8 * 41
    assert "is no sound block" in damaged(content, (leaf, b"ABTC"))
    assert "is no sound block" in damaged(content, (leaf + 5, b"\1"))
    assert "is no sound block" in damaged(content, (leaf + 8, bytes(4)))
    assert "holds 0 records" in damaged(content, (leaf + 6, bytes(2)))
    assert "holds 65535 records" in damaged(content, (leaf + 6, b"\xff\xff"))
    assert "holds 42 records" in damaged(content, (root + 6, b"\x00\x2a"))
    assert "points outside it" in damaged(content, (pointers, b"\xff\xff\xff\x00"))
    # two nodes exchanged, the same node twice, the root below itself
    both = content[pointers : pointers + 8]
    assert "out of order" in damaged(content, (pointers, both[4:] + both[:4]))
    assert "out of order" in damaged(content, (pointers, both[:4] * 2))
    assert "is no sound block" in damaged(content, (pointers, blocks[-1].to_bytes(4, "big")))
    # a record that overlaps the next, has no length, wraps around, or is longer than the group
    for length in (3, 0, 0xFFFFFFFF, 0x7FFFFFFF):
        assert "overlaps" in damaged(content, (leaf + 16, struct.pack(">II", first[0], length)))
    # a record moved to where metadata is: the tree's own root, and the log
    assert "is in use" in damaged(content, (blocks[0] * 512 + 16, struct.pack(">II", blocks[-1], 1)))


def test_a_log_in_free_space(plain: bytes) -> None:
    start, size = log_of(plain)
    group = start // (16 * MIB) * 16 * MIB
    first = (start - group) // 4096
    leaf = group + struct.unpack_from(">I", plain, group + 512 + 16)[0] * 4096
    content = bytearray(plain)
    struct.pack_into(">II", content, leaf + 56, first + size // 4096 - 1, 1)
    struct.pack_into(">H", content, leaf + 6, 1)
    sealed(content, leaf, 4096, 52)
    answer = read_xfs(BytesSource(bytes(content)))
    assert answer is not None
    assert f"the log lies in free space of allocation group {group // (16 * MIB)}" in answer.reason


def test_truncated_and_foreign_sources(plain: bytes) -> None:
    assert read_xfs(BytesSource(b"")) is None
    assert read_xfs(BytesSource(bytes(MIB))) is None
    assert read_xfs(BytesSource(plain[:511])) is None
    for size in (512, 4096, 16 * MIB, 32 * MIB - 512):
        cut = read_xfs(BytesSource(plain[:size]))
        assert cut is not None
        assert cut.reason == f"it claims 33554432 bytes, but the volume has {size}"


class PatchedSource(BytesSource):
    """Some bytes replaced. Fails when more is asked for at once, or more often, than a reader of it may need."""

    def __init__(self, content: bytes, patches: dict[int, int]) -> None:
        super().__init__(content)
        self._patches = patches
        self.reads = 0

    def read_at(self, offset: int, length: int) -> bytes:
        assert length <= 4 * MIB
        self.reads += 1
        assert self.reads < 5000
        data = bytearray(super().read_at(offset, length))
        for place, value in self._patches.items():
            if offset <= place < offset + length:
                data[place - offset] = value
        return bytes(data)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_is_doubt_or_extents_inside(torn: tuple[bytes, list[int]], data: st.DataObject) -> None:
    """Without checksums, so that the damage gets past them: superblock, headers, free list, tree, log."""
    content, blocks = torn
    start = struct.unpack_from(">Q", content, 48)[0] * 512
    places = [0, 512, 1536, start, start + 512, *(block * 512 for block in (blocks[0], blocks[5], *blocks[-3:]))]
    place = st.tuples(st.sampled_from(places), st.integers(0, 271) | st.integers(0, 511), st.integers(0, 255))
    changes = data.draw(st.lists(place, min_size=1, max_size=4))
    source = PatchedSource(content, {base + offset: value for base, offset, value in changes})
    try:
        answer = read_xfs(source)
        if answer is None:
            return
        extents = list(answer.extents())
    except (DamagedError, DeviceError) as error:
        assert error.message
        return
    real.assert_sound(extents, len(content))
    assert answer.trusted or extents == [Extent(0, len(content))]
