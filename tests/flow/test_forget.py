"""Forget removes what was named or what no rule keeps, per machine, and says why the others stay."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from core.documents import encode
from core.errors import UsageError
from core.events import ignore
from images.model.manifest import Manifest
from images.store.forget import ForgetResult, GroupBy
from images.store.records import chunk_id
from images.store.retention import Policy
from images.store.writer import write_catalogue
from rescue.jobs.forget import forget_points
from tests.flow.sealed import flip
from tests.flow.small import make, noise_disk, opened, restored, take
from tests.flow.test_check import run as run_check

BOTH = (GroupBy.HOST, GroupBy.DISKS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two machines, five days each, the second one's last months ago; made from one capture by other dates."""
    folder = make(tmp_path / "repo")
    first = take(folder, noise_disk(tmp_path / "disk.img", mebibytes=2))
    manifest = opened(folder).manifest(first)
    for host, month in (("mars", 11), ("venus", 3)):
        for day in range(1, 6):
            _plant(folder, manifest, f"{host}-{day}", f"2026-{month:02}-{day:02}T03:00:00+00:00", f"{host}: /dev/x")
    (folder / "manifests" / f"{first}.json").unlink()
    write_catalogue(opened(folder))
    return folder


def _plant(folder: Path, manifest: Manifest, name: str, created: str, origin: str) -> None:
    data = encode(msgspec.structs.replace(manifest, name=name, created=created, origin=origin))
    (folder / "manifests" / f"{chunk_id(data).hex()}.json").write_bytes(data)


def run(
    folder: Path, policy: Policy, *points: str, dry_run: bool = False, grouping: tuple[GroupBy, ...] = BOTH
) -> ForgetResult:
    return forget_points(str(folder), points, policy, grouping=grouping, may_empty=False, dry_run=dry_run, sink=ignore)


def names(folder: Path) -> set[str]:
    return {point.name for point in opened(folder).points()}


def test_each_machine_has_its_own_history(folder: Path) -> None:
    result = run(folder, Policy(daily=2))
    assert names(folder) == {"mars-5", "mars-4", "venus-5", "venus-4"}
    assert len(result.removed) == 6
    assert {point.reasons for point in result.points} == {("daily",), ()}
    assert {point.group for point in result.points} == {"mars, /dev/x", "venus, /dev/x"}
    catalogue = json.loads((folder / "catalogue.json").read_bytes())
    assert {point["name"] for point in catalogue["points"]} == names(folder)


def test_as_one_history(folder: Path) -> None:
    run(folder, Policy(daily=2), grouping=())
    assert names(folder) == {"mars-5", "mars-4"}


def test_dry_run_changes_nothing(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(run(folder, Policy(last=1), dry_run=True).removed) == 8
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_last_one_of_a_machine_stays(folder: Path) -> None:
    run(folder, Policy(names=("nothing is named so",)))
    assert names(folder) == {"mars-5", "venus-5"}


def test_by_name_or_id(folder: Path) -> None:
    repository = opened(folder)
    victim = repository.points()[0]
    run(folder, Policy(), victim.id[:12], "mars-3")
    assert victim.name not in names(folder)
    assert "mars-3" not in names(folder)
    assert len(names(folder)) == 8


def test_what_is_left_restores(folder: Path, tmp_path: Path) -> None:
    run(folder, Policy(last=1))
    for point in opened(folder).points():
        assert restored(opened(folder), point.id) == (tmp_path / "disk.img").read_bytes()
    assert run_check(folder).damages == ()


def test_a_damaged_recovery_point_is_kept_by_rules_and_removed_by_name(folder: Path) -> None:
    victim = opened(folder).points()[-1]
    flip(folder / "manifests" / f"{victim.id}.json", 30)
    result = run(folder, Policy(last=1))
    assert any(victim.id in warning for warning in result.warnings)
    assert (folder / "manifests" / f"{victim.id}.json").exists()
    run(folder, Policy(), victim.id[:16])
    assert not (folder / "manifests" / f"{victim.id}.json").exists()


def test_the_signature_goes_too(folder: Path) -> None:
    victim = opened(folder).points()[0]
    signature = folder / "manifests" / f"{victim.id}.sig"
    signature.write_bytes(b"{}")
    run(folder, Policy(), victim.id)
    assert not signature.exists()


def test_neither_and_both(folder: Path) -> None:
    with pytest.raises(UsageError, match="rules"):
        run(folder, Policy())
    with pytest.raises(UsageError, match="mix"):
        run(folder, Policy(last=1), "mars-1")
    with pytest.raises(UsageError, match="No recovery point"):
        run(folder, Policy(), "jupiter")
    assert len(names(folder)) == 10


def test_the_command(folder: Path) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from rescue.cli.main import main; main()", "forget", "--repo", str(folder)]
        return subprocess.run([*command, *words], capture_output=True, text=True, cwd=Path(__file__).parents[2])

    done = call("--keep-last", "1", "--keep-name", "venus-1", "--dry-run")
    assert done.returncode == 0
    assert "keep    named venus-1" in done.stdout
    assert "7 of 10 recovery points would be removed" in done.stdout
    assert call("--keep-last", "some").returncode == 2
    assert call("--group-by", "moon", "--keep-last", "1").returncode == 2
    assert call("--keep-daily", "all").returncode == 0
    assert len(names(folder)) == 10
    done = call("--keep-within", "1d", "--json")
    assert len(json.loads(done.stdout)["removed"]) == 8
