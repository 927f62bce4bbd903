"""Restore over HTTP: from a server with ranges, and from servers that misbehave."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.documents import encode_readable
from core.errors import DamagedError, DeviceError, ExitCode, LiferaftError, RefusedError, UnreachableError
from core.events import Event, Stage, ignore
from core.process import SystemRunner
from images.capture import CaptureResult
from images.store.http import HttpBackend, fetch, post
from images.store.repository import Repository
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.execute import execute
from tests.flow.disks import MIB, blank, ext_files, gpt_disk, partition_file
from tests.flow.servers import serving

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
