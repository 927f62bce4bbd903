"""``make bench``: liferaft beside its peers, on the same disk, in the same run, as a table.

A disk of 8 GiB with at least 4 GiB of this machine's own files is captured and restored by liferaft
and by ``partclone | zstd``. Ratios count, not seconds. Needs root (loop devices) and 25 GiB of space.

    python -m benchmarks [FOLDER]     FOLDER for the scratch files, default /var/tmp
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.disk import make_disk, partition
from benchmarks.measure import Measured, measure, settle, warm

LIFERAFT = (sys.executable, "-c", "from rescue.cli.main import main; main()")


def main() -> None:
    """All rows, in one run."""
    if os.geteuid() != 0:
        sys.exit("The benchmarks need root for loop devices.")
    missing = [tool for tool in ("partclone.ext4", "zstd", "sfdisk", "mke2fs") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"The benchmarks need {', '.join(missing)}: run make setup.")
    scratch = Path(sys.argv[1] if len(sys.argv) > 1 else "/var/tmp")
    with tempfile.TemporaryDirectory(prefix="liferaft-bench-", dir=scratch) as folder:
        rows = run(Path(folder))
    print(table(rows))


def run(folder: Path) -> list[tuple[str, ...]]:
    """The measurements, each peer beside liferaft."""
    print("making a disk of 8 GiB with real files …", flush=True)
    disk, files = make_disk(folder / "disk.img")
    print(f"  {files / (1 << 30):.2f} GiB of files", flush=True)
    repo, stream = folder / "repo", folder / "partclone.zst"
    with partition(disk) as node:
        warm(disk)
        peer_capture = measure(f"partclone.ext4 -c -s {node} -L /dev/null | zstd -q -3 -T0 -o {stream}")
        warm(disk)
        reading = measure(f"partclone.ext4 -c -s {node} -L /dev/null -o {folder / 'raw'}")
        warm(disk)
    plain = measure(f"zstd -q -3 -T0 -c {folder / 'raw'} > /dev/null")
    (folder / "raw").unlink()
    our_capture = measure([*LIFERAFT, "capture", str(disk), "--repo", str(repo), "--progress", "none"])
    again = measure([*LIFERAFT, "capture", str(disk), "--repo", str(repo), "--progress", "none"])
    peer_restore, our_restore, unverified = _restores(folder, disk, repo, stream)
    stored = sum(path.stat().st_size for path in repo.rglob("*") if path.is_file())
    return [
        ("capture", "partclone.ext4 -c | zstd -3 -T0", *_row(our_capture, peer_capture), "1.5"),
        ("capture", "zstd -3 -T0 alone, same bytes", *_row(our_capture, plain), "-"),
        ("capture", "partclone.ext4 -c alone", *_row(our_capture, reading), "-"),
        ("capture, nothing changed", "our first capture", *_row(again, our_capture), "-"),
        ("restore, verified", "zstd -dc | partclone.ext4 -r", *_row(our_restore, peer_restore), "3.0"),
        ("restore, not verified", "zstd -dc | partclone.ext4 -r", *_row(unverified, peer_restore), "-"),
        _sizes(stored, stream.stat().st_size),
    ]


def _restores(folder: Path, disk: Path, repo: Path, stream: Path) -> tuple[Measured, Measured, Measured]:
    """Both restore onto a fresh file of the same filesystem; partclone through a loop device, as it needs."""
    target = folder / "target.img"
    size = disk.stat().st_size
    _fresh(target, size)
    subprocess.run(["sfdisk", "-q", str(target)], input="label: gpt\nstart=2048\n", text=True, check=True)
    with partition(target) as node:
        warm(stream)
        peer = measure(f"zstd -q -dc {stream} | partclone.ext4 -r -o {node} -L /dev/null && sync {target}")
    results = []
    for option in ([], ["--no-verify"]):
        _fresh(target, size)
        for pack in repo.rglob("*.pack"):
            warm(pack)
        words = ["restore", "latest", "--repo", str(repo), "--target", str(target), "--yes", "--progress", "none"]
        results.append(measure([*LIFERAFT, *words, *option]))
    return peer, results[0], results[1]


def _fresh(target: Path, size: int) -> None:
    target.unlink(missing_ok=True)
    with target.open("wb") as stream:
        stream.truncate(size)
    settle()


def _row(ours: Measured, peer: Measured) -> tuple[str, ...]:
    return (
        f"{ours.seconds:.1f}",
        f"{peer.seconds:.1f}",
        f"{peer.seconds / ours.seconds:.2f} x",
        f"{ours.peak_memory >> 20} MiB",
    )


def _sizes(ours: int, peer: int) -> tuple[str, ...]:
    return ("stored MiB", "partclone | zstd -3", f"{ours >> 20}", f"{peer >> 20}", f"{ours / peer:.3f}", "", "<= 1.05")


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows under their headings."""
    heads = ("work", "beside", "ours", "theirs", "ratio", "our peak memory", "at least")
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *rows]]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


if __name__ == "__main__":
    main()
