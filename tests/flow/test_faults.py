"""Faults while a restore is carried out: each ends in a clear message and the right code, and the rest is untouched."""

import errno
import json
import os
import re
import threading
from pathlib import Path

import msgspec
import pytest

from core.errors import DamagedError, DeviceError, ExitCode, LiferaftError, RefusedError, StoppedError
from core.events import Event, Stage, ignore
from core.process import SystemRunner
from core.units import MIB
from images.model.extents import Extent
from images.model.layout import DiskIdentity
from images.store.repository import pack_name
from rescue.cli.main import main
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import run_plan
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable, RestoreVolume, VerifyVolume, WipeSignatures, WriteHead
from restore.together import Halt
from tests.flow.disks import need
from tests.flow.faulty import OLD, TARGET_SIZE, Door, assert_rest_untouched, carry_out, old_target, plan
from tests.flow.servers import Relay, serving
from tests.flow.small import CHUNK, START, make, noise_disk, opened, take


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("sfdisk", "lsblk")
    return noise_disk(tmp_path_factory.mktemp("faults") / "disk.img", mebibytes=5)


@pytest.fixture(scope="module")
def repository(disk: Path) -> Path:
    take(make(disk.parent / "repository"), disk)
    return disk.parent / "repository"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return old_target(tmp_path / "target.img")


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr("restore.stream.stream.BATCH", 4 * CHUNK)
    monkeypatch.setattr("restore.stream.stream.DISTANT_BATCH", 4 * CHUNK)
    return Door(monkeypatch)


def assert_stall_told(events: list[Event], message: str) -> None:
    """What was waited for, for how long, and when it went on. A slow machine may have stalled elsewhere, too."""
    stalled = [event for event in events if event.stalled and event.message == message]
    assert stalled, [event.message for event in events]
    assert {event.stage for event in stalled} == {Stage.PREFLIGHT}
    assert max(event.stalled for event in stalled) > 0.5
    after = events[events.index(stalled[-1]) + 1]
    assert (after.stage, after.stalled) == (Stage.PREFLIGHT, 0.0)
    assert re.fullmatch(rf"{re.escape(message)}: it goes on after \d s", after.message)


def assert_restored(target: Path, disk: Path) -> None:
    """The partition, whole."""
    size = disk.stat().st_size
    assert target.read_bytes()[START:size] == disk.read_bytes()[START:]


def test_an_error_at_one_lba_is_told_with_its_place(repository: Path, target: Path, door: Door) -> None:
    made = plan(repository, target)
    at = START + 20 * CHUNK + 4096
    door.failing = {at}
    with pytest.raises(DeviceError) as raised:
        carry_out(made)
    assert raised.value.code is ExitCode.FAILED
    said = re.fullmatch(
        r"disk0-part1: write .*: /.*/target\.img: writing (\d+) bytes at (\d+) \(LBA (\d+) to (\d+)\) failed: "
        r"Input/output error\.",
        str(raised.value),
    )
    assert said is not None, str(raised.value)
    length, offset, first, last = map(int, said.groups())
    assert offset <= at < offset + length
    assert first <= at // 512 <= last
    assert (first * 512, (last + 1) * 512) == (offset, offset + length)
    assert_rest_untouched(made, "disk0", target)


@pytest.mark.parametrize("number", [0, 2, 9])
def test_a_disk_that_disappears_half_way(repository: Path, target: Path, door: Door, number: int) -> None:
    made = plan(repository, target)
    door.error = errno.ENODEV

    def vanish(count: int, offset: int, length: int) -> None:
        if count >= number and offset >= START:
            door.failing = set(range(0, TARGET_SIZE, 512))

    door.before_write = vanish
    with pytest.raises(DeviceError, match="No such device") as raised:
        carry_out(made)
    assert "Running the same restore again" in raised.value.hint
    assert_rest_untouched(made, "disk0", target)


