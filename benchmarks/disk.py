"""A disk with real files: this machine's own, copied until there are enough."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE = 8 << 30
WANTED = int(4.5 * (1 << 30))
START = 1 << 20
#: Folders of real files of all kinds: programs, libraries, text, archives.
SOURCES = ("/usr", "/opt", "/root", "/var/lib", "/home")


def make_disk(path: Path) -> tuple[Path, int]:
    """A GPT disk with one ext4; returns it and the bytes of files in it.

    Raises:
        SystemExit: this machine does not have enough files of its own.
    """
    with path.open("wb") as stream:
        stream.truncate(SIZE)
    subprocess.run(["sfdisk", "-q", str(path)], input="label: gpt\nstart=2048\n", text=True, check=True)
    with partition(path) as node:
        subprocess.run(["mke2fs", "-q", "-t", "ext4", node], check=True)
        with mounted(node, path.with_suffix(".mnt")) as place:
            copied = _fill(place)
    os.sync()
    return path, copied


def change_files(disk: Path, count: int) -> None:
    """Overwrite 4 KiB in the middle of ``count`` files that are spread evenly over all of them.

    Each lies in a chunk of its own, or nearly so; the filesystem's own changes come on top.
    """
    with partition(disk) as node, mounted(node, disk.with_suffix(".mnt")) as place:
        files = [path for path in sorted(place.rglob("*")) if path.is_file() and path.stat().st_size >= 1 << 16]
        for file in files[:: max(1, len(files) // count)][:count]:
            with file.open("r+b") as stream:
                stream.seek(file.stat().st_size // 2)
                stream.write(os.urandom(4096))
    os.sync()


def turn_chunks(target: Path, *, every: int) -> int:
    """Turn bits of 4 KiB in one of ``every`` chunks of a restored, sparse target; gives the bytes of those chunks."""
    chunk, found = 1 << 20, 0
    descriptor = os.open(target, os.O_RDWR)
    try:
        for number, start in enumerate(_data_chunks(descriptor, chunk)):
            if number % every == every // 2:
                old = os.pread(descriptor, 4096, start + chunk // 2)
                os.pwrite(descriptor, bytes(255 - byte for byte in old), start + chunk // 2)
                found += chunk
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return found


def _data_chunks(descriptor: int, chunk: int) -> Iterator[int]:
    """Where chunks begin that are no holes; the head of the disk and what is not whole is left out."""
    at, size = START, os.fstat(descriptor).st_size
    while at + chunk < size - chunk:
        try:
            data = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            return
        start = (data - START + chunk - 1) // chunk * chunk + START
        end = os.lseek(descriptor, data, os.SEEK_HOLE)
        while start + chunk <= min(end, size - chunk):
            yield start
            start += chunk
        at = max(end, at + chunk)


@contextlib.contextmanager
def mounted(node: str, place: Path) -> Iterator[Path]:
    """The filesystem of a device, mounted for the length of the block."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", node, str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _fill(place: Path) -> int:
    """Hard-linked and odd files are left out: only content counts."""
    copied = 0
    for source in SOURCES:
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_symlink() or not file.is_file():
                    continue
                size = file.stat().st_size
                if size > 200 << 20:
                    continue
                target = place / folder.lstrip("/") / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):
                    target.write_bytes(file.read_bytes())
                    copied += size
                if copied >= WANTED:
                    return copied
    raise SystemExit(f"Only {copied >> 20} MiB of files found on this machine, {WANTED >> 20} MiB are needed.")


@contextlib.contextmanager
def partition(disk: Path) -> Iterator[str]:
    """A loop device over the one partition of the disk."""
    size = disk.stat().st_size - START - (1 << 20)
    words = ["losetup", "--find", "--show", f"--offset={START}", f"--sizelimit={size}", str(disk)]
    node = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield node
    finally:
        subprocess.run(["losetup", "--detach", node], check=True)
