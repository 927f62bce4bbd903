"""A lab guest: the rescue system in an emulated machine, running shell scripts that the host gives it.

For what this host's kernel cannot do (device-mapper, md) and for scripts tried by hand. Boots the kernel of an ISO
directly, with the ISO as its CD and any number of blank virtio disks (serial numbers LAB0, LAB1 …), and runs bash
scripts as root, one after another, in one boot. Scripts, their output and exit codes go through a folder that both
sides see (virtio-9p); the serial lines are only for starting and for what the kernel has to say.

It does not judge: a test asserts on what a script printed.

By hand, in two shells::

    python -m tests.boot.lab start /tmp/lab --disk 256M --disk 256M     # until Ctrl-C
    python -m tests.boot.lab run /tmp/lab 'lsblk; liferaft probe'       # or a script on standard input

With ``--tree`` (the default by hand) the guest's ``liferaft`` is the working tree, as it is at each run.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder.boot import base_parameters
from core.process import Runner, SystemRunner
from core.units import MIB
from tests.boot.console import Console, LineTimeoutError
from tests.boot.ending import orderly_end
from tests.boot.machine import Controller, Drive, Firmware, Machine, RunningMachine
from tests.boot.place import DEFAULT_ISO, TREE

#: Seconds from power-on to the first script; 25 on an idle machine.
BOOT_TIMEOUT = 600
#: Seconds between two looks at the shared folder, on both sides.
_INTERVAL = 0.2

#: A root shell on the second serial line: systemd-debug-generator(8).
_PARAMETERS = (*base_parameters(), "systemd.debug_shell=ttyS1", "quiet")
#: No wizard and no network, which a script does not need.
_SPARE = (
    "systemd.mask=liferaft-tui@ttyS0.service",
    "systemd.mask=liferaft-tui@tty1.service",
    "systemd.mask=systemd-networkd.service",
    "systemd.mask=systemd-networkd.socket",
)

#: Runs every script as it appears; a script is renamed into place whole, and so is its exit code.
_AGENT = f"""
export HOME=/root LC_ALL=C.UTF-8
cd /root
n=1
while :; do
  if [ -e /run/lab/$n.sh ]; then
    setsid --wait bash /run/lab/$n.sh >/run/lab/$n.out 2>&1 </dev/null
    echo $? >/run/lab/$n.rc.new
    mv /run/lab/$n.rc.new /run/lab/$n.rc
    n=$((n + 1))
  else
    sleep {_INTERVAL}
  fi