@pytest.mark.parametrize("size", [START + 30 * CHUNK, 6 * MIB], ids=["below the partition's end", "above it"])
def test_a_target_that_shrinks_half_way(repository: Path, target: Path, door: Door, size: int) -> None:
    made = plan(repository, target)

    def shrink(count: int, offset: int, length: int) -> None:
        if offset == START + 8 * CHUNK:
            os.truncate(target, size)

    door.before_write = shrink
    with pytest.raises(DeviceError, match=rf"target\.img has \d+ bytes now, and had {TARGET_SIZE} when it was opened"):
        carry_out(made)


def test_what_reads_back_wrong_once_is_written_again(repository: Path, target: Path, door: Door, disk: Path) -> None:
    """A bit turns on the way to the disk; the bad range is fetched anew, and it is said."""
    made = plan(repository, target)
    at = START + 11 * CHUNK + 77

    def after_everything(event: Event) -> None:
        if event.stage is Stage.VERIFY and event.message.startswith("disk0-part1: read back") and not turned:
            turned.append(at)
            with target.open("r+b") as stream:
                stream.seek(at)
                stream.write(bytes([disk.read_bytes()[at] ^ 1]))

    turned: list[int] = []
    report = carry_out(made, after_everything)
    assert turned
    assert report.rewritten == CHUNK
    assert "read back wrong" in report.warnings[0]
    assert_restored(target, disk)
    assert_rest_untouched(made, "disk0", target)


def test_what_never_reads_back_right_is_named(repository: Path, target: Path, door: Door) -> None:
    made = plan(repository, target)
    door.turned = {START + 11 * CHUNK + 77}
    first = (START + 11 * CHUNK) // 512
    with pytest.raises(DeviceError, match=rf"not what was written: LBA {first} to {first + CHUNK // 512 - 1}"):
        carry_out(made)
    assert_rest_untouched(made, "disk0", target)


@pytest.mark.parametrize("stage", [Stage.LAYOUT, Stage.STREAM, Stage.VERIFY])
def test_whoever_stops_it_is_obeyed_and_it_goes_on(
    repository: Path, target: Path, door: Door, disk: Path, stage: Stage
) -> None:
    made = plan(repository, target)

    def stop(event: Event) -> None:
        if event.stage is stage:
            raise StoppedError("stopped by the user")

    with pytest.raises(StoppedError):
        carry_out(made, stop)
    assert_rest_untouched(made, "disk0", target)
    assert carry_out(made).verified
    assert_restored(target, disk)


class _PowerCutError(BaseException):
    """Not an error that anything may handle."""


def test_a_power_cut_at_every_write_and_then_again(repository: Path, tmp_path: Path, door: Door, disk: Path) -> None:
    """Whatever was written when the power went, the same plan carried out again ends in the same disk."""
    cut, survived = 0, False
    while not survived:
        target = old_target(tmp_path / "target.img")
        made = plan(repository, target)
        door.writes.clear()
        over = threading.Event()

        def power(number: int, offset: int, length: int, over: threading.Event = over, cut: int = cut) -> None:
            if number >= cut or over.is_set():
                over.set()
                raise _PowerCutError

        door.before_write = power
        try:
            carry_out(made)
            survived = True
        except _PowerCutError:
            assert_rest_untouched(made, "disk0", target)
            door.before_write = lambda number, offset, length: None
            assert carry_out(made).verified
        assert_restored(target, disk)
        assert_rest_untouched(made, "disk0", target)
        # Not every single one of many alike: the first, the last, and every third between them.
        cut += 1 if cut < 6 else 3
    assert cut > 10, f"only {cut} writes were cut"


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
    stalled = [event for event in events if event.stalled]
    # Writing, and the read-back behind it, which has nothing to do meanwhile either.
    assert Stage.STREAM in {event.stage for event in stalled} <= {Stage.STREAM, Stage.VERIFY}
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


