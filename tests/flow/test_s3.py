"""A repository in a bucket: the whole road against a real server process, and what servers and wires do wrong."""

import random
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from core.errors import DamagedError, ExitCode, LiferaftError, RefusedError, UnreachableError, UsageError
from core.events import Event, Stage, ignore
from core.process import SystemRunner
from images.capture import CaptureResult
from images.store.backend import MissingFileError, Writer
from images.store.connect import connect, open_repository
from images.store.repository import Repository
from images.store.s3 import S3Backend
from images.store.s3_address import parse_address
from rescue.cli.main import cli
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.planning.surveyed import survey_chunks
from tests.flow.disks import MIB, blank, ext_files, gpt_disk, partition_file, put_ext, run
from tests.flow.servers_s3 import BUCKET, VARIABLES, S3Server, moto, relay, s3rver

ROOT = (67584 * 512, 262144 * 512)
#: Tries that are over quickly; the shape is the real one.
QUICK = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=20), "max_backoff": timedelta(milliseconds=100), "base": 2},
}


@pytest.fixture(scope="session")
def moto_process() -> Iterator[S3Server]:
    with moto() as found:
        yield found


@pytest.fixture
def server(moto_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    return use(moto_process, monkeypatch)


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The environment as a person would set it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    return server


@pytest.fixture
def backend(server: S3Server, tmp_path: Path) -> S3Backend:
    return S3Backend(parse_address(server.address(tmp_path.name)), retry=QUICK)


def take(disk: Path, address: str, sink=ignore) -> CaptureResult:  # type: ignore[no-untyped-def]
    return capture_disks([disk], address, name="", runner=SystemRunner(), sink=sink)


def restore(address: str, point: str, target: Path) -> None:
    runner = SystemRunner()
    plan = plan_restore(address, point, [target], RestoreChoices(), runner)
    run_plan(plan, plan.digest, runner, ignore)


def check(repository: Repository) -> int:
    """Every chunk of every recovery point is read and proven. Returns how many points there are."""
    points, problems = repository.read_points()
    assert not problems
    for point in points:
        manifest = repository.manifest(point.id)
        survey_chunks(repository, point.id, manifest)
        for volume in manifest.volumes:
            for slot in repository.slots(volume, "check"):
                if slot.id is not None:
                    repository.read_chunk(slot.id, "check")
    return len(points)


def noise(path: Path, mebibytes: int, seed: int = 5) -> Path:
    """A disk that cannot be compressed: one partition with nothing that liferaft knows, so that all of it is kept."""
    path.write_bytes(random.Random(seed).randbytes(mebibytes * MIB))
    run("sfdisk", "-q", "--wipe", "never", path, stdin="label: dos\nstart=2048,type=da\n")
    return path


def road(server: S3Server, tmp_path: Path, tree: Path) -> None:
    address = server.address(f"{tmp_path.name}/größe+1")
    first = gpt_disk(tmp_path / "first.img", tree)
    one = take(first, address)
    assert check(open_repository(address)) == 1
    again = take(first, address)
    assert (again.new_records, again.stored) == (0, 0)
    put_ext(first, *ROOT, tree / "etc")
    changed = take(first, address)
    assert 0 < changed.stored < one.stored
    assert check(open_repository(address)) == 3
    target = blank(tmp_path / "target.img", 200 * MIB)
    restore(address, changed.id, target)
    assert ext_files(partition_file(target, *ROOT)) == ext_files(partition_file(first, *ROOT))
    names = server.names(f"{tmp_path.name}/größe+1")
    assert len([name for name in names if name.endswith(".pack")]) == 2


def test_the_whole_road(server: S3Server, tmp_path: Path, tree: Path) -> None:
    road(server, tmp_path, tree)
    assert not server.uploads(tmp_path.name)


def test_the_whole_road_with_another_server(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3rver(tmp_path / "objects") as server:
        road(use(server, monkeypatch), tmp_path, tree)


def test_a_server_that_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own process, with its objects on the disk: the capture waits for it, or goes on the next time."""
    with s3rver(tmp_path / "objects") as server:
        use(server, monkeypatch)
        disk = noise(tmp_path / "disk.img", 64)
        starting: list[threading.Timer] = []

        def kill(event: Event) -> None:
            if event.stage is Stage.CAPTURE and event.done > 24 * MIB and not starting:
                starting.append(threading.Timer(1.0, server.start))
                server.kill()
                starting[0].start()

        try:
            take(disk, server.address("r"), kill)
        except LiferaftError:
            # It has forgotten the parts that it had: then the pack is lost, and nothing else.
            starting[0].join()
            take(disk, server.address("r"))
        assert starting
        assert check(open_repository(server.address("r"))) == 1


def test_the_endpoint_comes_from_the_environment(
    server: S3Server, backend: S3Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.write("there", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    found = connect(f"s3://{BUCKET}/{backend.location.rpartition('/')[2]}")
    assert found.read("there", 1) == b"x"


def test_what_a_backend_promises(server: S3Server, backend: S3Backend) -> None:
    assert isinstance(backend, Writer)
    folder = backend.location.rpartition("/")[2]
    assert (backend.foreign(), backend.list("a"), backend.sizes("a"), backend.leftovers()) == ("", (), {}, ())
    # What a console makes for an empty folder is not a file of somebody else's.
    server.client().put_object(Bucket=BUCKET, Key=f"{folder}/", Body=b"")
    assert backend.foreign() == ""
    backend.write("a/2.json", b"two")
    backend.write("a/1.json", b"first")
    backend.write("a/1.json", b"one")
    backend.write("a/b/3.pack", bytes(range(256)))
    backend.write("a/4.json.partial", b"what lies in no folder of a repository is somebody else's")
    backend.write("keys/5.json.partial", b"copied from a folder by some other tool")
    assert backend.read("a/1.json", 3) == b"one"
    assert backend.read_range("a/b/3.pack", 250, 6) == bytes(range(250, 256))
    assert backend.list("a") == ("1.json", "2.json", "b")
    assert backend.sizes("a") == {"a/1.json": 3, "a/2.json": 3, "a/b/3.pack": 256}
    assert (backend.foreign(), backend.leftovers()) == ("a", ("keys/5.json.partial",))
    assert (backend.exists("a/1.json"), backend.exists("a/9.json"), backend.size("a/2.json")) == (True, False, 3)
    backend.remove("a/1.json")
    backend.remove("a/1.json")
    assert not backend.exists("a/1.json")


@pytest.mark.parametrize("act", [lambda b: b.read("no", 1), lambda b: b.read_range("no", 0, 1), lambda b: b.size("no")])
def test_missing_is_not_damaged(backend: S3Backend, act) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MissingFileError, match=r"/no is missing"):
        act(backend)


@pytest.mark.parametrize("offset", [1, 3, 100])
def test_a_range_that_is_not_all_there(backend: S3Backend, offset: int) -> None:
    backend.write("short", b"abc")
    with pytest.raises(DamagedError, match="truncated"):
        backend.read_range("short", offset, 4)


def test_a_file_that_is_too_large(backend: S3Backend) -> None:
    backend.write("large", bytes(11))
    with pytest.raises(LiferaftError, match="larger than the 10 bytes"):
        backend.read("large", 10)


def test_only_one_can_be_first(backend: S3Backend) -> None:
    """Eight writers at once; the server decides, and everybody is told the truth."""
    wins: list[bytes] = []
    gate = threading.Barrier(8)

    def race(content: bytes) -> None:
        gate.wait()
        if backend.write_new("one", content):
            wins.append(content)

    threads = [threading.Thread(target=race, args=(b"writer %d" % number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins == [backend.read("one", 100)]
    assert not backend.write_new("one", b"late")


def test_an_upload_appears_whole_or_not_at_all(server: S3Server, backend: S3Backend, tmp_path: Path) -> None:
    pieces = [random.Random(number).randbytes(MIB + number) for number in range(20)]
    with backend.create("packs/aa/good.pack") as file:
        for piece in pieces:
            file.write(piece)
            assert not backend.exists("packs/aa/good.pack")
        assert file.tell() == sum(map(len, pieces))
    stored = server.client().get_object(Bucket=BUCKET, Key=f"{backend.location.rpartition('/')[2]}/packs/aa/good.pack")
    assert stored["Body"].read() == b"".join(pieces)
    with pytest.raises(KeyboardInterrupt), backend.create("packs/aa/bad.pack") as file:
        for piece in pieces:
            file.write(piece)
        # Part of it has reached the server by now.
        assert file.tell() and server.uploads(tmp_path.name)
        raise KeyboardInterrupt
    assert backend.list("packs/aa") == ("good.pack",)
    assert not server.uploads(tmp_path.name)


def test_an_upload_that_the_server_refuses(server: S3Server) -> None:
    backend = S3Backend(parse_address(server.address("x").replace(BUCKET, "nobucket")), retry=QUICK)
    with pytest.raises(UnreachableError, match="no bucket nobucket"), backend.create("packs/aa/1.pack") as file:
        for _ in range(64):
            file.write(bytes(MIB))


def test_credentials_that_are_wrong(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    with pytest.raises(RefusedError, match=r"refused: SignatureDoesNotMatch") as caught:
        take(noise(tmp_path / "disk.img", 3), server.address("r"))
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(RefusedError, match="InvalidAccessKeyId"):
        open_repository(server.address("r"))


def test_no_credentials(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="Missing AccessKeyId"):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        connect(server.address("r"))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # The place where a machine in Amazon's cloud would ask; here nobody answers.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match="no credentials"):
        S3Backend(parse_address(server.address("r")), retry=QUICK).read("liferaft.json", 1)


def test_credentials_in_the_address_are_shown_nowhere(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    login = f"{server.key}:{server.secret.replace('/', '%2F').replace('+', '%2B')}@"
    address = server.address(tmp_path.name).replace("://", f"://{login}")
    backend = connect(address)
    assert isinstance(backend, S3Backend)
    backend.write("there", b"x")
    assert backend.location == server.address(tmp_path.name)
    with pytest.raises(MissingFileError) as missing:
        backend.read("gone", 1)
    assert server.secret not in missing.value.message + repr(backend)
    with pytest.raises(UsageError) as caught:
        connect("s3://key:se/cr@et/bucket/x")
    assert "cr@et" not in caught.value.message + caught.value.hint


def test_no_bucket(server: S3Server, tmp_path: Path) -> None:
    address = server.address("r").replace(BUCKET, "nobucket")
    with pytest.raises(UnreachableError, match="no bucket nobucket"):
        open_repository(address)
    with pytest.raises(UnreachableError, match="no bucket nobucket"):
        take(noise(tmp_path / "disk.img", 3), address)


def test_a_folder_of_somebody_else(server: S3Server, backend: S3Backend, tmp_path: Path) -> None:
    backend.write("holiday.jpg", b"x")
    with pytest.raises(RefusedError, match=r"holds holiday\.jpg"):
        take(noise(tmp_path / "disk.img", 3), backend.location)
    with pytest.raises(RefusedError, match="not a liferaft repository"):
        open_repository(backend.location)


def test_no_server() -> None:
    backend = S3Backend(parse_address("s3+http://key:secret@127.0.0.1:9/bucket/r"), retry=QUICK)
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9/bucket/r/liferaft\.json .* connection refused"):
        backend.read("liferaft.json", 1)


def test_damage_has_its_address(server: S3Server, tmp_path: Path) -> None:
    address = server.address(tmp_path.name)
    take(noise(tmp_path / "disk.img", 4), address)
    client = server.client()
    key = next(name for name in server.names(tmp_path.name) if name.endswith(".pack"))
    pack = bytearray(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    pack[2 * MIB] ^= 1
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(pack))
    target = blank(tmp_path / "target.img", 4 * MIB)
    with pytest.raises(DamagedError, match=r"LBA \d+ to \d+: packs/.*\.pack, offset \d+"):
        restore(address, "latest", target)
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(pack[:-1]))
    with pytest.raises(DamagedError, match="truncated or altered"):
        restore(address, "latest", target)
    client.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(DamagedError, match="is missing"):
        restore(address, "latest", target)
    # The next capture stores it again.
    assert take(tmp_path / "disk.img", address).stored > 4 * MIB
    assert check(open_repository(address)) == 2


def test_a_wire_that_is_cut_for_a_moment(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.store.s3._RETRY", QUICK | {"max_retries": 100})
    disk = noise(tmp_path / "disk.img", 30)
    with relay(server) as wire:
        wire.cut(after=12 * MIB, lasting=0.7)
        take(disk, server.address(tmp_path.name, wire.port))
        assert wire.cuts == 1
    assert check(open_repository(server.address(tmp_path.name))) == 1
    assert not server.uploads(tmp_path.name)


def test_a_wire_that_stays_cut(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The capture ends with the reason; what was complete stays, and the same command goes on."""
    monkeypatch.setattr("images.store.s3._RETRY", QUICK)
    monkeypatch.setattr("images.store.writer.PACK_SIZE_LIMIT", 9 * MIB)
    disk = noise(tmp_path / "disk.img", 30)
    with relay(server) as wire:
        address = server.address(tmp_path.name, wire.port)
        wire.cut(after=20 * MIB)
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="cannot be reached"):
            take(disk, address)
        assert wire.cuts == 1 and time.monotonic() - began < 60
        wire.mend()
        complete = [name for name in server.names(tmp_path.name) if name.endswith(".pack")]
        assert 0 < len(complete) < 4
        assert open_repository(address).points() == ()
        take(disk, address)
        assert check(open_repository(address)) == 1


def test_a_list_is_whole_or_an_error(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wire that breaks while manifests are read must not make a shorter list: the catalogue is made from it."""
    monkeypatch.setattr("images.store.s3._RETRY", QUICK)
    disk = noise(tmp_path / "disk.img", 3)
    take(disk, server.address(tmp_path.name))
    with relay(server) as wire:
        repository = open_repository(server.address(tmp_path.name, wire.port))
        assert len(repository.points()) == 1
        read = repository.backend.read

        def cut(name: str, limit: int) -> bytes:
            wire.cut()
            return read(name, limit)

        monkeypatch.setattr(repository.backend, "read", cut)
        with pytest.raises(UnreachableError):
            repository.points()


def test_ctrl_c_keeps_what_is_there(server: S3Server, tmp_path: Path) -> None:
    disk = noise(tmp_path / "disk.img", 32)
    address = server.address(tmp_path.name)

    def stop(event: Event) -> None:
        if event.stage is Stage.CAPTURE and event.done > 16 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(disk, address, stop)
    assert not server.uploads(tmp_path.name)
    again = take(disk, address)
    assert again.stored < 20 * MIB
    assert check(open_repository(address)) == 1


@pytest.mark.parametrize(
    "address",
    [
        "s3://", "s3:///x", "s3://b", "s3://a b/x", "s3://host:9000/bucket/x", "s3://bucket/a//b", "s3://bucket/../x",
        "s3+http://", "s3+http://host", "s3+http://host/", "s3+https://host:port/bucket", "s3+http://a b/bucket/x",
    ],
)  # fmt: skip
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError, match="The S3 address"):
        connect(address)


def test_the_parts_of_an_address() -> None:
    plain = parse_address("s3://bucket/a b/c/")
    assert (plain.shown, plain.endpoint, plain.bucket, plain.prefix) == ("s3://bucket/a b/c", "", "bucket", "a b/c")
    own = parse_address("s3+https://AK:s%2Fec%2Bret@[::1]:9000/bucket")
    assert (own.shown, own.endpoint) == ("s3+https://[::1]:9000/bucket", "https://[::1]:9000")
    assert (own.bucket, own.prefix, own.key, own.secret) == ("bucket", "", "AK", "s/ec+ret")


def test_everything_that_keeps_a_repository(server: S3Server, tmp_path: Path, tree: Path) -> None:
    """Encrypted, with parity, from init to repair, as a person calls them."""
    address = server.address(tmp_path.name)
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)

    def call(*words: str | Path, code: int = 0) -> str:
        arguments = [str(word) for word in (*words, "--passphrase-file", secret)]
        done = CliRunner().invoke(cli, arguments, standalone_mode=False)
        assert done.exception is None and int(done.return_value or 0) == code, (words, done.output, done.exception)
        return done.stdout

    call("init", address, "--encrypt", "--parity", "2")
    disk = gpt_disk(tmp_path / "disk.img", tree)
    call("capture", disk, "--repo", address)
    put_ext(disk, *ROOT, tree / "etc")
    call("capture", disk, "--repo", address)
    call("forget", "--keep-last", "1", "--repo", address)
    call("prune", "--repo", address)
    call("rebuild-index", "--repo", address)
    assert "file59" in call("ls", "latest:disk0-part2/", "--repo", address)
    client = server.client()
    key = next(name for name in server.names(tmp_path.name) if name.endswith(".pack"))
    pack = bytearray(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    good = bytes(pack)
    pack[len(pack) // 2] ^= 1
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(pack))
    call("check", "--data", "--repair", "--repo", address, code=int(ExitCode.WARNINGS))
    assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == good
    call("check", "--data", "--repo", address)
    assert not [name for name in server.names(tmp_path.name) if "/locks/" in name]
