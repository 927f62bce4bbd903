"""Files read out of a volume against what the kernel (or ntfs-3g, exfat-fuse) shows of the same volume."""

import contextlib
import hashlib
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner
from images.browse.entry import Kind
from images.browse.tree import Found, Tree
from rescue.jobs.browse_extract import extract_to_folder, extract_to_tar
from rescue.jobs.capture import capture_disks
from rescue.jobs.export import ImageFormat, export_disk
from tests.flow.disks import need
from tests.unit.images.browse.shared import bytes_of, opened, walk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")

MIB = 1 << 20
KINDS = {
    0o100000: Kind.FILE,
    0o040000: Kind.FOLDER,
    0o120000: Kind.LINK,
    0o020000: Kind.CHARACTER,
    0o060000: Kind.BLOCK,
    0o010000: Kind.FIFO,
    0o140000: Kind.SOCKET,
}
#: Name of the case, size in MiB, how the filesystem is made, mount options.
LINUX = [
    ("ext4", 96, ["mkfs.ext4", "-q", "-b", "4096", "-I", "256"], ""),
    ("ext4-1k", 64, ["mkfs.ext4", "-q", "-b", "1024", "-O", "^64bit,^metadata_csum"], ""),
    ("ext4-inline", 64, ["mkfs.ext4", "-q", "-b", "4096", "-I", "512", "-O", "inline_data,ea_inode"], ""),
    ("ext4-meta_bg", 256, ["mkfs.ext4", "-q", "-b", "1024", "-O", "meta_bg,^resize_inode"], ""),
    ("ext4-bigalloc", 128, ["mkfs.ext4", "-q", "-b", "4096", "-O", "bigalloc", "-C", "16384"], ""),
    ("ext4-large-dir", 64, ["mkfs.ext4", "-q", "-b", "1024", "-O", "large_dir"], ""),
    ("ext3", 64, ["mkfs.ext3", "-q", "-b", "1024"], ""),
    ("ext2-128", 64, ["mkfs.ext2", "-q", "-b", "1024", "-I", "128"], ""),
    ("xfs", 320, ["mkfs.xfs", "-q", "-f"], ""),
    ("xfs-1k-n8k", 320, ["mkfs.xfs", "-q", "-f", "-b", "size=1024", "-n", "size=8192", "-i", "size=512"], ""),
    ("btrfs-zstd", 256, ["mkfs.btrfs", "-q", "-f"], "compress-force=zstd"),
    ("btrfs-lzo", 256, ["mkfs.btrfs", "-q", "-f", "-M"], "compress-force=lzo"),
    ("btrfs-zlib", 256, ["mkfs.btrfs", "-q", "-f", "-m", "dup"], "compress-force=zlib"),
    ("btrfs", 256, ["mkfs.btrfs", "-q", "-f", "--csum", "xxhash"], ""),
]


def run(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def mounted(image: Path, place: Path, options: str, kind: str = "") -> Iterator[Path]:
    """The volume, for the length of the block."""
    place.mkdir(exist_ok=True)
    words = ["mount", *(["-t", kind] if kind else []), "-o", ",".join(filter(None, ("loop", options))), image, place]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60)
    if done.returncode:
        reason = f"this kernel does not mount it: {done.stderr.strip()}"
        pytest.fail(reason)
    try:
        yield place
    finally:
        run("umount", place)


