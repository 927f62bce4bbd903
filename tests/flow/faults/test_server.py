"""A server that dies, stalls or gives wrong bytes, and damaged packs, while a restore is carried out."""

import os
from pathlib import Path

import pytest

from core.errors import DamagedError, ExitCode, LiferaftError
from core.events import Event, Stage
from core.units import MIB
from images.store.repository import pack_name
from tests.flow.faulty import Door, assert_rest_untouched, assert_restored, assert_stall_told, carry_out, plan
from tests.flow.servers import Relay, serving
from tests.flow.small import CHUNK, START, make, opened, take


@pytest.fixture
def server_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries that a test can wait for."""
    monkeypatch.setattr(
        "images.store.http.HttpBackend.__init__.__kwdefaults__", {"pauses": (0.1, 0.2, 0.4), "headers": None}
    )


@pytest.mark.usefixtures("server_faults")
def test_a_server_that_dies_and_comes_back(repository: Path, target: Path, disk: Path, door: Door) -> None:
    events: list[Event] = []
    with serving(repository) as server:
        relay = Relay(server.server_address[1])
        try:
            made = plan(f"http://127.0.0.1:{relay.port}", target)

            def cut(number: int, offset: int, length: int) -> None:
                if START + 16 * CHUNK <= offset < 5 * MIB and not relay.cuts:
                    relay.cut()

            def hear(event: Event) -> None:
                events.append(event)
                # It comes back when it has been missed.
                if "trying again in" in event.message:
                    relay.mend()

            door.before_write = cut
            report = carry_out(made, hear)
            assert relay.cuts == 1
        finally:
            relay.close()
    assert report.verified
    assert_restored(target, disk)
    assert any("trying again in" in event.message for event in events), "a retry is told"


@pytest.mark.usefixtures("server_faults")
def test_a_server_that_does_not_come_back(repository: Path, target: Path, disk: Path, door: Door) -> None:
    with serving(repository) as server:
        relay = Relay(server.server_address[1])
        made = plan(f"http://127.0.0.1:{relay.port}", target)

        def cut(number: int, offset: int, length: int) -> None:
            if START + 16 * CHUNK <= offset < 5 * MIB:
                relay.cut()

        door.before_write = cut
        try:
            # Half-way, "refused" would promise that nothing was written.
            with pytest.raises(LiferaftError, match=r"stopped half-way: .* cannot be reached") as raised:
                carry_out(made)
        finally:
            relay.close()
        assert raised.value.code is ExitCode.FAILED
        assert_rest_untouched(made, "disk0", target)
        door.before_write = lambda number, offset, length: None
        report = carry_out(made, repository=server.url)
    assert report.kept > 0, "it goes on where it stopped"
    assert_restored(target, disk)


def test_a_server_that_stalls_is_named_with_its_stage(
    repository: Path, target: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer for two seconds, where half a second counts as a stall: who watches is told, and it goes on."""
    monkeypatch.setattr("core.events.Meter.STALL", 0.5)
    monkeypatch.setattr("core.events.ticking.__wrapped__.__defaults__", (0.1,))
    events: list[Event] = []
    with serving(repository) as server:
        made = plan(server.url, target)
        waited: list[str] = []

        def stall(method: str, path: str, before: int) -> str:
            if not path.endswith(".pack") or len(waited) >= 4:
                return ""
            waited.append(path)
            return "wait 2000"

        def watch(event: Event) -> None:
            events.append(event)
            # Not before: what is looked at before the first write is no stage that counts bytes.
            if event.stage is Stage.STREAM:
                server.fault = stall

        report = carry_out(made, watch)
    assert waited
    assert report.verified
    assert_restored(target, disk)
    assert_rest_untouched(made, "disk0", target)
    # Writing, and the read-back behind it, which has nothing to do meanwhile either. A slow machine may have stalled
    # elsewhere, too.
    stalled = [event for event in events if event.stalled and event.stage in (Stage.STREAM, Stage.VERIFY)]
    assert Stage.STREAM in {event.stage for event in stalled}
    assert max(event.stalled for event in stalled) > 1.0
    assert {event.message for event in stalled} <= {"Writing", "Reading back"}
    assert events[-1].stage is Stage.DONE


