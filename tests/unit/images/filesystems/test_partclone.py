"""What partclone may be asked, and what of its answers is believed. No device, no root: its answers are scripted."""

import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DamagedError, DeviceError, ProcessError
from core.process import Result
from images.filesystems import partclone
from images.filesystems.detect import read_used
from images.filesystems.partclone import Partclone, parse_domain, plausible
from images.filesystems.partclone_btrfs import tree_extents
from images.filesystems.partclone_judge import Judgement, judge
from images.model.extents import Extent, clip, merge, total
from images.model.layout import DiskIdentity, FilesystemKind
from images.signatures import Signature
from images.sources import BytesSource, open_source
from images.survey import survey_disk
from tests.runners import ScriptedRunner
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, make_file, run
from tests.unit.images.filesystems.test_xfs import PatchedSource

MAP = """# Domain logfile created by partclone v0.3.23
# current_pos  current_status
0x00004000     ?
#      pos        size  status
0x00000000  0x00001000  +
0x00001000  0x00002000  ?
0x00003000  0x00001000  +
"""


def test_a_map() -> None:
    """As ddrescue's manual describes mapfiles: position, size, status."""
    rows = parse_domain(MAP.encode(), 0x4000)
    assert rows.tolist() == [[0, 0x1000], [0x3000, 0x4000], [0x4000, 0x4000]]
    assert parse_domain(MAP.encode(), 0x5000).tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0x00003000  0x00001000  +\n", ""),  # ends early
        ("0x00001000  0x00002000  ?", "0x00001000  0x00001000  ?"),  # a gap
        ("0x00003000  0x00001000", "0x00002000  0x00001000"),  # overlaps
        ("0x00003000  0x00001000", "0x00003000  0x00002000"),  # longer than it says
        ("0x00003000  0x00001000", "0x00003000  -0x0001000"),
        ("0x00003000  0x00001000  +", "0x00003000  0x00001000  *"),
        ("0x00003000  0x00001000  +", "0x00003000  0x00001000"),
        ("0x00003000  0x00001000  +", "0x00003000  0x0000lots  +"),
        ("0x00004000     ?", ""),
        ("0x00004000     ?", "0x00006000     ?"),
        (MAP, ""),
    ],
)
def test_maps_that_are_none(old: str, new: str) -> None:
    assert old in MAP
    with pytest.raises(DamagedError, match="partclone's map"):
        parse_domain(MAP.replace(old, new).encode(), 0x4000)
    with pytest.raises(DamagedError, match="the volume has 16383 bytes"):
        parse_domain(MAP.encode(), 0x3FFF)


_EXTENTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda pair: Extent(pair[0], sum(pair))))


@given(_EXTENTS.map(sorted), _EXTENTS.map(sorted), st.integers(0, 60), st.integers(1, 70))
def test_what_is_kept_is_the_map_and_what_is_kept_anyway(
    found: list[Extent], kept: list[Extent], end: int, size: int
) -> None:
    mapped = [extent for extent in merge(found) if extent.end <= end]
    kept = [extent for extent in kept if extent.end <= size]
    rows = np.array([*((extent.start, extent.end) for extent in mapped), (end, end)], dtype=np.int64)
    used = plausible("tool", rows, Judgement(size=size, at_least=total(mapped), kept=tuple(kept)))
    expected = set(range(end, size)).union(*(range(extent.start, min(extent.end, size)) for extent in [*mapped, *kept]))
    assert [number for start, stop in used.tolist() for number in range(start, stop)] == sorted(expected)
    assert (used[1:, 0] > used[:-1, 1]).all()
    with pytest.raises(DamagedError, match="the filesystem counts at least"):
        plausible("tool", rows, Judgement(size=size, at_least=total(mapped) + 1))


