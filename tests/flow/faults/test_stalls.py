"""A server that does not answer before the first write: what is waited for is named, for how long, and when it goes on.

A third of a second counts as a stall here. The servers are a web server, an S3 server behind a wire that holds a
request back, and a folder on a filesystem that does not answer.
"""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.errors import RefusedError
from core.events import Event, Stage
from core.process import SystemRunner
from core.units import MIB
from images.store.access import Access
from images.store.backend import LocalBackend
from images.store.connect import connect
from images.store.passphrase import Passphrase
from rescue.cli.terminal import TerminalSink
from rescue.jobs.restore import RestoreChoices, plan_restore
from rescue.jobs.restore_check import check_plan
from restore.planning.matching import Matching
from tests.flow.command import Command
from tests.flow.faulty import CHOICES, assert_stall_told, carry_out, old_target
from tests.flow.servers import RangeServer, Relay, serving
from tests.flow.servers_s3 import VARIABLES, S3Server, moto
from tests.flow.small import WORDS, make, take
from tests.flow.test_plan import Machinery, found

WAIT = 0.8
#: Seconds that a person thinks, where one counts as a stall.
THINKING = 1.5
OPENING, READING = "Opening the repository {where}", "Reading the recovery points of {where}"
PLANNING = "Making the plan from what {where} holds"
#: What each file of a repository is read for, while a plan is made.
STALLS = (("liferaft.json", OPENING), ("manifests/", READING), ("indexes/", PLANNING), (".pack", PLANNING))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.events.Meter.STALL", 0.3)
    monkeypatch.setattr("core.events.watching.__wrapped__.__defaults__", (0.05,))


def stall(server: RangeServer, part: str) -> list[str]:
    """The first answer about ``part`` comes late; the requests that waited."""
    waited: list[str] = []

    def fault(method: str, path: str, before: int) -> str:
        if part not in path or waited:
            return ""
        waited.append(path)
        return f"wait {int(WAIT * 1000)}"

    server.fault = fault
    return waited


@pytest.mark.parametrize(("part", "message"), STALLS)
def test_a_web_server(repository: Path, target: Path, part: str, message: str) -> None:
    events: list[Event] = []
    with serving(repository) as server:
        waited = stall(server, part)
        plan_restore(server.url, "latest", [target], CHOICES, SystemRunner(), sink=events.append)
    assert waited
    assert_stall_told(events, message.format(where=server.url))


def test_a_server_that_says_nothing_while_a_plan_is_checked(repository: Path, target: Path) -> None:
    events: list[Event] = []
    with serving(repository) as server:
        plan = plan_restore(server.url, "latest", [target], CHOICES, SystemRunner())
        stall(server, "indexes/")
        assert check_plan(plan, "", SystemRunner(), sink=events.append) == ()
    assert_stall_told(events, f"Checking the plan against what {server.url} holds")


class Holding(Relay):
    """A wire that holds back the first request which has ``part`` in it. ``held``: how many were."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.part = b""
        self.held = 0

    def _copy(self, source: socket.socket, target: socket.socket, upward: bool) -> None:
        super()._copy(_Held(source, self) if upward else source, target, upward)  # type: ignore[arg-type]


class _Held:
    """The end of a wire as ``Relay`` reads it."""

    def __init__(self, inner: socket.socket, wire: Holding) -> None:
        self._inner = inner
        self._wire = wire

    def recv(self, size: int) -> bytes:
        data = self._inner.recv(size)
        if self._wire.part and self._wire.part in data:
            self._wire.part, self._wire.held = b"", self._wire.held + 1
            time.sleep(WAIT)
        return data


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with moto() as server:
        yield server


@pytest.fixture
def wire(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holding]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    found = Holding(s3.port)
    yield found
    found.close()


@pytest.mark.parametrize(("part", "message"), STALLS)
def test_an_object_store(
    s3: S3Server, wire: Holding, disk: Path, target: Path, tmp_path: Path, part: str, message: str
) -> None:
    address = s3.address(tmp_path.name, wire.port)
    put(connect(address), disk.parent / "repository")
    events: list[Event] = []
    # As it stands in a request: a file that is read, and not a folder that is listed.
    wire.part = f"{tmp_path.name}/{part}".encode() if "/" in part or part == "liferaft.json" else part.encode()
    plan_restore(address, "latest", [target], CHOICES, SystemRunner(), sink=events.append)
    assert wire.held
    assert_stall_told(events, message.format(where=connect(address).location))


def test_an_object_store_while_a_plan_is_checked_before_the_first_write(
    s3: S3Server, wire: Holding, disk: Path, target: Path, tmp_path: Path
) -> None:
    address = s3.address(tmp_path.name, wire.port)
    put(connect(address), disk.parent / "repository")
    plan = plan_restore(address, "latest", [target], CHOICES, SystemRunner())
    events: list[Event] = []
    wire.part = b"/indexes/"
    carry_out(plan, events.append)
    assert wire.held
    assert_stall_told(events, "Checking the recovery point and the targets")


def put(backend: object, folder: Path) -> None:
    """A repository, file by file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            backend.write(path.relative_to(folder).as_posix(), path.read_bytes())  # type: ignore[attr-defined]