@pytest.mark.parametrize(
    ("part", "message"),
    [("/liferaft.json", "Opening the repository {url}"), ("/indexes/", "Checking the recovery point and the targets")],
)
def test_a_server_that_stalls_before_the_first_write_is_named_too(
    repository: Path, target: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, part: str, message: str
) -> None:
    monkeypatch.setattr("core.events.Meter.STALL", 0.5)
    monkeypatch.setattr("core.events.watching.__wrapped__.__defaults__", (0.1,))
    events: list[Event] = []
    with serving(repository) as server:
        made = plan(server.url, target)
        waited: list[str] = []

        def stall(method: str, path: str, before: int) -> str:
            if part not in path or waited:
                return ""
            waited.append(path)
            return "wait 1500"

        server.fault = stall
        report = carry_out(made, events.append)
    assert waited
    assert report.verified
    assert_restored(target, disk)
    assert_stall_told(events, message.format(url=server.url))


@pytest.mark.usefixtures("server_faults")
def test_a_retry_before_the_first_write_is_not_told_as_writing(repository: Path, target: Path) -> None:
    """The wizard warns of a half-written disk from the first stage that writes."""
    events: list[Event] = []
    with serving(repository) as server:
        made = plan(server.url, target)
        failed: list[str] = []

        def fail(method: str, path: str, before: int) -> str:
            if "/indexes/" not in path or failed:
                return ""
            failed.append(path)
            return "503"

        server.fault = fail
        carry_out(made, events.append)
    assert [event.stage for event in events if "trying again in" in event.message] == [Stage.PREFLIGHT]


def test_wrong_bytes_from_a_cache_are_asked_for_again(repository: Path, target: Path, disk: Path) -> None:
    with serving(repository) as server:
        made = plan(server.url, target)
        fresh: list[str] = []

        def fault(method: str, path: str, before: int) -> str:
            if not path.endswith(".pack"):
                return ""
            # A cache that holds a damaged copy, and asks the server when it is told to.
            cached = "no-cache" not in (server.headers[-1].get("Cache-Control") or "")
            if not cached:
                fresh.append(path)
            return "flip" if cached else ""

        server.fault = fault
        report = carry_out(made)
    assert fresh
    assert report.refetched == len(fresh)
    assert any("damaged at first and was right when it was read again" in line for line in report.warnings)
    assert_restored(target, disk)


def test_a_server_that_serves_wrong_bytes_for_ever(repository: Path, target: Path) -> None:
    with serving(repository) as server:
        made = plan(server.url, target)
        server.fault = lambda method, path, before: "flip" if path.endswith(".pack") else ""
        with pytest.raises(DamagedError, match=r"recovery point .*volume disk0-.*: packs/.*, offset") as raised:
            carry_out(made)
    assert raised.value.code is ExitCode.DAMAGED
    assert_rest_untouched(made, "disk0", target)


def _damaged_pack(folder: Path, disk: Path, *, parity: int) -> tuple[Path, Path]:
    """A repository of its own; the pack that holds the partition's chunks."""
    repo = make(folder / "repo", parity=parity)
    take(repo, disk)
    found = opened(repo)
    volume = next(volume for volume in found.manifest(found.points()[0].id).volumes if volume.partition)
    slot = next(slot for slot in found.slots(volume, "here") if slot.number == 20)
    assert slot.id is not None
    place = found.locate(slot.id)
    assert place is not None
    return repo, repo / pack_name(place.pack)


def test_a_truncated_pack_is_found_before_the_first_write(tmp_path: Path, target: Path, disk: Path) -> None:
    repo, pack = _damaged_pack(tmp_path, disk, parity=0)
    made = plan(repo, target)
    before = target.read_bytes()
    os.truncate(pack, pack.stat().st_size // 2)
    with pytest.raises(DamagedError, match="truncated") as raised:
        carry_out(made)
    assert raised.value.code is ExitCode.DAMAGED
    assert "Nothing was written" in raised.value.hint
    assert target.read_bytes() == before


@pytest.mark.parametrize("harm", ["a turned bit", "truncated"])
def test_a_pack_that_parity_can_bring_back_is_restored_through_it(
    tmp_path: Path, target: Path, disk: Path, harm: str
) -> None:
    repo, pack = _damaged_pack(tmp_path, disk, parity=2)
    made = plan(repo, target)
    sound = pack.read_bytes()
    pack.chmod(0o600)
    if harm == "truncated":
        os.truncate(pack, len(sound) - 30_000)
    else:
        pack.write_bytes(sound[:1_500_000] + bytes([sound[1_500_000] ^ 1]) + sound[1_500_001:])
    damaged = pack.read_bytes()
    if harm == "truncated":
        assert any("read through its parity" in note for note in plan(repo, target).notes), "a plan made now says so"
    report = carry_out(made)
    assert report.verified
    assert report.refetched > 0
    assert any("through its parity" in line for line in report.warnings)
    assert_restored(target, disk)
    assert pack.read_bytes() == damaged, "a restore mends no repository"