def test_a_map_of_many_pieces_takes_little_memory() -> None:
    count = 60_000
    lines = "".join(f"0x{2 * at:X}000 0x1000 +\n0x{2 * at + 1:X}000 0x1000 ?\n" for at in range(count))
    content = f"0x{2 * count:X}000 ?\n{lines}".encode()
    tracemalloc.start()
    try:
        rows = plausible("tool", parse_domain(content, 1 << 40), Judgement(size=2 * count << 12))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rows) == count
    assert peak < 4 * len(content)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_map_or_an_error(content: bytes) -> None:
    try:
        rows = parse_domain(content, 1 << 40)
    except DamagedError as error:
        assert error.message
        return
    assert (rows[:, 0] <= rows[:, 1]).all()
    assert (rows[1:, 0] >= rows[:-1, 1]).all()
    assert int(rows[-1, 1]) <= 1 << 40


def make(tool: str, path: Path, megabytes: int, *options: str) -> Path:
    if real.needs(tool):
        pytest.skip(real.needs(tool))
    run(tool, *options, make_file(path, megabytes * MIB))
    return path


def doubt(kind: FilesystemKind, path: Path, *changes: tuple[int, str, int]) -> str:
    patches = {}
    for offset, form, value in changes:
        patches |= {offset + place: byte for place, byte in enumerate(struct.pack(form, value))}
    return judge(kind, PatchedSource(path.read_bytes(), patches)).doubt


_B = 64 << 10
#: The superblock's checksum said to be of the kind that only partclone checks, so that a change gets past it.
_NO_SUM = (_B + 196, "<H", 1)


@pytest.mark.parametrize("checksum", ["crc32c", "xxhash", "sha256", "blake2"])
def test_btrfs(tmp_path: Path, checksum: str) -> None:
    path = make("mkfs.btrfs", tmp_path / "fs", 120, "-q", "-f", "--csum", checksum)
    with open_source(path) as source:
        judgement = judge(FilesystemKind.BTRFS, source)
    assert judgement.doubt == ""
    facts = dict(re.findall(r"^(\w+)\s+(\d+)$", run("btrfs", "inspect-internal", "dump-super", path), re.MULTILINE))
    assert judgement.size == int(facts["total_bytes"]) == 120 * MIB
    assert judgement.at_least == int(facts["bytes_used"])
    assert judgement.block_size == int(facts["sectorsize"])
    if checksum != "xxhash":
        assert "does not match its checksum" in doubt(FilesystemKind.BTRFS, path, (_B + 300, "<B", 1))
    kind = FilesystemKind.BTRFS
    assert "is not where it says" in doubt(kind, path, (_B + 48, "<Q", 64 * MIB))
    assert "its log needs recovery" in doubt(kind, path, _NO_SUM, (_B + 96, "<Q", 30 * MIB))
    assert "it lies on 2 devices" in doubt(kind, path, _NO_SUM, (_B + 136, "<Q", 2))
    assert "it is a seed" in doubt(kind, path, _NO_SUM, (_B + 56, "<Q", 1 | 1 << 32))
    assert "features liferaft does not know" in doubt(kind, path, _NO_SUM, (_B + 188, "<Q", 0x2341))
    assert "features liferaft does not know" in doubt(kind, path, _NO_SUM, (_B + 180, "<Q", 0x10))
    assert "in use" in doubt(kind, path, _NO_SUM, (_B + 120, "<Q", 1 << 50))
    assert "it claims" in doubt(kind, path, _NO_SUM, (_B + 112, "<Q", 1 << 50))


def test_btrfs_on_two_devices(tmp_path: Path) -> None:
    other = make_file(tmp_path / "other", 120 * MIB)
    path = make("mkfs.btrfs", tmp_path / "fs", 120, "-q", "-f", str(other))
    with open_source(path) as source:
        assert judge(FilesystemKind.BTRFS, source).doubt == "it lies on 2 devices"


