"""Stopping a command: whoever sends the signal, the real program ends, and nothing that it began stays behind."""

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from core.events import ignore
from core.process import SystemRunner
from images.store.check import Depth
from rescue.jobs.capture import capture_disks
from rescue.jobs.check import check_repository
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from tests.flow.disks import MIB, blank, ext_files, gpt_disk, need, partition_file
from tests.flow.servers import free_port
from tests.flow.signals import PYTHONPATH, ROOT, SLOW, WAYS, Command, signals_as_at_the_start
from tests.flow.sticks import small_iso


class Taken(NamedTuple):
    """A disk, a repository that holds it, and the files of its root."""

    disk: Path
    repository: Path
    files: dict[str, bytes | str]


#: Where the root of a disk lies: offset and size in bytes.
_ROOT_PLACE = (67584 * 512, 262144 * 512)


@pytest.fixture(scope="session")
def taken(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Taken:
    folder = tmp_path_factory.mktemp("taken")
    disk = gpt_disk(folder / "source.img", tree)
    _capture(disk, folder / "repo")
    files = ext_files(partition_file(disk, *_ROOT_PLACE))
    assert len(files) > 60
    return Taken(disk, folder / "repo", files)


def _capture(disk: Path, repository: Path) -> None:
    capture_disks([disk], str(repository), name="", runner=SystemRunner(), sink=ignore)


def _files(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(pattern) if path.is_file())


def _packs(repository: Path) -> list[str]:
    """The packs that are being written."""
    return _files(repository / "packs", "*.partial")


def _watched(path: Path) -> Callable[[], bool]:
    """Whether a file has been written since now."""
    before = path.stat().st_mtime_ns
    return lambda: path.stat().st_mtime_ns != before


@pytest.mark.parametrize("way", WAYS)
def test_a_capture_that_is_stopped_leaves_no_lock_and_no_half_file(
    way: str, taken: Taken, tmp_path: Path, start: Callable[..., Command]
) -> None:
    repo = tmp_path / "repo"
    command = start("capture", taken.disk, "--repo", repo)
    command.until(lambda: bool(_packs(repo)))
    command.stop(*WAYS[way])
    assert _files(repo, "*.partial") == [] == _files(repo / "locks", "*") == _files(repo / "manifests", "*")
    assert check_repository(str(repo), Depth(data=True), repair=False, sink=ignore).damage_count == 0


def test_a_restore_that_is_stopped_goes_on_when_it_is_run_again(
    taken: Taken, tmp_path: Path, start: Callable[..., Command]
) -> None:
    target = blank(tmp_path / "target.img", 200 * MIB)
    written = _watched(target)
    command = start("restore", "latest", "--repo", taken.repository, "--target", target, "--yes")
    command.until(written)
    command.stop(*WAYS["systemd"])
    plan = plan_restore(str(taken.repository), "latest", [target], RestoreChoices(), SystemRunner())
    assert run_plan(plan, plan.digest, SystemRunner(), ignore).verified
    assert ext_files(partition_file(target, *_ROOT_PLACE)) == taken.files


#: A job finds its disk among the machine's; here it is a file.
_TO_A_FILE = """
import rescue.jobs.unattended
from rescue.jobs.restore import plan_restore
def to_a_file(repository, point, rules, choices, runner, *others):
    return plan_restore(repository, point, ["{target}"], choices, runner)
rescue.jobs.unattended.plan_restore_by_rules = to_a_file
"""


def test_a_job_that_is_stopped_says_so_to_whoever_watches(
    taken: Taken, tmp_path: Path, start: Callable[..., Command]
) -> None:
    target = blank(tmp_path / "target.img", 200 * MIB)
    written = _watched(target)
    (tmp_path / "job.json").write_text(json.dumps({"repository": str(taken.repository), "target": {"only": True}}))
    command = start("job", "job.json", slow=SLOW + _TO_A_FILE.format(target=target))
    command.until(written)
    command.stop(signal.SIGTERM, says="")
    printed = (tmp_path / "printed").read_text()
    (line,) = (line for line in printed.splitlines() if line.startswith("LIFERAFT-RESULT "))
    assert json.loads(line.partition(" ")[2])["exit_code"] == 130
    assert "FAILED: The job was stopped." in printed


#: Instead of rebooting or powering off whatever runs the tests.
_NO_END = """
import pathlib, rescue.cli.job
rescue.cli.job.end_machine = lambda after, runner: pathlib.Path("ended").touch()
"""


@pytest.mark.parametrize("way", ["Ctrl-C", "kill", "timeout"])
def test_a_job_that_is_stopped_while_it_sends_its_result_prints_it(
    way: str, taken: Taken, tmp_path: Path, start: Callable[..., Command]
) -> None:
    """The server takes the connection and answers nothing."""
    target = blank(tmp_path / "target.img", 200 * MIB)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/report"
        job = {"repository": str(taken.repository), "target": {"only": True}, "report_url": address}
        (tmp_path / "job.json").write_text(json.dumps(job | {"after": "poweroff"}))
        command = start("job", "job.json", slow=_TO_A_FILE.format(target=target) + _NO_END)
        command.until(lambda: bool(select.select([server], [], [], 0)[0]))
        connection, _ = server.accept()
        with connection:
            command.stop(*WAYS[way], says="")
    printed = (tmp_path / "printed").read_text()
    (line,) = (line for line in printed.splitlines() if line.startswith("LIFERAFT-RESULT "))
    result = json.loads(line.partition(" ")[2])
    assert result["exit_code"] == 0 and result["report"]["verified"] and "error" not in result
    assert "the report may not have been sent" in printed and "The machine stays as it is." in printed
    assert not (tmp_path / "ended").exists()


#: Words, and the file by which one sees that it is at work.
_OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "export": (("export", "latest", "disk.img", "--repo", "REPO"), "disk.img.*.partial"),
    "extract": (("extract", "latest:disk0-part2/etc", "files", "--repo", "REPO"), "files/*"),
    "copy": (("copy", "--repo", "REPO", "--to", "other", "--all"), "other/packs/**/*.partial"),
}


