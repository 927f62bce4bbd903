"""Restore over HTTP: from a server with ranges, and from servers that misbehave."""

import email.utils
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.documents import encode_readable
from core.errors import DamagedError, DeviceError, ExitCode, LiferaftError, RefusedError, UnreachableError, UsageError
from core.events import Event, Stage, ignore
from core.process import SystemRunner
from images.capture import CaptureResult
from images.store.backend import MissingFileError
from images.store.http import HttpBackend, fetch, post
from images.store.repository import Repository
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.execute import execute
from tests.flow.disks import MIB, blank, ext_files, gpt_disk, need, partition_file, run
from tests.flow.servers import by_map, nginx, serving

Capture = Callable[[Path], CaptureResult]
ROOT = (67584 * 512, 262144 * 512)


@pytest.fixture
def disk(tmp_path: Path, tree: Path, capture: Capture) -> Path:
    disk = gpt_disk(tmp_path / "source.img", tree)
    capture(disk)
    return disk


def _restore(url: str, target: Path) -> None:
    runner = SystemRunner()
    plan = plan_restore(url, "latest", [target], RestoreChoices(), runner)
    run_plan(plan, plan.digest, runner, ignore)


def test_without_listing_folders(disk: Path, tmp_path: Path) -> None:
    target = blank(tmp_path / "target.img", 200 * MIB)
    with serving(tmp_path / "repo") as server:
        _restore(server.url, target)
        packs = [path for method, path in server.requests if method == "GET" and "/packs/" in path]
    assert ext_files(partition_file(target, *ROOT)) == ext_files(partition_file(disk, *ROOT))
    # Neighbouring records are fetched together: far fewer requests than the 50 chunks there are.
    assert len(packs) < 40