def test_f2fs(tmp_path: Path) -> None:
    path = make("mkfs.f2fs", tmp_path / "fs", 100, "-q", "-f")
    kind = FilesystemKind.F2FS
    with open_source(path) as source:
        judgement = judge(kind, source)
    assert judgement.doubt == ""
    assert judgement.size == 100 * MIB
    dump = run("dump.f2fs", "-d", "1", path)
    valid = next(int(line.split()[-1].rstrip("]"), 0) for line in dump.splitlines() if "valid_block_count" in line)
    main = next(int(line.split()[-1].rstrip("]"), 0) for line in dump.splitlines() if line.startswith("main_blkaddr"))
    assert judgement.at_least == (main + valid) * 4096
    assert "features liferaft does not know" in doubt(kind, path, (1024 + 2180, "<I", 0x2))
    assert "several devices" in doubt(kind, path, (1024 + 2201, "<B", 47))
    assert "out of order" in doubt(kind, path, (1024 + 92, "<I", 1))
    assert "segments of 2^20" in doubt(kind, path, (1024 + 20, "<I", 20))
    block = struct.unpack_from("<I", path.read_bytes(), 1024 + 76)[0]
    both = [(block + 512 * number) * 4096 for number in range(2)]
    assert "no sound checkpoint" in doubt(kind, path, *((offset + 132, "<I", 0) for offset in both))


def test_minix(tmp_path: Path) -> None:
    kind = FilesystemKind.MINIX
    for option in ("-1", "-2"):
        path = make("mkfs.minix", tmp_path / f"fs{option}", 20, option)
        assert doubt(kind, path) == ""
        assert "not cleanly unmounted" in doubt(kind, path, (1024 + 18, "<H", 0))
        assert "has errors" in doubt(kind, path, (1024 + 18, "<H", 3))
        assert "its zones are" in doubt(kind, path, (1024 + 10, "<H", 2))
        assert "out of order" in doubt(kind, path, (1024 + 8, "<H", 1))
    path = make("mkfs.minix", tmp_path / "three", 20, "-3")
    assert doubt(kind, path) == "its version does not say whether it was unmounted"


def hfsplus(attributes: int, *, start: int = 512, end: int = 512, signature: bytes = b"H+") -> BytesSource:
    """A volume of 256 blocks of 4 KiB by TN1150: header, and a journal's info block (2) and header (3)."""
    content = bytearray(MIB)
    struct.pack_into(">2sHII I", content, 1024, signature, 4, attributes, 0, 2)
    struct.pack_into(">III", content, 1024 + 40, 4096, 256, 100)
    struct.pack_into(">I32xQQ", content, 2 * 4096, 1, 3 * 4096, 65536)
    struct.pack_into("<IIQQ", content, 3 * 4096, 0x4A4E4C78, 0x12345678, start, end)
    return BytesSource(bytes(content))


def test_hfsplus() -> None:
    clean = judge(FilesystemKind.HFSPLUS, hfsplus(0x2100))
    assert (clean.doubt, clean.size, clean.at_least) == ("", MIB, 156 * 4096)
    assert judge(FilesystemKind.HFSPLUS, hfsplus(0x100, end=4096)).doubt == ""
    assert "not cleanly unmounted" in judge(FilesystemKind.HFSPLUS, hfsplus(0x2000)).doubt
    assert "not cleanly unmounted" in judge(FilesystemKind.HFSPLUS, hfsplus(0x900)).doubt
    assert "its journal needs recovery" in judge(FilesystemKind.HFSPLUS, hfsplus(0x2100, end=4096)).doubt
    assert "wrapped in an old HFS" in judge(FilesystemKind.HFSPLUS, hfsplus(0x100, signature=b"BD")).doubt


@pytest.mark.parametrize("kind", [kind for kind in FilesystemKind if kind not in ("swap", "unknown")])
@given(content=st.binary(max_size=2048), place=st.sampled_from([0, 1024, 65536]))
def test_any_superblock_is_judged(kind: FilesystemKind, content: bytes, place: int) -> None:
    magic = {1024: struct.pack("<I", 0xF2F52010)}.get(place, b"")
    judgement = judge(kind, BytesSource(bytes(place) + magic + content + bytes(4096)))
    assert judgement.doubt or judgement.size <= place + 8192
    assert all(extent.end <= max(judgement.size, MIB) for extent in judgement.kept)