@pytest.mark.parametrize("name", _OTHERS)
def test_what_else_writes_files_leaves_no_half_one(
    name: str, taken: Taken, tmp_path: Path, start: Callable[..., Command]
) -> None:
    words, at_work = _OTHERS[name]
    command = start(*(str(taken.repository) if word == "REPO" else word for word in words))
    command.until(lambda: bool(list(tmp_path.glob(at_work))))
    command.stop(signal.SIGTERM)
    assert _files(tmp_path, "*.partial") == [] == _files(tmp_path, "locks/*")
    assert not (tmp_path / "disk.img").exists()


def test_a_check_that_is_stopped_ends_without_reading_on(taken: Taken, start: Callable[..., Command]) -> None:
    command = start("check", "--repo", taken.repository, "--data", "--progress", "json")
    command.until(lambda: '"stage":"check"' in command.said.read_text())
    command.stop(signal.SIGTERM)
    assert _files(taken.repository / "locks", "*") == []


def test_a_stick_whose_writing_was_stopped_starts_nothing(tmp_path: Path, start: Callable[..., Command]) -> None:
    need("xorriso", "mkfs.fat")
    iso = small_iso(tmp_path / "small")
    stick = blank(tmp_path / "stick.img", 64 * MIB)
    written = _watched(stick)
    command = start("write-usb", iso, stick, "--yes")
    command.until(written)
    command.stop(signal.SIGTERM)
    with stick.open("rb") as stream:
        assert stream.read(MIB) == bytes(MIB)


_HOOK = """#!/bin/bash
trap 'echo thawed >>"$0.said"; exit 1' TERM
sleep 300 &
echo $! >"$0.child"
while :; do sleep 0.05; done
"""