def fill(top: Path, *, names: bytes = b"caf\xe9 not utf-8") -> None:
    """Everything a Linux filesystem can hold that a reader may get wrong."""
    rng = random.Random(5)
    for size in (0, 1, 50, 59, 60, 100, 150, 200, 4095, 4096, 4097, 70_000, 3 * MIB + 17):
        (top / f"random {size}").write_bytes(rng.randbytes(size))
        (top / f"text {size}").write_bytes((b"all work and no play " * (size // 21 + 1))[:size])
    with (top / "hole in front").open("wb") as file:
        file.seek(2 * MIB + 5)
        file.write(b"end")
    with (top / "hole at the end").open("wb") as file:
        file.write(b"start" * 1000)
        file.truncate(5 * MIB + 1)
    with (top / "hole in the middle").open("wb") as file:
        for at in range(0, 4 * MIB, 300_000):
            file.seek(at)
            file.write(rng.randbytes(9000))
    with (top / "only a hole").open("wb") as file:
        file.truncate(MIB)
    with (top / "hole then reserved then data").open("wb") as file:
        file.truncate(6 * MIB)
        with contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 2 * MIB, MIB)
        file.seek(5 * MIB)
        file.write(rng.randbytes(5000))
    fragmented(top, rng)
    (top / "deep" / "deeper" / "deepest").mkdir(parents=True)
    many = top / "many"
    many.mkdir()
    for number in range(3000):
        (many / f"a rather long name so that the folder needs many blocks, number {number}").touch()
    for number in range(0, 3000, 3):
        (many / f"a rather long name so that the folder needs many blocks, number {number}").unlink()
    os.mkdir(os.fsencode(top) + b"/" + names)
    (top / "größe 漢字").write_text("unicode")
    (top / "short link").symlink_to("random 1")
    (top / "long link").symlink_to("x/" * 50 + "y" * 90)
    (top / "longest link").symlink_to("z" * 1000)
    os.link(top / "random 100", top / "deep" / "second name")
    os.mkfifo(top / "fifo")
    os.mknod(top / "character", 0o020640, os.makedev(5, 1))
    os.mknod(top / "block", 0o060640, os.makedev(259, 70000))
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(top):
        listener.bind("socket")
    os.chown(top / "random 1", 70001, 80001)
    os.chmod(top / "random 50", 0o6751)
    os.utime(top / "random 59", ns=(1_234_567_890_123_456_789, 1_500_000_000_987_654_321))
    os.utime(top / "random 60", ns=(-5_000_000_000, -1_000_000_000))
    dress(top)


def fragmented(top: Path, rng: random.Random) -> None:
    """Two files that grow in turns: many extents in both."""
    with (top / "turn a").open("wb", buffering=0) as a, (top / "turn b").open("wb", buffering=0) as b:
        for _ in range(400):
            for file in (a, b):
                file.write(rng.randbytes(5000))
                os.fdatasync(file.fileno()) if rng.random() < 0.2 else None
    with (top / "islands").open("wb", buffering=0) as file:
        for number in range(600):
            file.seek(number * 9000 // 4096 * 4096)
            file.write(rng.randbytes(4096))
            if number % 50 == 0:
                os.fsync(file.fileno())


def dress(top: Path) -> None:
    """Extended attributes, small, many and large; access lists."""
    os.setxattr(top / "random 0", "user.small", b"value")
    os.setxattr(top / "random 0", "user.binary", bytes(range(256)))
    os.setxattr(top / "text 100", "user.empty", b"")
    os.setxattr(top / "text 100", "trusted.thing", b"\x00\xff")
    os.setxattr(top / "deep", "security.selinux", b"system_u:object_r:etc_t:s0\x00")
    with contextlib.suppress(OSError):
        os.setxattr(top / "text 200", "user.large", b"L" * 3000)
    with contextlib.suppress(OSError):
        os.setxattr(top / "text 200", "user.larger", b"M" * 20000)
    with contextlib.suppress(OSError):
        for number in range(60):
            os.setxattr(top / "text 4096", f"user.number{number}", b"v" * number)
    with contextlib.suppress(OSError):
        subprocess.run(["setfacl", "-m", "u:1234:rw,g:55:r", str(top / "text 60")], check=True, capture_output=True)
        subprocess.run(["setfacl", "-d", "-m", "u:1234:rx", str(top / "deep")], check=True, capture_output=True)


def facts_of(path: bytes, *, times: bool = True) -> dict[str, object]:
    """What the kernel says of a path."""
    status = os.lstat(path)
    kind = KINDS[status.st_mode & 0o170000]
    found: dict[str, object] = {
        "kind": kind,
        "mode": status.st_mode & 0o7777,
        "owner": (status.st_uid, status.st_gid),
        "target": os.readlink(path) if kind is Kind.LINK else b"",
    }
    if times:
        found["times"] = (status.st_mtime_ns, status.st_ctime_ns)
        found["links"] = status.st_nlink if kind is not Kind.FOLDER else 0
    if kind is Kind.FILE:
        with open(path, "rb") as file:
            found["content"] = hashlib.file_digest(file, "sha256").hexdigest()
        found["size"] = status.st_size
    if kind in (Kind.CHARACTER, Kind.BLOCK):
        found["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    # XFS shows an access list a second time, in its own form.
    names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.SGI_ACL")]
    found["attributes"] = {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}
    return found


def kernel_view(top: Path) -> dict[bytes, dict[str, object]]:
    base = os.fsencode(top)
    found = {}
    for folder, folders, files in os.walk(base):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            found[path[len(base) :]] = facts_of(path)
    return found


def our_view(tree: Tree) -> dict[bytes, dict[str, object]]:
    return {os.fsencode(found.path): our_facts(tree, found) for found in walk(tree)}


def our_facts(tree: Tree, found: Found) -> dict[str, object]:
    entry = found.entry
    seen: dict[str, object] = {
        "kind": entry.kind,
        "mode": entry.mode,
        "owner": (entry.uid, entry.gid),
        "target": os.fsencode(entry.target),
        "times": (entry.mtime, entry.ctime),
        "links": entry.links if entry.kind is not Kind.FOLDER else 0,
    }
    if entry.kind is Kind.FILE:
        seen["content"] = hashlib.sha256(bytes_of(tree, found)).hexdigest()
        seen["size"] = entry.size
    if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
        seen["device"] = (entry.major, entry.minor)
    seen["attributes"] = {attribute.name: attribute.value for attribute in tree.attributes(found)}
    return seen


def assert_same(ours: dict[bytes, dict[str, object]], theirs: dict[bytes, dict[str, object]]) -> None:
    assert sorted(ours) == sorted(theirs)
    for path, facts in theirs.items():
        mine = ours[path]
        if path == b"/snap/inner":
            # A placeholder has no times: the kernel shows those of the mount.
            facts, mine = facts | {"times": 0}, mine | {"times": 0}
        assert mine == facts, path


@pytest.mark.parametrize(("size", "make", "options"), [case[1:] for case in LINUX], ids=[case[0] for case in LINUX])
def test_every_file_is_as_the_kernel_shows_it(size: int, make: list[str], options: str, tmp_path: Path) -> None:
    need(make[0])
    image = tmp_path / "volume"
    with image.open("wb") as file:
        file.truncate(size * MIB)
    run(*make, image)
    with mounted(image, tmp_path / "mnt", options) as top:
        fill(top)
        if make[0] == "mkfs.btrfs":
            subvolumes(top)
    # The top of a btrfs is asked for by number: the case has made another subvolume the default.
    with mounted(image, tmp_path / "mnt", "ro,subvolid=5" if make[0] == "mkfs.btrfs" else "ro") as top:
        theirs = kernel_view(top)
    with opened(image) as tree:
        assert_same(our_view(tree), theirs)
        assert tree.default.path == ("/sub" if make[0] == "mkfs.btrfs" else "/")


def subvolumes(top: Path) -> None:
    """A subvolume, one inside it, a snapshot of the outer (with a placeholder for the inner), and clones."""
    run("btrfs", "subvolume", "create", top / "sub")
    (top / "sub" / "file").write_bytes(b"first" * 5000)
    run("btrfs", "subvolume", "create", top / "sub" / "inner")
    (top / "sub" / "inner" / "file").write_text("inner")
    run("btrfs", "subvolume", "snapshot", top / "sub", top / "snap")
    (top / "sub" / "file").write_bytes(b"second" * 5000)
    run("cp", "--reflink=always", top / "text 70000", top / "clone")
    run("btrfs", "subvolume", "set-default", top / "sub")


@contextlib.contextmanager
def fused(program: str, image: Path, place: Path, options: str) -> Iterator[Path]:
    """A volume behind FUSE, for the length of the block."""
    place.mkdir(exist_ok=True)
    run(program, "-o", options, image, place)
    try:
        yield place
    finally:
        run("umount", place)


def plain_view(top: Path) -> dict[str, object]:
    """Kind, content, target and time of everything below a folder."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        kind = KINDS[status.st_mode & 0o170000]
        what = hashlib.sha256(path.read_bytes()).hexdigest() if kind is Kind.FILE else ""
        found["/" + str(path.relative_to(top))] = (kind, what, status.st_mtime_ns // 2_000_000_000)
    return found


def our_plain_view(tree: Tree) -> dict[str, object]:
    seen: dict[str, object] = {}
    for found in walk(tree):
        what = hashlib.sha256(bytes_of(tree, found)).hexdigest() if found.entry.kind is Kind.FILE else ""
        seen[found.path] = (found.entry.kind, what, found.entry.mtime // 2_000_000_000)
    return seen


def fill_plain(top: Path) -> None:
    """What a filesystem of Windows can hold."""
    rng = random.Random(6)
    for size in (0, 1, 500, 700, 4096, 70_000, 3 * MIB + 17):
        (top / f"random {size}").write_bytes(rng.randbytes(size))
        (top / f"text {size}").write_bytes((b"all work and no play " * (size // 21 + 1))[:size])
    (top / "mixed").write_bytes(b"".join(rng.randbytes(50_000) + b"x" * 150_000 for _ in range(12)) + b"end")
    fragmented(top, rng)
    (top / "deep" / "deeper").mkdir(parents=True)
    (top / "deep" / "größe 漢字.txt").write_text("unicode")
    many = top / "many"
    many.mkdir()
    for number in range(1500):
        (many / f"a rather long name, number {number}").write_bytes(b"x" * (number % 3))
    for number in range(0, 1500, 3):
        (many / f"a rather long name, number {number}").unlink()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (["mkntfs", "-q", "-F", "-f", "-c", "4096"], ""),
        (["mkntfs", "-q", "-F", "-f", "-c", "4096"], "compression"),
        (["mkntfs", "-q", "-F", "-f", "-c", "512"], ""),
        (["mkntfs", "-q", "-F", "-f", "-c", "65536"], ""),
    ],
    ids=["4k", "compressed", "512", "64k"],
)
def test_ntfs_is_as_ntfs_3g_shows_it(make: list[str], options: str, tmp_path: Path) -> None:
    need("mkntfs", "ntfs-3g")
    image = tmp_path / "volume"
    with image.open("wb") as file:
        file.truncate(128 * MIB)
    run(*make, image)
    streams = {"deep/owner:stream": b"short", "deep/owner:second stream": random.Random(7).randbytes(200_000)}
    with fused("ntfs-3g", image, tmp_path / "mnt", f"streams_interface=windows,{options}".rstrip(",")) as top:
        if options:
            # The attribute of a folder is that of the files made in it.
            os.setxattr(top, "system.ntfs_attrib_be", bytes.fromhex("00000800"))
        fill_plain(top)
        with (top / "hole").open("wb") as file:
            file.truncate(2 * MIB)
            file.seek(5 * MIB)
            file.write(b"end")
        (top / "deep" / "owner").write_bytes(b"main")
        for name, content in streams.items():
            (top / name).write_bytes(content)
        os.link(top / "random 700", top / "deep" / "second name")
    with fused("ntfs-3g", image, tmp_path / "mnt", "ro,streams_interface=none") as top:
        theirs = plain_view(top)
    with opened(image) as tree:
        assert our_plain_view(tree) == theirs
        owner = next(found for found in walk(tree) if found.path == "/deep/owner")
        assert {f"deep/owner:{found.stream}": bytes_of(tree, found) for found in tree.streams(owner)} == streams
        names = {found.entry.node for found in walk(tree) if found.path in ("/random 700", "/deep/second name")}
        assert len(names) == 1
        if options:
            mixed = next(found for found in walk(tree) if found.path == "/mixed")
            assert tree.content(mixed).segments is None, "it was not compressed: the case proves nothing"


@pytest.mark.parametrize("cluster", ["512", "32K"])
def test_exfat_is_as_exfat_fuse_shows_it(cluster: str, tmp_path: Path) -> None:
    need("mkfs.exfat", "mount.exfat-fuse")
    image = tmp_path / "volume"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    run("mkfs.exfat", "-c", cluster, image)
    device = run("losetup", "--find", "--show", image).strip()
    try:
        with fused("mount.exfat-fuse", Path(device), tmp_path / "mnt", "rw") as top:
            fill_plain(top)
        with fused("mount.exfat-fuse", Path(device), tmp_path / "mnt", "ro") as top:
            theirs = plain_view(top)
    finally:
        run("losetup", "--detach", device)
    with opened(image) as tree:
        assert our_plain_view(tree) == theirs


def test_a_disk_of_4096_byte_sectors_is_exported_whole(tmp_path: Path) -> None:
    need("sfdisk", "losetup", "mkfs.ext4", "qemu-img")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(96 * MIB)
    device = run("losetup", "--find", "--show", "--partscan", "--sector-size", "4096", image).strip()
    try:
        table = tmp_path / "table"
        table.write_text("label: gpt\nstart=256,size=2048\nstart=2304,size=16384,name=root\n")
        with table.open() as words:
            subprocess.run(["sfdisk", "-q", "--no-reread", device], stdin=words, check=True, capture_output=True)
    finally:
        run("losetup", "--detach", device)
    run("mkfs.ext4", "-q", "-b", "4096", "-E", f"offset={2304 * 4096}", image, "64M")
    result = capture_disks([image], str(tmp_path / "repo"), name="4k", runner=SystemRunner(), sink=ignore)
    raw, qcow2 = tmp_path / "out.raw", tmp_path / "out.qcow2"
    for path, image_format in ((raw, ImageFormat.RAW), (qcow2, ImageFormat.QCOW2)):
        export_disk(str(tmp_path / "repo"), result.id, path, image_format=image_format, sink=ignore)
    run("cmp", image, raw)
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, qcow2)
    device = run("losetup", "--find", "--show", "--sector-size", "4096", raw).strip()
    try:
        assert "No errors detected" in run("sfdisk", "--verify", device)
    finally:
        run("losetup", "--detach", device)


def without_fleeting(seen: dict[bytes, dict[str, object]]) -> dict[bytes, dict[str, object]]:
    """Without sockets, which are left out, and change times, which nobody can set."""
    kept = {path: dict(facts) for path, facts in seen.items() if facts["kind"] is not Kind.SOCKET}
    for path, facts in kept.items():
        times = facts["times"]
        assert isinstance(times, tuple)
        facts["times"] = times[0]
        if path == b"/lost+found" or facts["kind"] is Kind.FOLDER:
            facts["links"] = 0
    return kept


@pytest.mark.parametrize("way", ["folder", "tar"])
def test_as_root_everything_comes_back(way: str, tmp_path: Path) -> None:
    need("mkfs.ext4", "tar", "setfacl")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(96 * MIB)
    run("mkfs.ext4", "-q", "-b", "4096", image)
    with mounted(image, tmp_path / "mnt", "") as top:
        fill(top)
        theirs = without_fleeting(kernel_view(top))
    capture_disks([image], str(tmp_path / "repo"), name="x", runner=SystemRunner(), sink=ignore)
    # The target is a filesystem that takes everything the source had.
    target = tmp_path / "target.img"
    with target.open("wb") as file:
        file.truncate(128 * MIB)
    run("mkfs.ext4", "-q", "-b", "4096", target)
    with mounted(target, tmp_path / "mnt2", "") as top:
        out = top / "out"
        if way == "folder":
            result = extract_to_folder(str(tmp_path / "repo"), "x:disk0-whole", out, overwrite=False, sink=ignore)
        else:
            tar = tmp_path / "out.tar"
            result = extract_to_tar(str(tmp_path / "repo"), "x:disk0-whole", tar, overwrite=False, sink=ignore)
            out.mkdir()
            run("tar", "--xattrs", "--xattrs-include=*", "-xpf", tar, "-C", out)
        assert (result.warnings, result.damaged) == ((), ())
        ours = without_fleeting(kernel_view(out))
    assert_same(ours, theirs)