@pytest.mark.parametrize("name", ["apfs", "jfs", "nilfs2", "reiserfs", "reiser4"])
def test_what_cannot_be_judged_is_not_believed(name: str) -> None:
    answer = Partclone(ScriptedRunner(lambda argv: "")).read(BytesSource(bytes(MIB)), Signature(name=name))
    assert answer is not None
    assert answer.reason == "liferaft cannot tell whether its map is current"
    assert answer.filesystem.kind.value == name


def scripted(text: str, log: str = "", *, fails: bool = False) -> tuple[Partclone, ScriptedRunner]:
    """A partclone that leaves this map and this log."""

    def answer(argv: tuple[str, ...]) -> Result | str:
        if argv[0] == "losetup":
            return "/dev/loop77\n" if "--show" in argv else ""
        Path(argv[argv.index("--output") + 1]).write_text(text)
        Path(argv[argv.index("--logfile") + 1]).write_text(log)
        if fails:
            raise ProcessError(argv, 1, "the screen's last line")
        return ""

    runner = ScriptedRunner(answer)
    return Partclone(runner), runner


@pytest.fixture
def minix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(partclone, "find_tool", lambda name: f"/usr/sbin/{name}")
    return make("mkfs.minix", tmp_path / "fs", 1, "-2")


def minix_map(size: int = MIB, used: int = 0x8000) -> str:
    return f"{size:#x} ?\n0x0 {used:#x} +\n{used:#x} {size - used:#x} ?\n"


def test_an_answer_is_believed_and_the_loop_goes_away(minix: Path) -> None:
    asked, runner = scripted(minix_map(used=0x40000), "TARGET: fine\n")
    with open_source(minix) as source:
        answer = read_used(source, asked.read)
    assert answer.trusted, answer.reason
    assert answer.filesystem.kind is FilesystemKind.MINIX
    assert list(answer.extents()) == [Extent(0, 0x40000)]
    assert runner.calls[0][:4] == ("losetup", "--find", "--show", "--read-only")
    assert runner.calls[-1] == ("losetup", "--detach", "/dev/loop77")


def test_a_survey_asks(minix: Path) -> None:
    asked, _ = scripted(minix_map(used=0x40000))
    with open_source(minix) as source:
        survey = survey_disk(source, "disk0", DiskIdentity(), asked.read)
        assert [list(volume.used.extents()) for volume in survey.volumes] == [[Extent(0, 0x40000)]]
        assert not survey_disk(source, "disk0", DiskIdentity()).volumes[0].used.trusted


def too_short() -> tuple[Partclone, ScriptedRunner]:
    return scripted(minix_map(MIB // 2).replace("?\n0x0", "?\n0x1"))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: scripted(minix_map(used=1024)), "partclone.minix sees 1024 bytes in use, the filesystem"),
        (lambda: scripted(minix_map(2 * MIB)), "the volume has 1048576 bytes"),
        (too_short, "partclone's map goes on at"),
        (lambda: scripted(minix_map(), "minixclone.c: read failed"), "did not see all of it: minixclone.c"),
        (lambda: scripted("", "seek failed: x", fails=True), "partclone.minix refused: seek failed: x"),
        (lambda: scripted("", "", fails=True), "refused: partclone.minix failed with exit code 1"),
    ],
)
def test_an_answer_that_cannot_be_right(
    minix: Path, ask: Callable[[], tuple[Partclone, ScriptedRunner]], words: str
) -> None:
    asked, runner = ask()
    with open_source(minix) as source:
        answer = read_used(source, asked.read)
    assert not answer.trusted
    assert words in answer.reason
    assert list(answer.extents()) == [Extent(0, MIB)]
    assert runner.calls[-1] == ("losetup", "--detach", "/dev/loop77")