def test_faults_that_pass_are_tried_again(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.store.http.time.sleep", lambda seconds: None)
    target = blank(tmp_path / "target.img", 200 * MIB)
    faults = ["drop", "500", "short", "", "short", "drop", ""]
    with serving(tmp_path / "repo") as server:
        server.fault = lambda method, path, before: faults[before % len(faults)] if method == "GET" else ""
        _restore(server.url, target)
    assert ext_files(partition_file(target, *ROOT)) == ext_files(partition_file(disk, *ROOT))


def test_wrong_bytes_are_never_written(disk: Path, tmp_path: Path) -> None:
    target = blank(tmp_path / "target.img", 200 * MIB)
    with serving(tmp_path / "repo") as server:
        server.fault = lambda method, path, before: "flip" if "/packs/" in path and method == "GET" else ""
        with pytest.raises(DamagedError, match=r"LBA|volume"):
            _restore(server.url, target)


def test_a_server_without_ranges_is_named(disk: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "repo", ranges=False) as server:
        with pytest.raises(DeviceError, match="does not answer range requests"):
            _restore(server.url, blank(tmp_path / "target.img", 200 * MIB))


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("images.store.http.time.sleep", pauses.append)
    with pytest.raises(UnreachableError, match="connection refused"):
        Repository(HttpBackend("http://127.0.0.1:9/repo"))
    assert pauses == sorted(pauses)
    assert len(pauses) == 6


def test_a_folder_that_is_no_repository(tmp_path: Path) -> None:
    with serving(tmp_path) as server, pytest.raises(RefusedError, match=r"no liferaft\.json"):
        Repository(HttpBackend(server.url))


def test_http_is_read_only(disk: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "repo") as server, pytest.raises(RefusedError, match="read-only"):
        capture_disks([disk], server.url, name="", runner=SystemRunner(), sink=ignore)


def test_documents_are_fetched_and_reports_posted(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(b"{}")
    with serving(tmp_path) as server:
        assert fetch(f"{server.url}/job.json", 100) == b"{}"
        with pytest.raises(LiferaftError, match="larger than"):
            fetch(f"{server.url}/job.json", 1)
        post(f"{server.url}/report", b"[1]")
        assert server.posted == [b"[1]"]


def test_a_password_in_the_address_reaches_no_plan_and_no_error(disk: Path, tmp_path: Path) -> None:
    runner = SystemRunner()
    with serving(tmp_path / "repo") as server:
        address = server.url.replace("http://", "http://user:hunter2@")
        target = blank(tmp_path / "target.img", 200 * MIB)
        plan = plan_restore(address, "latest", [target], RestoreChoices(), runner)
        run_plan(plan, plan.digest, runner, ignore, repository=address)
    assert "hunter2" not in encode_readable(plan)
    with pytest.raises(UnreachableError) as caught:
        HttpBackend("http://user:hunter2@127.0.0.1:9/x", pauses=()).read("liferaft.json", 1)
    assert "hunter2" not in caught.value.message


def test_a_server_that_dies_half_way_is_no_refusal(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3 promises that nothing was written; by then the target is wiped."""
    monkeypatch.setattr("images.store.http.time.sleep", lambda seconds: None)
    with serving(tmp_path / "repo") as server:
        runner = SystemRunner()
        plan = plan_restore(server.url, "latest", [blank(tmp_path / "t.img", 200 * MIB)], RestoreChoices(), runner)
        repository = Repository(HttpBackend(server.url))

        def dead(event: Event) -> None:
            if event.stage is Stage.STREAM:
                server.fault = lambda method, path, before: "drop"

        with pytest.raises(LiferaftError, match="stopped half-way") as caught:
            execute(plan, plan.digest, repository, runner, dead)
    assert caught.value.code is ExitCode.FAILED


def test_a_missing_catalogue_is_not_an_empty_repository(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "repo" / "catalogue.json").unlink()
    with serving(tmp_path / "repo") as server, pytest.raises(DamagedError, match=r"catalogue\.json"):
        Repository(HttpBackend(server.url)).points()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits; what would have been waited is noted, in seconds."""
    noted: list[float] = []
    monkeypatch.setattr("images.store.http.time.sleep", noted.append)
    return noted


@pytest.fixture
def big(tmp_path: Path) -> bytes:
    """``www/packs/big`` of 3 MiB and a bit."""
    content = random.Random(3).randbytes(3 * MIB + 77)
    (tmp_path / "www" / "packs").mkdir(parents=True)
    (tmp_path / "www" / "packs" / "big").write_bytes(content)
    return content


@pytest.mark.parametrize("fault", ["drop", "500", "503 1", "429", "408", "short"])
@pytest.mark.parametrize("letters", ["E", "RE", "RRRE", "EE", "EEEEEE"])
def test_a_map_of_faults(tmp_path: Path, big: bytes, pauses: list[float], letters: str, fault: str) -> None:
    with serving(tmp_path / "www") as server:
        server.fault = by_map(letters, fault)
        backend = HttpBackend(server.url)
        found = [backend.read_range("packs/big", at, 100_000) for at in range(0, 400_000, 100_000)]
        assert b"".join(found) == big[:400_000]
        assert len(server.requests) == 4 + letters.count("E")
        assert len(pauses) == letters.count("E")


def test_what_arrived_is_not_asked_for_again(tmp_path: Path, big: bytes, pauses: list[float]) -> None:
    """A body that breaks off after each mebibyte: the whole costs little more than itself."""
    with serving(tmp_path / "www") as server:
        server.fault = by_map("EEE", f"cut {MIB}")
        assert HttpBackend(server.url).read_range("packs/big", 5, 3 * MIB) == big[5 : 5 + 3 * MIB]
        assert server.sent <= 3 * MIB + 3 * 256 * 1024
        asked = [headers["Range"] for headers in server.headers]
        assert asked[0] == f"bytes=5-{3 * MIB + 4}"
        assert all(words.endswith(f"-{3 * MIB + 4}") for words in asked)
        server.requests.clear()
        server.sent = 0
        assert HttpBackend(server.url).read("packs/big", 4 * MIB) == big
        assert server.sent <= len(big) + 3 * 256 * 1024


def test_a_file_that_changes_between_two_tries(tmp_path: Path, big: bytes, pauses: list[float]) -> None:
    """A catalogue is replaced while it is read: never the head of one and the tail of the other."""
    other = bytes(reversed(big))

    def fault(method: str, path: str, before: int) -> str:
        if before == 1:
            (tmp_path / "www" / "packs" / "big").write_bytes(other)
        return f"cut {MIB}" if before == 0 else ""

    with serving(tmp_path / "www") as server:
        server.fault = fault
        assert HttpBackend(server.url).read("packs/big", 4 * MIB) == other


def test_a_body_that_trickles_has_an_end(
    tmp_path: Path, big: bytes, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("images.store.http._PIECE", 1)
    with serving(tmp_path / "www") as server:
        server.fault = lambda method, path, before: "cut 1"
        with pytest.raises(UnreachableError, match="64 requests brought"):
            HttpBackend(server.url).read("packs/big", 4 * MIB)
        assert len(server.requests) == 64


def test_the_server_says_how_long_to_wait(tmp_path: Path, big: bytes, pauses: list[float]) -> None:
    with serving(tmp_path / "www") as server:
        server.fault = by_map("EE", "503 7")
        HttpBackend(server.url).size("packs/big")
        assert pauses == [7.0, 7.0]
        pauses.clear()
        server.requests.clear()
        later = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
        server.fault = by_map("E", f"429 {later}")
        HttpBackend(server.url).size("packs/big")
        assert 15 < pauses[0] <= 20
        pauses.clear()
        server.fault = lambda method, path, before: "503 86400"
        with pytest.raises(UnreachableError, match="status 503"):
            HttpBackend(server.url).size("packs/big")
        assert max(pauses) <= 60
        assert sum(pauses) <= 60 * 6


def test_patience_is_bounded(tmp_path: Path, big: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the pauses that the server asks for: no try begins after three minutes without a byte."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("images.store.http.time.sleep", sleep)
    monkeypatch.setattr("images.store.http.time.monotonic", lambda: clock[0])
    with serving(tmp_path / "www") as server:
        server.fault = lambda method, path, before: "503 59"
        with pytest.raises(UnreachableError):
            HttpBackend(server.url).read("packs/big", 4 * MIB)
    assert 100 < clock[0] <= 180


def test_threads_keep_their_connections(tmp_path: Path, big: bytes) -> None:
    """Three pools of four threads, one after the other, as the volumes of a restore: four connections."""
    with serving(tmp_path / "www") as server:
        backend = HttpBackend(server.url)
        for _ in range(3):
            with ThreadPoolExecutor(4) as pool:
                jobs = [pool.submit(backend.read_range, "packs/big", at, 50_000) for at in range(0, 2_000_000, 50_000)]
                assert b"".join(job.result() for job in jobs) == big[:2_000_000]
        assert len(server.requests) == 120
        assert server.connections <= 4


def test_a_missing_file_costs_no_connection(tmp_path: Path, big: bytes) -> None:
    with serving(tmp_path / "www") as server:
        backend = HttpBackend(server.url)
        for _ in range(5):
            with pytest.raises(MissingFileError):
                backend.read("manifests/gone.sig", 100)
            backend.size("packs/big")
        assert server.connections == 1


def test_a_truncated_file_is_damage_and_not_a_fault_that_passes(tmp_path: Path, big: bytes) -> None:
    with serving(tmp_path / "www") as server:
        backend = HttpBackend(server.url)
        with pytest.raises(DamagedError, match=f"ends at {len(big)}, expected {len(big) + 1}"):
            backend.read_range("packs/big", 10, len(big) - 9)
        with pytest.raises(DamagedError, match="truncated"):
            backend.read_range("packs/big", len(big), 10)
        assert len(server.requests) == 2


def test_a_redirect_takes_no_password_along(tmp_path: Path, big: bytes) -> None:
    with serving(tmp_path / "www") as mirror, serving(tmp_path / "www") as server:
        server.password = "Basic dXNlcjpodW50ZXIy"
        address = server.url.replace("http://", "http://user:hunter2@")
        assert HttpBackend(address).size("packs/big") == len(big)
        with pytest.raises(UnreachableError, match="status 401"):
            HttpBackend(server.url).size("packs/big")
        server.redirect = mirror.url
        assert HttpBackend(address).read_range("packs/big", 0, 10) == big[:10]
        assert server.headers[-1]["Authorization"] == server.password
        assert mirror.requests == [("GET", "/packs/big")]
        assert mirror.headers[0]["Authorization"] is None
        server.redirect = server.url
        with pytest.raises(UnreachableError, match="in a circle"):
            HttpBackend(address, pauses=()).size("packs/big")


def test_a_proxy_from_the_environment(tmp_path: Path, big: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "www") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert HttpBackend("http://repository.invalid").size("packs/big") == len(big)
        assert proxy.requests == [("HEAD", "http://repository.invalid/packs/big")]


def test_certificates_are_checked(tmp_path: Path, big: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    need("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate,
    )  # fmt: skip
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    with serving(tmp_path / "www", tls=(certificate, key)) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(UnreachableError, match=r"cannot be trusted: self.signed certificate") as caught:
            HttpBackend(url).size("packs/big")
        assert "REQUESTS_CA_BUNDLE" in caught.value.hint
        assert not server.requests
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert HttpBackend(url).read("packs/big", 4 * MIB) == big
        with serving(tmp_path / "www") as plain:
            server.redirect = plain.url
            with pytest.raises(UnreachableError, match="not encrypted"):
                HttpBackend(url).size("packs/big")
            server.redirect = ""
        # The certificate is good, and for another name.
        with pytest.raises(UnreachableError, match="cannot be trusted"):
            HttpBackend(url.replace("localhost", "127.0.0.1")).size("packs/big")


def test_a_report_that_is_refused_is_not_sent_again(tmp_path: Path, pauses: list[float]) -> None:
    with serving(tmp_path) as server:
        server.fault = lambda method, path, before: "403"
        with pytest.raises(UnreachableError, match="status 403"):
            post(f"{server.url}/report", b"[1]")
        assert len(server.requests) == 1
        server.fault = by_map("REE", "503")
        post(f"{server.url}/report", b"[2]")
        assert server.posted == [b"[2]"]


def test_no_url_at_all() -> None:
    with pytest.raises(UsageError, match="not a URL"):
        fetch("http://[/x", 1)


def test_the_whole_road_with_nginx(disk: Path, tmp_path: Path) -> None:
    need("nginx")
    target = blank(tmp_path / "target.img", 200 * MIB)
    with nginx(tmp_path / "repo", tmp_path / "nginx") as url:
        _restore(url, target)
        pack = next((tmp_path / "repo" / "packs").rglob("*.pack"))
        backend = HttpBackend(url)
        name = pack.relative_to(tmp_path / "repo").as_posix()
        size = pack.stat().st_size
        assert backend.read_range(name, size - 100, 100) == pack.read_bytes()[-100:]
        with pytest.raises(DamagedError, match=f"ends at {size}"):
            backend.read_range(name, size - 100, 101)
        with pytest.raises(DamagedError, match="truncated"):
            backend.read_range(name, size, 1)
        with pytest.raises(MissingFileError):
            backend.size("packs/gone")
    assert ext_files(partition_file(target, *ROOT)) == ext_files(partition_file(disk, *ROOT))