def test_a_sites_own_program_is_told_too_and_what_it_started_goes_with_it(
    taken: Taken, tmp_path: Path, start: Callable[..., Command]
) -> None:
    hook = tmp_path / "hooks/before-capture/10-freeze"
    hook.parent.mkdir(parents=True)
    hook.write_text(_HOOK)
    hook.chmod(0o755)
    child = Path(f"{hook}.child")
    command = start("capture", taken.disk, "--repo", "repo", "--hooks", "hooks")
    command.until(lambda: child.exists() and child.read_text() != "")
    command.stop(signal.SIGTERM)
    assert Path(f"{hook}.said").read_text() == "thawed\n"


def test_what_is_said_without_a_place_for_it_goes_into_no_file(
    taken: Taken, tmp_path: Path, start: Callable[..., Command]
) -> None:
    """Standard error closed by whoever starts it: the next file that is opened has its number (open(2))."""
    repo = tmp_path / "repo"
    closed = ("bash", "-c", 'exec "$@" 2>&-', "bash")
    command = start("capture", taken.disk, "--repo", repo, launcher=closed)
    command.until(lambda: bool(_packs(repo)))
    command.stop(*WAYS["Ctrl-C twice"], says="")
    assert not [path for path in repo.rglob("*") if path.is_file() and b"Ctrl-C" in path.read_bytes()]
    assert check_repository(str(repo), Depth(data=True), repair=False, sink=ignore).damage_count == 0


def test_what_ignores_hangups_goes_on_behind_one(taken: Taken, tmp_path: Path, start: Callable[..., Command]) -> None:
    command = start("capture", taken.disk, "--repo", "repo", launcher=("nohup",))
    command.until(lambda: bool(_packs(tmp_path / "repo")))
    command.process.send_signal(signal.SIGHUP)
    assert command.process.wait(60) == 0, command.said.read_text()
    assert len(_files(tmp_path / "repo/manifests", "*.json")) == 1


class Session:
    """liferaft on a terminal of its own, as in a shell over SSH.

    Attributes:
        number: its process.
        shown: what it has drawn and said.
    """

    def __init__(self, *words: str | Path) -> None:
        self.shown = b""
        self.number, self._terminal = pty.fork()
        if not self.number:
            signals_as_at_the_start()
            os.environ.update(TERM="xterm", PYTHONPATH=PYTHONPATH)
            program = f"{SLOW}from rescue.cli.main import main\nmain()\n"
            os.execv(sys.executable, [sys.executable, "-c", program, *map(str, words)])
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def until(self, reached: Callable[[], bool]) -> None:
        """Read what it draws until it has come so far."""
        until = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < until, f"it never came so far: {self.shown.decode(errors='replace')}"
            self._read(0.02)

    def type(self, text: str) -> None:
        """Keys, as a terminal sends them."""
        os.write(self._terminal, text.encode())

    def ended(self) -> int:
        """Its exit code, when it has ended by itself."""
        until = time.monotonic() + 60
        while self._read(0.2):
            assert time.monotonic() < until, f"it does not end: {self.shown.decode(errors='replace')}"
        return self._code()

    def hang_up(self) -> int:
        """Close the terminal; its exit code."""
        os.close(self._terminal)
        return self._code()

    def _read(self, seconds: float) -> bool:
        """False at the end."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return True
        try:
            content = os.read(self._terminal, 1 << 16)
        except OSError:
            # Nobody has it open any more (tty_ioctl(4) and the kernel's pty: EIO).
            return False
        self.shown += content
        return bool(content)

    def _code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])


def test_a_terminal_that_goes_away_stops_the_command(taken: Taken, tmp_path: Path) -> None:
    """A dropped SSH session: the kernel sends the hangup, and nothing can be written to the terminal any more."""
    repo = tmp_path / "repo"
    session = Session("capture", taken.disk, "--repo", repo)
    session.until(lambda: bool(_packs(repo)))
    assert session.hang_up() == 130
    assert _files(repo, "*.partial") == [] == _files(repo / "locks", "*")
    assert check_repository(str(repo), Depth(), repair=False, sink=ignore).damage_count == 0


def test_a_wizard_that_is_stopped_gives_the_terminal_back() -> None:
    """Its codes for that are xterm's: the normal screen, a cursor that is seen (XTerm Control Sequences, DECSET)."""
    session = Session("tui")
    session.until(lambda: b"F2: a shell" in session.shown)
    os.kill(session.number, signal.SIGTERM)
    # systemd's unit of the wizard sends a hangup behind it.
    os.kill(session.number, signal.SIGHUP)
    assert session.ended() == 130
    drawn, _, after = session.shown.rpartition(b"\x1b[?1049l")
    assert b"\x1b[?1049h" in drawn and b"\x1b[?25h" in after
    assert b"Error" not in after and b"Traceback" not in session.shown