def test_without_root_a_device_or_the_program(minix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, runner = scripted(minix_map())
    stored = asked.read(BytesSource(minix.read_bytes()), Signature(name="minix"))
    assert stored is not None
    assert stored.reason == "partclone reads devices and files only"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with open_source(minix) as source:
        assert read_used(source, asked.read).reason == "asking partclone.minix needs root"
        monkeypatch.setattr(partclone, "find_tool", lambda name: None)
        assert read_used(source, asked.read).reason == "partclone.minix is not installed"
        assert read_used(source).reason == "liferaft has no reader for minix"
    assert runner.calls == []


def chunks_of(path: Path) -> list[Extent]:
    """Where the chunks lie that may hold trees, or anything twice, as btrfs-progs prints them."""
    found = []
    text = run("btrfs", "inspect-internal", "dump-tree", "-t", "chunk", path)
    for chunk in re.split(r"\titem \d+ key ", text)[1:]:
        kind = re.search(r"length (\d+) owner \d+ stripe_len \d+ type (\S+)", chunk)
        if kind and re.search(r"METADATA|SYSTEM|DUP", kind[2]):
            found += [Extent(int(at), int(at) + int(kind[1])) for at in re.findall(r"devid \d+ offset (\d+)", chunk)]
    return list(merge(sorted(found)))


@pytest.mark.parametrize("options", ["", "-m single", "-M", "-n 65536", "-n 4096 -s 4096", "-d dup"])
def test_chunks_of_trees_are_kept(tmp_path: Path, options: str) -> None:
    path = make("mkfs.btrfs", tmp_path / "fs", 400, "-q", "-f", *options.split())
    with open_source(path) as source:
        superblock = source.read_at(64 << 10, 4096)
        extents = list(tree_extents(source, superblock))
        assert extents == chunks_of(path)
        assert extents
        kept = judge(FilesystemKind.BTRFS, source).kept
        assert all(total(clip(kept, extent)) == extent.size for extent in extents)


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    """A volume, and where its chunk tree's only node lies."""
    path = make("mkfs.btrfs", tmp_path_factory.mktemp("btrfs") / "fs", 120, "-q", "-f", "-n", "4096")
    content = path.read_bytes()
    system = int.from_bytes(content[_B + 811 + 9 : _B + 811 + 17], "little")
    physical = int.from_bytes(content[_B + 811 + 17 + 48 + 8 : _B + 811 + 17 + 48 + 16], "little")
    return content, int.from_bytes(content[_B + 88 : _B + 96], "little") - system + physical


@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.booleans(), st.integers(0, 4095) | st.integers(811, 1000), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_any_chunk_tree_is_kept_inside_or_an_error(
    btrfs: tuple[bytes, int], changes: list[tuple[bool, int, int]]
) -> None:
    content, node = btrfs
    patches = {(node if in_node else _B) + offset: value for in_node, offset, value in changes}
    source = PatchedSource(content, patches | {_B + 196: 1, _B + 197: 0})  # past the checksums
    try:
        extents = tree_extents(source, source.read_at(_B, 4096))
    except (DamagedError, DeviceError) as error:
        assert error.message
        return
    real.assert_sound(list(extents), source.size)


def test_chunk_trees_that_are_none(btrfs: tuple[bytes, int]) -> None:
    content, node = btrfs
    with pytest.raises(DamagedError, match="is damaged"):
        tree_extents(PatchedSource(content, {node + 2000: content[node + 2000] ^ 1}), content[_B : _B + 4096])
    for offset, form, value, words in (
        (88, "<Q", 1 << 40, "where no system chunk is"),
        (199, "<B", 9, "has 9 levels"),
        (199, "<B", 3, "is damaged"),
        (160, "<I", 5000, "5000 bytes of system chunks"),
        (160, "<I", 20, "is cut short"),
        (811 + 17 + 44, "<H", 9, "has 9 stripes"),
        (811 + 17 + 48 + 8, "<Q", 1 << 40, "outside"),
    ):
        superblock = bytearray(content[_B : _B + 4096])
        struct.pack_into(form, superblock, offset, value)
        with pytest.raises((DamagedError, DeviceError), match=words):
            tree_extents(BytesSource(content), bytes(superblock))