done
"""

#: The working tree before the medium's own packages; bytecode stays in the guest's memory.
_TREE = """
mkdir -p /run/tree
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144 tree /run/tree
cat >/usr/bin/liferaft <<'END'
#!/bin/sh
export PYTHONPYCACHEPREFIX=/run/bytecode PYTHONPATH=/run/tree:/usr/lib/liferaft
exec python3 -c 'from rescue.cli.main import main; main()' "$@"
END
chmod 755 /usr/bin/liferaft
"""


@dataclass(frozen=True)
class Answer:
    """What a script printed, on both streams, and its exit code."""

    output: str
    code: int


class Guest:
    """A running guest, known by the folder it shares with the host.

    Attributes:
        console: its first serial line, where this process has switched it on.
    """

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self._folder = folder
        self.console = console

    def run(self, script: str, timeout: float = 600.0) -> Answer:
        """Run a bash script as root and wait for its end.

        Raises:
            LineTimeoutError: no end within ``timeout`` seconds, with what it printed so far.
        """
        number = next(n for n in itertools.count(1) if not (self._folder / f"{n}.sh").exists())
        new, code = self._folder / f"{number}.sh.new", self._folder / f"{number}.rc"
        new.write_text(script)
        new.rename(self._folder / f"{number}.sh")
        end = time.monotonic() + timeout
        while not code.exists():
            if time.monotonic() > end:
                said = self._said(number)
                raise LineTimeoutError(f"script {number} had no end within {timeout:.0f} s; it said:\n{said}")
            time.sleep(_INTERVAL)
        return Answer(self._said(number), int(code.read_text()))

    def check(self, script: str, timeout: float = 600.0) -> str:
        """Run a script that must succeed (``set -e`` is put before it); returns its output.

        Raises:
            AssertionError: its exit code was not 0.
        """
        answer = self.run(f"set -e\n{script}", timeout)
        if answer.code != 0:
            said = f"--- said:\n{answer.output}"
            raise AssertionError(f"a script in the guest ended with {answer.code}:\n{script}\n{said}")
        return answer.output

    def _said(self, number: int) -> str:
        path = self._folder / f"{number}.out"
        return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def guest(
    name: str,
    iso: Path,
    disks: Sequence[Path],
    folder: Path,
    runner: Runner,
    *,
    others: Sequence[Drive] = (),
    tree: Path | None = None,
    whole: bool = False,
) -> Iterator[Guest]:
    """The rescue system of ``iso`` with ``disks``, ready for scripts; off after the block.

    Args:
        name: names the logs under ``out/boot``.
        folder: an empty folder of the host; the guest has it as ``/run/lab``.
        others: more drives, behind ``disks``, on any controller.
        tree: the working tree that replaces the liferaft of the medium.
        whole: the system as people have it, with the wizard and the network.

    Raises:
        LineTimeoutError: it did not come up.
    """
    kernel, initrd = _boot_files(iso, folder, runner)
    words = (*_PARAMETERS, *(() if whole else _SPARE))
    extra = ["-kernel", str(kernel), "-initrd", str(initrd), "-append", " ".join(words)]
    extra += _share("lab", folder, "")
    if tree is not None:
        extra += _share("tree", tree, ",readonly=on")
    drives = [Drive(iso, Controller.CDROM, readonly=True)]
    drives += [Drive(path, Controller.VIRTIO, f"LAB{number}") for number, path in enumerate(disks)]
    machine = Machine(name, Firmware.BIOS, (*drives, *others), memory=1536, extra=tuple(extra))
    with machine.run() as running:
        _start_agent(running, folder, tree)
        yield Guest(folder, running.console)


def _boot_files(iso: Path, folder: Path, runner: Runner) -> tuple[Path, Path]:
    found = (folder / "vmlinuz", folder / "initrd.img")
    for path in found:
        runner.run(["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", f"/live/{path.name}", str(path)])
    return found


def _share(tag: str, folder: Path, options: str) -> list[str]:
    return ["-virtfs", f"local,path={folder},mount_tag={tag},security_model=none,multidevs=remap{options}"]


def _start_agent(running: RunningMachine, folder: Path, tree: Path | None) -> None:
    """Give the debug shell its one command: mount the shared folder and run the agent in it."""
    (folder / "agent").write_text((_TREE if tree else "") + _AGENT)
    running.words.expect(r"[#$] $", BOOT_TIMEOUT)
    running.words.send(
        "mkdir -p /run/lab && mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 lab /run/lab "
        "&& udevadm settle && exec bash /run/lab/agent\n"
    )
    Guest(folder).check("uname -r", BOOT_TIMEOUT)


def blank_disk(path: Path, size: int) -> Path:
    """A sparse file of ``size`` bytes."""
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def main(words: Sequence[str] | None = None) -> int:
    """The command line for trying things by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.boot.lab", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="switch a guest on, until Ctrl-C")
    start.add_argument("folder", type=Path)
    start.add_argument("--disk", action="append", default=[], metavar="SIZE|FILE", help="256M, 2G, or a raw file")
    start.add_argument("--iso", type=Path, default=DEFAULT_ISO)
    start.add_argument("--no-tree", action="store_true", help="the liferaft of the ISO, not the working tree")
    run = commands.add_parser("run", help="run a script in a guest that is on; its exit code is ours")
    run.add_argument("folder", type=Path)
    run.add_argument("script", nargs="?", help="bash; standard input without it")
    run.add_argument("--timeout", type=float, default=600.0)
    given = parser.parse_args(words)
    if given.command == "run":
        answer = Guest(given.folder).run(given.script or sys.stdin.read(), given.timeout)
        sys.stdout.write(answer.output)
        return answer.code
    return _stay_on(given.folder, given.iso, given.disk, None if given.no_tree else TREE)


def _stay_on(folder: Path, iso: Path, disks: Sequence[str], tree: Path | None) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        print(f"{folder} is not empty: a guest needs a folder of its own.", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        stack.enter_context(orderly_end())
        store = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lr-lab-")))
        paths = [_disk(word, store / f"{number}.raw") for number, word in enumerate(disks)]
        started = time.monotonic()
        stack.enter_context(guest(f"lab-{folder.name}", iso, paths, folder, SystemRunner(), tree=tree))
        print(f"on after {time.monotonic() - started:.0f} s; run scripts with: run {folder} '…'", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0


def _disk(word: str, path: Path) -> Path:
    """A raw file that exists, or a new blank one of a size in MiB (``M``) or GiB (``G``)."""
    if Path(word).exists():
        return Path(word)
    units = {"M": MIB, "G": 1024 * MIB}
    if word[:-1].isdigit() and word[-1:] in units:
        return blank_disk(path, int(word[:-1]) * units[word[-1]])
    raise SystemExit(f"{word} is neither a file nor a size like 256M or 2G.")


if __name__ == "__main__":
    sys.exit(main())