@pytest.mark.parametrize(
    ("typed", "longest"),
    [("echo re''ady", 20), ("echo re''ady; sleep 300", 20), ("trap '' HUP; echo re''ady", 40)],
    ids=["a prompt", "with a job", "that does not listen"],
)
def test_a_wizard_that_is_stopped_ends_the_shell_on_its_terminal(typed: str, longest: float) -> None:
    """bash(1), SIGNALS: interactive, it ignores SIGTERM, and exits on SIGHUP, unless that is trapped."""
    session = Session("tui")
    session.until(lambda: b"F2: a shell" in session.shown)
    session.type("\x1bOQ")
    session.until(lambda: b"A root shell." in session.shown)
    session.type(f"{typed}\r")
    session.until(lambda: b"ready" in session.shown)
    before = time.monotonic()
    os.kill(session.number, signal.SIGTERM)
    os.kill(session.number, signal.SIGHUP)
    assert session.ended() == 130
    assert time.monotonic() - before < longest
    drawn, _, after = session.shown.rpartition(b"\x1b[?1049l")
    assert b"\x1b[?1049h" in drawn and b"\x1b[?25h" in after
    assert b"Traceback" not in session.shown


def test_a_wizard_whose_terminal_goes_away_ends() -> None:
    session = Session("tui")
    session.until(lambda: b"F2: a shell" in session.shown)
    assert session.hang_up() == 130


#: A thread that asks a server which is away, and a main thread that waits for it however it is interrupted.
_ASKING = """
import sys, threading, time
from core.errors import UnreachableError
from core.stopping import stoppable
from images.store.http import HttpBackend
def ask():
    try:
        HttpBackend(sys.argv[1]).read("liferaft.json", 100)
    except UnreachableError:
        print("given up")
thread = threading.Thread(target=ask)
def wait():
    # An interrupted join() takes a thread that is at work for one that has ended (CPython 3.11).
    while thread.is_alive():
        time.sleep(0.05)
with stoppable():
    thread.start()
    try:
        print("asking", flush=True)
        wait()
    finally:
        wait()
"""


def test_nobody_waits_for_a_thread_whose_server_is_away(tmp_path: Path) -> None:
    """It would try again with growing pauses for half a minute (images.store.http, PAUSES)."""
    with subprocess.Popen(
        [sys.executable, "-c", _ASKING, f"http://127.0.0.1:{free_port()}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "asking\n"
            # The pauses of 0.5 and 1 s are over then, or nearly so.
            time.sleep(1.5)
            before = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == "given up\n"
            process.wait(60)
            assert time.monotonic() - before < 8
        finally:
            process.kill()


def test_a_reader_who_has_seen_enough_ends_a_list_quietly(taken: Taken) -> None:
    """``liferaft ls | head -1``: SIGPIPE is ignored by Python, and the write fails instead (signal(7), EPIPE)."""
    program = "from rescue.cli.main import main; main()"
    words = [sys.executable, "-c", program, "ls", "latest:/etc", "--repo", str(taken.repository)]
    script = '"$@" | head -n 1; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] in ("0", "1") and len(done.stdout.splitlines()) == 2
