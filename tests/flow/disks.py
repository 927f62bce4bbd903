"""Small real disks, made by real tools without root: sfdisk, mke2fs, mkfs.vfat, mtools, mkswap."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 1 << 20
TOOLS = ("sfdisk", "mke2fs", "mkfs.vfat", "mcopy", "mkswap", "debugfs", "e2fsck", "fsck.vfat")


def need(*tools: str) -> None:
    """Skip with the reason when a tool is missing; in CI that is a failure."""
    missing = [tool for tool in tools if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        reason = f"needs {', '.join(missing)}: run make setup"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def run(*words: str | Path, stdin: str | None = None, success: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode in success, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def make_tree(folder: Path, *, files: int = 60, seed: int = 1) -> Path:
    """Files of many sizes: text, noise, sparse, links, odd names."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    (folder / "etc").mkdir()
    for number in range(files):
        size = rng.choice([0, 1, 511, 4096, 70_000, 300_000])
        content = rng.randbytes(size) if number % 2 else (f"line {number}\n" * (size // 8 + 1)).encode()[:size]
        (folder / "etc" / f"file{number}").write_bytes(content)
    with (folder / "sparse").open("wb") as stream:
        stream.seek(3 * MIB)
        stream.write(b"end")
    (folder / "größe 漢字").write_text("unicode")
    (folder / "link").symlink_to("etc/file1")
    return folder


def put_ext(disk: Path, start: int, size: int, tree: Path, kind: str = "ext4") -> None:
    """An ext filesystem with the files of ``tree``; start and size in bytes."""
    run("mke2fs", "-q", "-t", kind, "-L", "root", "-d", tree, "-E", f"offset={start}", disk, f"{size // 1024}K")


def put_fat(disk: Path, start: int, size: int, tree: Path) -> None:
    run("mkfs.vfat", "-n", "ESP", f"--offset={start // 512}", disk, str(size // 1024))
    run("mcopy", "-s", "-i", f"{disk}@@{start}", *sorted(tree.iterdir()), "::")


def put_swap(disk: Path, start: int, size: int) -> None:
    part = disk.with_suffix(".swap")
    with part.open("wb") as stream:
        stream.truncate(size)
    run("mkswap", "-q", "-L", "swap", part)
    with disk.open("r+b") as stream:
        stream.seek(start)
        stream.write(part.read_bytes()[: 64 * 1024])
    part.unlink()


def gpt_disk(path: Path, tree: Path) -> Path:
    """ESP, ext4 root, swap; a name, an attribute and GUIDs that are easy to recognise."""
    _blank(path, 200)
    run(
        "sfdisk", "-q", path,
        stdin="label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\nfirst-lba: 34\n"
        'start=2048,size=65536,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B,name="EFI System"\n'
        "start=67584,size=262144,type=0FC63DAF-8483-4772-8E79-3D69D8477DE4,name=root,"
        'attrs="LegacyBIOSBootable GUID:60",uuid=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\n'
        "start=329728,size=65536,type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F\n",
    )  # fmt: skip
    put_fat(path, 2048 * 512, 65536 * 512, tree / "etc")
    put_ext(path, 67584 * 512, 262144 * 512, tree)
    put_swap(path, 329728 * 512, 65536 * 512)
    return path


def dos_disk(path: Path, tree: Path) -> Path:
    """Boot code, an active ext3, an extended partition with ext4 and swap."""
    _blank(path, 200)
    run(
        "sfdisk", "-q", path,
        stdin="label: dos\nlabel-id: 0xdeadbeef\nstart=2048,size=131072,type=83,bootable\n"
        "start=133120,size=270000,type=f\nstart=135168,size=131072,type=83\nstart=268288,size=65536,type=82\n",
    )  # fmt: skip
    with path.open("r+b") as stream:
        stream.write(random.Random(7).randbytes(440))
        stream.seek(512)
        stream.write(random.Random(8).randbytes(100 * 512))
    put_ext(path, 2048 * 512, 131072 * 512, tree, "ext3")
    put_ext(path, 135168 * 512, 131072 * 512, tree)
    put_swap(path, 268288 * 512, 65536 * 512)
    return path


def cloud_disk(path: Path, tree: Path) -> Path:
    """Partition numbers 1, 14, 15 in another order than their places, as cloud images have them."""
    _blank(path, 200)
    run(
        "sfdisk", "-q", path,
        stdin="label: gpt\nfirst-lba: 34\n"
        f"{path}1 : start=131072,size=262144,type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n"
        f"{path}14 : start=2048,size=2048,type=21686148-6449-6E6F-744E-656564454649\n"
        f"{path}15 : start=4096,size=126976,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n",
    )  # fmt: skip
    put_ext(path, 131072 * 512, 262144 * 512, tree)
    put_fat(path, 4096 * 512, 126976 * 512, tree / "etc")
    return path


def bare_disk(path: Path, tree: Path) -> Path:
    """No table: one ext4 over the whole disk."""
    _blank(path, 64)
    put_ext(path, 0, 64 * MIB, tree)
    return path


DISKS = {"gpt": gpt_disk, "dos": dos_disk, "cloud": cloud_disk, "bare": bare_disk}


def blank(path: Path, size: int) -> Path:
    """A target full of old noise at both ends and in the middle, so that nothing passes by being zero."""
    _blank(path, size // MIB)
    noise = random.Random(9).randbytes(MIB)
    with path.open("r+b") as stream:
        for at in (0, size // 2, size - MIB, 40 * MIB):
            stream.seek(at)
            stream.write(noise)
    return path


def _blank(path: Path, mebibytes: int) -> None:
    with path.open("wb") as stream:
        stream.truncate(mebibytes * MIB)


def table_of(path: Path) -> str:
    """sfdisk's own words about a table, without what names the file or follows from the disk's size."""
    dump = run("sfdisk", "--dump", path)
    lines = [line.replace(str(path), "") for line in dump.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("device:", "last-lba:", "first-lba:")))


def partition_file(disk: Path, start: int, size: int) -> Path:
    """A partition copied out to a file of its own; bytes."""
    out = disk.with_suffix(f".{start}")
    with disk.open("rb") as source, out.open("wb") as copy:
        source.seek(start)
        for piece in _pieces(source, size):
            copy.write(piece)
    return out


def _pieces(stream, size: int) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    while size > 0:
        piece = stream.read(min(size, MIB))
        assert piece
        size -= len(piece)
        yield piece


def fat_files(part: Path) -> dict[str, bytes]:
    """Every file in the top folder of a checked FAT filesystem, by what mtools reads."""
    run("fsck.vfat", "-n", part)
    out = part.with_suffix(part.suffix + ".files")
    out.mkdir()
    run("mcopy", "-s", "-i", part, "::*", out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def ext_files(part: Path) -> dict[str, bytes | str]:
    """Every file of a checked ext filesystem: its content, or where a link points."""
    run("e2fsck", "-f", "-n", part)
    out = part.with_suffix(part.suffix + ".tree")
    out.mkdir()
    run("debugfs", "-R", f"rdump / {out}", part)
    found: dict[str, bytes | str] = {}
    for path in sorted(out.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(out))] = str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(out))] = path.read_bytes()
    return found