def test_a_folder_whose_filesystem_does_not_answer(
    repository: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does while its server is away: the read itself waits."""
    events: list[Event] = []
    read, waited = LocalBackend.read_range, []

    def late(self: LocalBackend, name: str, offset: int, length: int) -> bytes:
        if not waited:
            waited.append(name)
            time.sleep(WAIT)
        return read(self, name, offset, length)

    monkeypatch.setattr(LocalBackend, "read_range", late)
    plan_restore(str(repository), "latest", [target], CHOICES, SystemRunner(), sink=events.append)
    assert_stall_told(events, PLANNING.format(where=repository))


def test_a_command_says_it_on_the_terminal_and_as_events(
    repository: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TerminalSink, "QUIET_INTERVAL", 0.0)
    liferaft = Command(monkeypatch, capsys)
    with serving(repository) as server:
        words = ["latest", "--repo", server.url, "--target", str(target), "--boot", "no"]
        stall(server, "liferaft.json")
        planned = liferaft("plan", *words)
        stall(server, "liferaft.json")
        told = liferaft("plan", *words, "--progress", "json")
        stall(server, "liferaft.json")
        restored = liferaft("restore", *words, "--yes")
    opening = OPENING.format(where=server.url)
    for done in (planned, restored):
        assert done.returncode == 0, done.stderr
        assert re.search(rf"NO PROGRESS for \d s: {re.escape(opening)}\n", done.stderr)
        assert re.search(rf"^{re.escape(opening)}: it goes on after \d s$", done.stderr, re.MULTILINE)
    assert told.returncode == 0
    assert "NO PROGRESS" not in told.stdout
    events = [msgspec.json.decode(line, type=Event) for line in told.stderr.splitlines()]
    assert_stall_told(events, opening)
    assert events[-1].stage is Stage.DONE


def test_a_person_who_thinks_about_a_passphrase_is_no_stall(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.events.Meter.STALL", 1.0)
    asked: list[str] = []

    def slowly() -> Passphrase:
        asked.append("passphrase")
        before = len(events)
        time.sleep(THINKING)
        told.extend(events[before:])
        return Passphrase(WORDS)

    folder = make(tmp_path / "sealed", encrypted=True)
    take(folder, disk, encrypted=True)
    events, told = list[Event](), list[Event]()
    target = old_target(tmp_path / "target.img")
    plan = plan_restore(
        str(folder), "latest", [target], CHOICES, SystemRunner(), Access(ask=slowly), sink=events.append
    )
    carry_out(plan, events.append, access=Access(ask=slowly))
    assert asked == ["passphrase", "passphrase"]
    assert not [event for event in told if event.stalled]


def test_a_person_who_thinks_about_which_disk_is_meant_is_no_stall(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.events.Meter.STALL", 1.0)
    asked: list[Matching] = []

    def slowly(found: Matching) -> bool:
        asked.append(found)
        before = len(events)
        time.sleep(THINKING)
        told.extend(events[before:])
        return False

    machine = Machinery(found("/dev/qa", 3 * MIB, "A"), found("/dev/qb", 300 * MIB, "B"))
    choices = RestoreChoices(match=True)
    events, told = list[Event](), list[Event]()
    with pytest.raises(RefusedError, match="It is not clear which disk goes where"):
        plan_restore(str(repository), "latest", [], choices, machine.runner, ask=slowly, sink=events.append)
    assert len(asked) == 1
    assert not [event for event in told if event.stalled]