def _edited(made: Plan, **changes: object) -> Plan:
    """The plan with its partition's steps changed, as an editor would."""
    steps = []
    for step in made.steps:
        if isinstance(step, RestoreVolume | VerifyVolume):
            step = msgspec.structs.replace(step, **changes)
        steps.append(step)
    return msgspec.structs.replace(made, steps=tuple(steps))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"offset": TARGET_SIZE - MIB}, "reach beyond"),
        ({"offset": START + 512 * 8}, "do not lie in one partition"),
        ({"offset": START + 100}, "no range of sectors"),
        ({"offset": -512}, "no range of sectors"),
        ({"size": 8 * MIB}, "do not lie in one partition"),
        ({"size": 512}, "has 4194304 bytes, the plan says 512"),
        ({"volume": "disk7-part9"}, "no volume disk7-part9"),
    ],
)
def test_an_edited_plan_that_does_not_hold_together_is_refused(
    repository: Path, target: Path, changes: dict[str, object], reason: str
) -> None:
    made = _edited(plan(repository, target), **changes)
    before = target.read_bytes()
    with pytest.raises(RefusedError) as raised:
        carry_out(made)
    assert any(reason in found for found in raised.value.reasons), raised.value.reasons
    assert raised.value.code is ExitCode.REFUSED
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("start", "count", "reason"), [(2048, 1 << 20, "do not lie within"), (0, 8192, "do not lie within")]
)
def test_an_edited_table_that_exceeds_the_disk_is_refused(
    repository: Path, target: Path, start: int, count: int, reason: str
) -> None:
    made = plan(repository, target)
    steps = []
    for step in made.steps:
        if isinstance(step, CreateTable):
            part = msgspec.structs.replace(step.table.partitions[0], start_lba=start, sector_count=count)
            step = msgspec.structs.replace(step, table=msgspec.structs.replace(step.table, partitions=(part,)))
        steps.append(step)
    before = target.read_bytes()
    with pytest.raises(RefusedError) as raised:
        carry_out(msgspec.structs.replace(made, steps=tuple(steps)))
    assert any(reason in found for found in raised.value.reasons), raised.value.reasons
    assert target.read_bytes() == before


def test_two_volumes_in_one_place_are_refused(repository: Path, target: Path) -> None:
    made = plan(repository, target)
    volume = next(step for step in made.steps if isinstance(step, RestoreVolume))
    doubled = msgspec.structs.replace(made, steps=(*made.steps, volume))
    with pytest.raises(RefusedError) as raised:
        carry_out(doubled)
    assert any("overlap: bytes 1048576 to 5242880" in found for found in raised.value.reasons)


def test_a_wipe_beyond_the_disk_is_refused(repository: Path, target: Path) -> None:
    made = plan(repository, target)
    wipe = made.steps[0]
    assert isinstance(wipe, WipeSignatures)
    extents = tuple(msgspec.structs.replace(extent, end=extent.end + 512) for extent in wipe.extents)
    edited = msgspec.structs.replace(made, steps=(msgspec.structs.replace(wipe, extents=extents), *made.steps[1:]))
    with pytest.raises(RefusedError, match="reach beyond"):
        carry_out(edited)


def test_a_volume_is_no_boot_area(repository: Path, target: Path) -> None:
    """Its size is nobody's promise, and it would all be read into memory."""
    made = plan(repository, target)
    heads = [step for step in made.steps if isinstance(step, WriteHead)]
    for changes in ({"volume": "disk0-part1"}, {"extents": (Extent(0, START + 512),)}):
        changed = [msgspec.structs.replace(step, **changes) if step in heads else step for step in made.steps]
        before = target.read_bytes()
        with pytest.raises(RefusedError, match=r"around the partition table|has only 1048576 bytes|overlap"):
            carry_out(msgspec.structs.replace(made, steps=tuple(changed)))
        assert target.read_bytes() == before


def test_a_plan_that_was_edited_after_it_was_confirmed_is_refused(repository: Path, target: Path) -> None:
    made = plan(repository, target)
    before = target.read_bytes()
    edited = msgspec.structs.replace(made, name="another")
    with pytest.raises(RefusedError, match="digest"):
        run_plan(edited, made.digest, SystemRunner(), ignore)
    assert target.read_bytes() == before


