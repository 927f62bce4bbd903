"""``make bench``: liferaft beside its peers, on the same disk, in the same run, as a table.

Ratios count, not seconds; on a busy machine look at the processor seconds, ours / theirs. Needs root
(loop devices, mounts) and 30 GiB of space. Exit code 1 when a row misses what is asked of it.

    python -m benchmarks [FOLDER] [--only ROW]... [--repeat N] [--disk IMAGE]
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bench import ROWS, Bench
from benchmarks.row import table

TOOLS = ("partclone.ext4", "zstd", "sfdisk", "mke2fs", "resize2fs", "borg", "restic", "nginx")


def main() -> int:
    """The rows asked for, in one run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="liferaft beside its peers.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("/var/tmp"), help="for scratch files")
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each command N times, the best counts")
    parser.add_argument("--disk", type=Path, metavar="IMAGE", help="the disk image of an earlier run")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("The benchmarks need root for loop devices.")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        sys.exit(f"The benchmarks need {', '.join(missing)}: run make setup.")
    with tempfile.TemporaryDirectory(prefix="liferaft-bench-", dir=arguments.folder) as folder:
        bench = Bench(Path(folder), arguments.disk, arguments.repeat)
        rows = [ROWS[name](bench) for name in arguments.only or ROWS]
    print()
    print(table(rows))
    print()
    print(_circumstances())
    return 1 if any(row.verdict == "MISSED" for row in rows) else 0


def _circumstances() -> str:
    """What the figures depend on."""
    versions = [
        subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip().splitlines()[0]
        for words in (["zstd", "--version"], ["borg", "--version"], ["restic", "version"])
    ]
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, load average {load}, Linux {platform.release()}; {'; '.join(versions)}"


if __name__ == "__main__":
    sys.exit(main())
