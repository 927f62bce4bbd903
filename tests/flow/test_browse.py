"""ls, extract and diff over a real repository, with tar, diff and the kernel as witnesses."""

import hashlib
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import DamagedError
from core.events import ignore
from core.process import SystemRunner
from images.browse.entry import Kind
from images.browse.tree import Found
from images.capture import CaptureResult
from images.store.connect import open_repository
from images.store.repository import pack_name
from rescue.jobs.browse import OpenPoint, open_point
from rescue.jobs.browse_extract import extract_to_folder, extract_to_stream, extract_to_tar
from rescue.jobs.capture import capture_disks
from rescue.jobs.compare import compare_points
from tests.flow.disks import MIB, gpt_disk, make_tree, run
from tests.flow.servers import serving
from tests.flow.test_cli import liferaft

EXT_OFFSET = 67584 * 512
#: A file of several blocks that changes without a trace in its inode.
SILENT = "silent"
FSTAB = """# <file system> <mount point> <type> <options> <dump> <pass>
UUID=00000000-1111-2222-3333-444444444444 / ext4 defaults 0 1
PARTLABEL=EFI\\040System /boot/efi vfat umask=0077 0 1
/dev/sdb1 /old ext4 defaults 0 0
"""


@pytest.fixture(scope="session")
def full_tree(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    """The tree of the other tests, with a fstab, modes, times, hard links, attributes, and a file of many chunks."""
    folder = make_tree(tmp_path_factory.mktemp("full") / "tree", seed=3)
    (folder / "etc" / "fstab").write_text(FSTAB)
    (folder / "etc" / SILENT).write_bytes(bytes(range(256)) * 40)
    (folder / "boot" / "efi").mkdir(parents=True)
    (folder / "big").write_bytes(b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(5 * MIB // 32)))
    os.link(folder / "etc" / "file1", folder / "second name")
    os.chmod(folder / "etc" / "file2", 0o640)
    os.utime(folder / "etc" / "file2", ns=(1_500_000_000_111_111_111, 1_400_000_000_222_222_222))
    (folder / "absolute").symlink_to("/etc/fstab")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, full_tree: Path) -> Path:
    """A folder with disk.img and the repository repo, which holds it as monday."""
    folder = tmp_path_factory.mktemp("browse")
    gpt_disk(folder / "disk.img", full_tree)
    take(folder / "disk.img", folder / "repo", "monday")
    return folder


def take(disk: Path, repo: Path, name: str) -> CaptureResult:
    return capture_disks([disk], str(repo), name=name, runner=SystemRunner(), sink=ignore)


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_same_tree(ours: Path, theirs: Path) -> None:
    """Names, kinds, modes, times, targets, content and hard links."""
    assert names_in(ours) - {"lost+found"} == names_in(theirs)
    links: dict[int, set[str]] = {}
    for name in sorted(names_in(theirs)):
        one, other = (ours / name).lstat(), (theirs / name).lstat()
        assert stat.S_IFMT(one.st_mode) == stat.S_IFMT(other.st_mode), name
        if stat.S_ISLNK(other.st_mode):
            assert (ours / name).readlink() == (theirs / name).readlink()
            continue
        assert stat.S_IMODE(one.st_mode) == stat.S_IMODE(other.st_mode), name
        if stat.S_ISREG(other.st_mode):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
            # mke2fs -d keeps whole seconds.
            assert one.st_mtime_ns // 10**9 == other.st_mtime_ns // 10**9, name
            links.setdefault(one.st_ino, set()).add(name)
    assert {"etc/file1", "second name"} in links.values()


def test_the_volumes_are_listed_where_they_were_mounted(source: Path) -> None:
    done = liferaft("ls", "monday:", "--repo", "repo", cwd=source)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert " /boot/efi " in lines["disk0-part1"]
    assert re.search(r"ext4 .* / +root$", lines["disk0-part2"])
    assert "swap space" in done.stderr


def test_ls_lists_what_debugfs_lists(source: Path, full_tree: Path) -> None:
    done = liferaft("ls", "monday:/etc", "--repo", "repo", cwd=source)
    text = run("debugfs", "-R", "ls -p /etc", f"{source}/disk.img?offset={EXT_OFFSET}")
    theirs = {line.split("/")[5] for line in text.splitlines() if line.startswith("/")} - {".", ".."}
    assert set(done.stdout.split()) == theirs
    long = liferaft("ls", "-l", "monday:/etc/file2", "--repo", "repo", cwd=source)
    assert re.match(r"-rw-r----- +1 +\d+ +\d+ +\d+ 2014-05-13 16:53:20 ", long.stdout), long.stdout
    listing = json.loads(liferaft("ls", "-R", "monday:/", "--repo", "repo", "--json", cwd=source).stdout)
    paths = {entry["path"].lstrip("/") for entry in listing["entries"]}
    assert paths - {"lost+found"} == names_in(full_tree)


def test_paths_go_through_mounts_and_links(source: Path) -> None:
    efi = liferaft("ls", "monday:/boot/efi", "--repo", "repo", cwd=source)
    exact = liferaft("ls", "monday:disk0-part1", "--repo", "repo", cwd=source)
    assert efi.stdout == exact.stdout
    assert "file1\n" in efi.stdout
    through = liferaft("extract", "monday:/absolute/", "-", "--repo", "repo", cwd=source)
    direct = liferaft("extract", "monday:disk0-part2/etc/fstab", "-", "--repo", "repo", cwd=source)
    assert through.stdout == direct.stdout == FSTAB


#: words, exit code, part of the sentence
BAD = [
    ("ls monday --repo repo", 2, "Write ID:PATH"),
    ("ls nope:/ --repo repo", 2, "No recovery point nope"),
    ("ls monday:/nope --repo repo", 2, "No volume has /nope"),
    ("ls monday:nope/etc --repo repo", 2, "no volume 'nope'"),
    ("ls monday:/etc/file1/x --repo repo", 2, "No volume has"),
    ("ls monday:/loop/ --repo repo", 2, "No volume has"),
    ("ls monday:disk0-part2/loop/ --repo repo", 2, "too many symbolic links"),
    ("ls monday:disk0-part3 --repo repo", 3, "swap space"),
    ("extract monday: out --repo repo", 2, "names a whole recovery point"),
    ("extract monday:/etc - --repo repo", 2, "is a folder, not a file"),
    ("extract monday:/etc/file1 - --repo repo --json", 2, "no place on it"),
    ("extract monday:/etc full --repo repo", 3, "full/etc exists already. Nothing was written"),
    ("extract monday:/ full --repo repo", 3, "exists already. Nothing was written"),
    ("extract monday:/etc there.tar --repo repo", 3, "exists already"),
    ("diff monday nope --repo repo", 2, "No recovery point nope"),
    ("diff monday monday /nope --repo repo", 2, "Neither recovery point has /nope"),
    ("export monday disk.img --repo repo", 3, "exists already. Nothing was written"),
    ("export monday nothere/x.raw --repo repo", 1, "cannot be written"),
    ("export monday x.raw --repo repo --disk 7", 2, "no disk '7'"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), BAD, ids=[words for words, _, _ in BAD])
def test_bad_words(words: str, code: int, sentence: str, source: Path) -> None:
    (source / "full" / "etc").mkdir(parents=True, exist_ok=True)
    (source / "there.tar").touch()
    done = liferaft(*words.split(), cwd=source)
    assert done.returncode == code, done.stdout + done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert list((source / "full").rglob("*")) == [source / "full" / "etc"]


@pytest.mark.parametrize("command", ["ls", "extract", "export", "diff"])
def test_help_teaches(command: str, source: Path) -> None:
    done = liferaft(command, "--help", cwd=source)
    assert done.returncode == 0
    assert f"liferaft {command} latest" in done.stdout or f"liferaft {command} monday latest" in done.stdout


def test_a_tree_comes_back_into_a_folder(source: Path, full_tree: Path, tmp_path: Path) -> None:
    result = extract_to_folder(str(source / "repo"), "monday:/", tmp_path / "out", overwrite=False, sink=ignore)
    assert not result.warnings
    assert not result.damaged
    assert_same_tree(tmp_path / "out", full_tree)
    status = (tmp_path / "out" / "sparse").stat()
    assert status.st_blocks * 512 < status.st_size / 2


def test_a_tree_comes_back_through_gnu_tar(source: Path, full_tree: Path, tmp_path: Path) -> None:
    extract_to_tar(str(source / "repo"), "monday:/", tmp_path / "out.tar", overwrite=False, sink=ignore)
    (tmp_path / "out").mkdir()
    run("tar", "-xpf", tmp_path / "out.tar", "-C", tmp_path / "out", "--xattrs")
    assert_same_tree(tmp_path / "out", full_tree)
    status = (tmp_path / "out" / "sparse").stat()
    assert status.st_blocks * 512 < status.st_size / 2
    listed = run("tar", "--numeric-owner", "-tvf", tmp_path / "out.tar")
    owner = (full_tree / "etc" / "file2").stat()
    assert re.search(rf"^-rw-r----- {owner.st_uid}/{owner.st_gid} .* etc/file2$", listed, re.MULTILINE)


def test_overwriting_replaces_links_and_never_writes_through_them(source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("mine")
    out = tmp_path / "out"
    (out / "etc").mkdir(parents=True)
    (out / "etc" / "file1").symlink_to(outside / "kept")
    extract_to_folder(str(source / "repo"), "monday:/etc", out, overwrite=True, sink=ignore)
    assert (outside / "kept").read_text() == "mine"
    assert not (out / "etc" / "file1").is_symlink()
    shutil.rmtree(out)
    out.mkdir()
    (out / "etc").symlink_to(outside)
    result = extract_to_folder(str(source / "repo"), "monday:/etc", out, overwrite=True, sink=ignore)
    assert any("symbolic links are not followed" in warning for warning in result.warnings)
    assert list(outside.iterdir()) == [outside / "kept"]


def test_a_name_that_leaves_the_folder_is_refused(source: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    run("cp", "--sparse=always", source / "disk.img", disk)
    content = disk.read_bytes()
    # The folder's own bytes say ../xyz where they said file10: no tool makes such a name.
    at = content.index(b"file10\x00\x00", EXT_OFFSET)
    with disk.open("r+b") as file:
        file.seek(at)
        file.write(b"../xyz")
    take(disk, tmp_path / "repo", "hostile")
    result = extract_to_folder(str(tmp_path / "repo"), "hostile:/", tmp_path / "out", overwrite=False, sink=ignore)
    assert any("'../xyz'" in problem for problem in result.damaged)
    assert not list(tmp_path.rglob("xyz*"))
    assert (tmp_path / "out" / "big").exists()


def place_of(point: OpenPoint, path: str) -> tuple[int, Found]:
    """Where the first byte of a file lies in its volume."""
    tree, found = point.find(path)
    segments = tree.content(found).segments
    assert segments
    return segments[0].place, found


def damage(repo: Path, point: OpenPoint, volume: str, chunk: int) -> None:
    """Turn over one bit of the record that holds a chunk."""
    repository = open_repository(str(repo))
    slot = repository.slot(point.manifest.volume(volume), chunk, "test")
    assert slot is not None
    assert slot.id is not None
    place = repository.locate(slot.id)
    assert place is not None
    file = repo / pack_name(place.pack)
    with file.open("r+b") as stream:
        stream.seek(place.offset + 80 + place.payload_length // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))


def test_a_damaged_chunk_costs_the_files_in_it_and_names_them(source: Path, full_tree: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(source / "repo", repo)
    point = open_point(str(repo), "monday")
    volume = f"{source}/disk.img?offset={EXT_OFFSET}"
    size = int(re.findall(r"Block size: +(\d+)", run("debugfs", "-R", "stats -h", volume))[0])
    blocks = [int(word) for word in run("debugfs", "-R", "blocks /big", volume).split()]
    # The blocks of its extent tree are listed too, at the end or out of order; the middle of the file is data.
    chunk = blocks[len(blocks) // 2] * size // MIB
    lost = [number for number, block in enumerate(blocks) if block * size // MIB == chunk]
    start, end = lost[0] * size, (lost[-1] + 1) * size
    assert len(lost) == (end - start) // size > 100
    damage(repo, point, "disk0-part2", chunk)
    done = liferaft("extract", "monday:/", tmp_path / "out", "--repo", repo, "--json", cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    result = json.loads(done.stdout)
    assert any("/big" in problem and f"{start} to {end}" in problem for problem in result["damaged"]), result
    assert not (tmp_path / "out" / "big").exists()
    kept, whole = (tmp_path / "out" / "big.damaged").read_bytes(), (full_tree / "big").read_bytes()
    assert kept == whole[:start] + bytes(end - start) + whole[end:]
    assert (tmp_path / "out" / "etc" / "file2").read_bytes() == (full_tree / "etc" / "file2").read_bytes()
    stream = io.BytesIO()
    with pytest.raises(DamagedError, match=f"{chunk * MIB} to {(chunk + 1) * MIB}"):
        extract_to_stream(str(repo), "monday:/big", stream, sink=ignore)
    assert stream.getvalue() == whole[:start]


@pytest.mark.parametrize(
    ("volume", "path", "sentence"),
    [
        ("disk0-part1", "/boot/efi", "disk0-part1"),
        ("disk0-part1", "/boot/efi/file1", "disk0-part1"),
        ("disk0-part2", "/", "may be one that could not be read"),
        ("disk0-part2", "/etc", "was not found, but a volume could not be read"),
    ],
)
def test_a_damaged_volume_is_not_passed_over(
    volume: str, path: str, sentence: str, source: Path, tmp_path: Path
) -> None:
    """Neither the empty folder it was mounted on nor another volume that has the path may stand for it."""
    repo = tmp_path / "repo"
    shutil.copytree(source / "repo", repo)
    damage(repo, open_point(str(repo), "monday"), volume, 0)
    for words in (["ls"], ["extract", "--tar"]):
        target = [str(tmp_path / "out.tar")] if words[0] == "extract" else []
        done = liferaft(*words, f"monday:{path}", *target, "--repo", repo, cwd=tmp_path)
        assert done.returncode == 5, done.stdout + done.stderr
        assert sentence in done.stderr
    assert not (tmp_path / "out.tar").exists()


def test_what_was_mounted_below_is_said(source: Path, tmp_path: Path) -> None:
    deep = liferaft("ls", "-R", "monday:/", "--repo", "repo", cwd=source)
    out = liferaft("extract", "monday:/boot", tmp_path, "--repo", "repo", cwd=source)
    for done in (deep, out):
        assert done.returncode == 0, done.stderr
        assert "what was mounted on /boot/efi is not part of this" in done.stderr
    exact = liferaft("ls", "-R", "monday:disk0-part2", "--repo", "repo", cwd=source)
    assert "mounted on" not in exact.stderr
    below = liferaft("ls", "-R", "monday:/boot/efi", "--repo", "repo", cwd=source)
    assert "/boot/efi/file1" in below.stdout.splitlines()


@pytest.fixture(scope="session")
def changed(source: Path) -> Path:
    """The same folder with tuesday: a file removed, one added, a mode, and four bytes that no time tells of."""
    disk = source / "tuesday.img"
    run("cp", "--sparse=always", source / "disk.img", disk)
    volume = f"{disk}?offset={EXT_OFFSET}"
    for words in ("rm /etc/file3", "write /etc/hostname etc/added", "sif /etc/file5 mode 0100600"):
        run("debugfs", "-w", "-R", words, volume)
    block = int(run("debugfs", "-R", f"blocks /etc/{SILENT}", volume).split()[0])
    text = run("debugfs", "-R", "stats -h", volume)
    size = int(re.findall(r"Block size: +(\d+)", text)[0])
    with disk.open("r+b") as file:
        file.seek(EXT_OFFSET + block * size + 10)
        file.write(b"XXXX")
    take(disk, source / "repo", "tuesday")
    return source


def test_diff_finds_what_changed_and_nothing_else(changed: Path) -> None:
    result = compare_points(str(changed / "repo"), "monday", "tuesday", sink=ignore)
    assert not result.problems
    found = {item.path: item for volume in result.volumes for item in volume.differences}
    assert set(found) == {"/etc/file3", "/etc/added", "/etc/file5", f"/etc/{SILENT}"}
    assert (found["/etc/file3"].change, found["/etc/added"].change) == ("removed", "added")
    assert (found["/etc/file5"].content, found["/etc/file5"].metadata) == (False, ("mode",))
    assert (found[f"/etc/{SILENT}"].content, found[f"/etc/{SILENT}"].metadata) == (True, ())
    assert found[f"/etc/{SILENT}"].old_size == found[f"/etc/{SILENT}"].new_size
    done = liferaft("diff", "monday", "tuesday", "/etc", "--repo", "repo", cwd=changed)
    assert done.returncode == 0
    assert f"  M /etc/{SILENT}  content (" in done.stdout
    assert "  + /etc/added" in done.stdout


def test_diff_does_not_read_what_both_share(changed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = open_point(str(changed / "repo"), "monday")
    place, _ = place_of(point, "/big")
    tree = point.tree(point.manifest.volume("disk0-part2"))
    read: list[int] = []
    original = type(tree.source).read_at

    def counted(source: object, offset: int, length: int) -> bytes:
        read.append(offset)
        return original(source, offset, length)  # type: ignore[arg-type]

    monkeypatch.setattr(type(tree.source), "read_at", counted)
    compare_points(str(changed / "repo"), "monday", "tuesday", sink=ignore)
    assert read
    assert not [offset for offset in read if place + MIB <= offset < place + 4 * MIB]


def test_a_recovery_point_does_not_differ_from_itself(changed: Path) -> None:
    done = liferaft("diff", "monday", "monday", "--repo", "repo", "--json", cwd=changed)
    assert all(volume["differences"] == [] for volume in json.loads(done.stdout)["volumes"])


def test_one_file_over_http_costs_few_chunks(source: Path, full_tree: Path, tmp_path: Path) -> None:
    with serving(source / "repo") as server:
        point = open_point(server.url, "monday")
        tree, found = point.find("disk0-part2/etc/file1")
        content = b"".join(piece.data or bytes(piece.size) for piece in tree.pieces(found, tree.content(found)))
    assert found.entry.kind is Kind.FILE
    assert content == (full_tree / "etc" / "file1").read_bytes()
    # Superblock and descriptors, inodes, folder, and the file.
    assert point.cache.fetched <= 5


@pytest.fixture
def no_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    yield


def test_without_root_owners_are_left_out_and_said(no_root: None, source: Path, tmp_path: Path) -> None:
    result = extract_to_folder(str(source / "repo"), "monday:/etc", tmp_path / "out", overwrite=False, sink=ignore)
    assert any("owners were not kept" in note for note in result.notes)
    assert not result.warnings