def test_a_plan_for_another_machine_is_refused(repository: Path, target: Path) -> None:
    made = plan(repository, target)
    elsewhere = msgspec.structs.replace(
        made.targets[0], file="", identity=DiskIdentity(wwn="0x5000c500deadbeef", serial="NOTHERE", model="Far Away")
    )
    before = target.read_bytes()
    with pytest.raises(RefusedError, match="target is not in this machine: Far Away serial NOTHERE") as raised:
        carry_out(msgspec.structs.replace(made, targets=(elsewhere,)))
    assert raised.value.code is ExitCode.REFUSED
    assert target.read_bytes() == before


@pytest.fixture(scope="module")
def two_disks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A repository whose recovery point has two disks, and both."""
    need("sfdisk", "lsblk")
    folder = tmp_path_factory.mktemp("two")
    first, second = (noise_disk(folder / f"disk{seed}.img", seed=seed, mebibytes=5) for seed in (1, 2))
    make(folder / "repo")
    capture_disks([first, second], str(folder / "repo"), name="", runner=SystemRunner(), sink=ignore)
    return folder / "repo", first, second


@pytest.mark.parametrize("kind", ["symlink", "hard link", "another spelling"])
def test_two_targets_that_are_one_disk_are_refused(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, target: Path, kind: str
) -> None:
    other = tmp_path / "other.img"
    if kind == "symlink":
        other.symlink_to(target)
    elif kind == "hard link":
        other.hardlink_to(target)
    else:
        (tmp_path / "folder").mkdir()
        other = tmp_path / "folder" / ".." / "target.img"
    before = target.read_bytes()
    with pytest.raises(RefusedError, match=r"twice|same"):
        plan(two_disks[0], target, other)
    assert target.read_bytes() == before


def test_a_plan_whose_targets_became_one_disk_is_refused(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, target: Path
) -> None:
    other = old_target(tmp_path / "other.img")
    made = plan(two_disks[0], target, other)
    other.unlink()
    other.hardlink_to(target)
    before = target.read_bytes()
    with pytest.raises(RefusedError, match=r"twice|same"):
        carry_out(made)
    assert target.read_bytes() == before


def test_steps_for_a_disk_without_a_target_are_refused(two_disks: tuple[Path, Path, Path], tmp_path: Path) -> None:
    targets = [old_target(tmp_path / name) for name in ("one.img", "other.img")]
    made = plan(two_disks[0], *targets)
    before = [target.read_bytes() for target in targets]
    with pytest.raises(RefusedError) as raised:
        carry_out(msgspec.structs.replace(made, targets=made.targets[:1]))
    assert any("no target for disk1" in reason for reason in raised.value.reasons), raised.value.reasons
    assert [target.read_bytes() for target in targets] == before


def test_a_report_says_verified_only_of_all_that_was_written(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, door: Door
) -> None:
    """Nor is a journal believed of a volume that nobody reads back."""
    targets = [old_target(tmp_path / name) for name in ("one.img", "other.img")]
    made = plan(two_disks[0], *targets)
    steps = tuple(step for step in made.steps if not (isinstance(step, VerifyVolume) and step.disk == "disk1"))
    made = msgspec.structs.replace(made, steps=steps)
    report = carry_out(made)
    assert [proof.verified for proof in report.volumes] == [4 * MIB, 0]
    assert not report.verified
    journal = tmp_path / "journal"

    def stop(number: int, offset: int, length: int) -> None:
        if offset >= START:
            raise StoppedError("stopped")

    fresh = [old_target(target) for target in targets]
    door.before_write = stop
    with pytest.raises(StoppedError):
        carry_out(made, journal=journal)
    door.before_write = lambda number, offset, length: None
    head = journal.read_text().splitlines()[0]
    lie = json.dumps({"volume": "disk1-part1", "first": 0, "end": 64})
    journal.write_text(f"{head}\n{lie}\n")
    carry_out(made)
    with fresh[1].open("r+b") as stream:
        stream.seek(START + CHUNK)
        stream.write(b"stale")
    door.reads.clear()
    carry_out(made, journal=journal)
    assert_restored(fresh[1], two_disks[2])


def test_a_target_that_is_exchanged_after_the_preflight_is_refused(
    repository: Path, target: Path, tmp_path: Path
) -> None:
    """Nothing is said of the time between: a hook runs as long as it likes, and so does making something smaller."""
    stage = tmp_path / "hooks" / "before-restore"
    stage.mkdir(parents=True)
    precious = old_target(tmp_path / "precious.img")
    hook = stage / "exchange"
    hook.write_text(f"#!/bin/sh\nexec mv {precious} {target}\n")
    hook.chmod(0o755)
    with pytest.raises(RefusedError, match="is not the disk or file any more"):
        carry_out(plan(repository, target), hooks=tmp_path / "hooks")
    assert target.read_bytes() == bytes([OLD]) * TARGET_SIZE


def test_two_disks_are_restored_at_the_same_time(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, target: Path, door: Door
) -> None:
    repo, first, second = two_disks
    other = old_target(tmp_path / "other.img")
    made = plan(repo, target, other)
    # Each disk waits at its first chunk until the other one is there: one after the other would never get further.
    barrier = threading.Barrier(2, timeout=60)
    seen: set[int] = set()

    def meet(number: int, offset: int, length: int) -> None:
        if offset == START and threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            barrier.wait()

    door.before_write = meet
    report = carry_out(made)
    assert report.verified
    assert {proof.target for proof in report.volumes} == {str(target), str(other)}
    for file, source in ((target, first), (other, second)):
        assert_restored(file, source)
    assert [step.step for step in report.steps] == [step.describe() for step in made.steps]


def test_when_one_disk_fails_the_other_is_stopped(
    two_disks: tuple[Path, Path, Path], tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, _, _ = two_disks
    other = old_target(tmp_path / "other.img")
    made = plan(repo, target, other)
    monkeypatch.setattr("restore.stream.stream.BATCH", CHUNK)
    real, failed, halted = os.pwritev, threading.Event(), threading.Event()
    halt = Halt.set
    late: list[int] = []

    def tell(self: Halt) -> None:
        halt(self)
        halted.set()

    def pwritev(descriptor: int, views: list[memoryview], offset: int) -> int:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        # Not at the end of the disk: there the table goes, one disk after the other.
        inside = START <= offset < 5 * MIB
        if name == str(other) and inside:
            failed.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if name == str(target) and inside:
            # Writes that were under way when the other disk failed end after all has been told to stop.
            assert failed.wait(60) and halted.wait(20)
            late.append(offset)
        return real(descriptor, views, offset)

    monkeypatch.setattr("restore.target.target.os.pwritev", pwritev)
    monkeypatch.setattr(Halt, "set", tell)
    before = set(threading.enumerate())
    with pytest.raises(DeviceError, match=r"^disk1: .*other\.img: writing .* failed: Input/output error") as raised:
        carry_out(made)
    assert "other disks were stopped" in raised.value.hint
    assert set(threading.enumerate()) <= before
    assert len(late) < 64, "the sound disk was written to its end"
    for name, file in (("disk0", target), ("disk1", other)):
        assert_rest_untouched(made, name, file)


def test_the_command_ends_with_the_right_code_and_json_stays_json(
    repository: Path,
    target: Path,
    door: Door,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door.failing = {START + 20 * CHUNK}
    words = ["restore", "latest", "--repo", str(repository), "--target", str(target), "--boot", "no", "--yes"]
    monkeypatch.setattr("sys.argv", ["liferaft", *words, "--progress", "json", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == ExitCode.FAILED
    said = capsys.readouterr()
    assert said.out == "", "no report of a restore that failed"
    assert "Input/output error" in said.err
    lines = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    assert {line["stage"] for line in lines if "stage" in line} >= {"preflight", "layout", "stream"}
