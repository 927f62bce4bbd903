"""Copies restore to the same bytes; only what is missing travels."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import DeviceError, RefusedError, UsageError
from core.events import ignore
from images.store.backend import LocalBackend
from images.store.check import Depth, check
from images.store.copy import CopyResult, copy_points
from images.store.create import create_repository
from images.store.passphrase import Passphrase
from images.store.repository import Repository
from images.store.signature import new_signing_key, read_public_key, read_signing_key
from rescue.jobs.copy import copy_repository
from tests.flow.sealed import flip, records
from tests.flow.servers import serving
from tests.flow.small import CHUNK, WORDS, access, make, noise_disk, opened, restored, take
from tests.flow.test_check import chunk_record


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Disks, and the same two recovery points in a plain and in an encrypted repository."""
    base = tmp_path_factory.mktemp("base")
    noise_disk(base / "one.img", mebibytes=2)
    noise_disk(base / "two.img", mebibytes=2, changed=(3, 4))
    for kind in ("plain", "sealed"):
        folder = make(base / kind, encrypted=kind == "sealed")
        for name in ("one", "two"):
            take(folder, base / f"{name}.img", name, encrypted=kind == "sealed")
    return base


def run(source: str, target: Path, *points: str, everything: bool = False, decrypt: bool = False) -> CopyResult:
    return copy_repository(
        source,
        str(target),
        points,
        everything=everything,
        decrypt=decrypt,
        sink=ignore,
        access=access(encrypted=source.endswith("sealed")),
        target_access=access(encrypted=target.name == "sealed"),
    )


def holds(folder: Path, base: Path, *names: str) -> None:
    """Exactly these recovery points, whole, and nothing damaged."""
    repository = opened(folder, encrypted=folder.name == "sealed")
    points = {point.name: point.id for point in repository.points()}
    assert sorted(points) == sorted(names)
    for name in names:
        assert restored(repository, points[name]) == (base / f"{name}.img").read_bytes()
    assert check(repository, Depth(data=True), sink=ignore).damages == ()


@pytest.mark.parametrize("source", ["plain", "sealed"])
@pytest.mark.parametrize("target", ["plain", "sealed"])
def test_every_way(tmp_path: Path, base: Path, source: str, target: str) -> None:
    folder = make(tmp_path / target, encrypted=target == "sealed")
    result = run(str(base / source), folder, everything=True, decrypt=True)
    assert [point.problem for point in result.points] == ["", ""]
    assert result.same is (source == target == "plain")
    holds(folder, base, "one", "two")
    again = run(str(base / source), folder, everything=True, decrypt=True)
    assert (again.records, [point.already for point in again.points]) == (0, [True, True])
    holds(folder, base, "one", "two")


def test_plain_records_and_manifests_stay_what_they_are(tmp_path: Path, base: Path) -> None:
    target = tmp_path / "target"
    run(str(base / "plain"), target, "two")
    ids = {point.id for point in opened(base / "plain").points() if point.name == "two"}
    assert {path.stem for path in (target / "manifests").iterdir()} == ids
    (identifier,) = ids
    name = f"manifests/{identifier}.json"
    assert (target / name).read_bytes() == (base / "plain" / name).read_bytes()
    source = {found.id: _bytes(found) for found in records(base / "plain")}
    for found in records(target):
        assert _bytes(found) == source[found.id]


def _bytes(found) -> bytes:  # type: ignore[no-untyped-def]
    data: bytes = found.pack.read_bytes()[found.offset : found.offset + 80 + found.payload_length]
    return data


def test_only_what_is_missing_travels(tmp_path: Path, base: Path) -> None:
    """Counted at the server: the second recovery point costs its two chunks, its pages and its manifest."""
    target = tmp_path / "target"
    with serving(base / "plain") as server:
        run(server.url, target, "one")
        first = server.sent
        result = run(server.url, target, "two")
        # Two chunks and a page differ; what the maps and documents cost on top is small.
        assert result.records == 3
        assert server.sent - first < 2 * CHUNK + 64 * 1024
    holds(target, base, "one", "two")


def test_into_a_web_server_is_refused_with_the_reason(base: Path) -> None:
    with serving(base / "plain") as server, pytest.raises(RefusedError, match="read-only"):
        copy_repository(str(base / "plain"), server.url, (), everything=True, decrypt=False, sink=ignore)


def test_what_is_encrypted_does_not_become_open_by_mistake(tmp_path: Path, base: Path) -> None:
    with pytest.raises(RefusedError, match="encrypted"):
        run(str(base / "sealed"), tmp_path / "new", everything=True)
    assert not (tmp_path / "new").exists()
    plain = make(tmp_path / "plain")
    with pytest.raises(RefusedError, match="encrypted"):
        run(str(base / "sealed"), plain, everything=True)
    assert list(records(plain)) == []


def test_other_chunk_sizes_are_refused(tmp_path: Path, base: Path) -> None:
    create_repository(LocalBackend(tmp_path / "target"), chunk_size=2 * CHUNK)
    with pytest.raises(RefusedError, match="chunks of 65536") as caught:
        run(str(base / "plain"), tmp_path / "target", everything=True)
    assert "65536" in caught.value.hint


def test_a_copy_of_the_same_files_is_refused(tmp_path: Path, base: Path) -> None:
    twin = shutil.copytree(base / "plain", tmp_path / "twin")
    with pytest.raises(RefusedError, match="to copy from"):
        run(str(base / "plain"), twin, everything=True)


def test_words(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UsageError):
        run(str(base / "plain"), tmp_path / "target")
    with pytest.raises(UsageError):
        run(str(base / "plain"), tmp_path / "target", "one", everything=True)


@pytest.mark.parametrize("target", ["plain", "sealed"])
def test_a_damaged_recovery_point_does_not_travel_and_the_others_do(tmp_path: Path, base: Path, target: str) -> None:
    source = shutil.copytree(base / "plain", tmp_path / "source")
    # Chunk 3 differs between the two: only "one" is hit.
    record = chunk_record(source, base / "plain", 3)
    flip(record.pack, record.offset + 100)
    folder = make(tmp_path / target, encrypted=target == "sealed")
    result = run(str(source), folder, everything=True)
    assert [(point.name, bool(point.problem)) for point in result.points] == [("", True), ("two", False)]
    assert record.pack.name in result.points[0].problem
    holds(folder, base, "two")


def test_what_a_failed_recovery_point_has_seen_is_looked_at_again(tmp_path: Path) -> None:
    """Two pages: the first one differs and is damaged near its end, the second one is shared. It has been read ahead,
    and its chunks not stored, when the first recovery point fails."""
    source, target = make(tmp_path / "source"), make(tmp_path / "plain")
    take(source, noise_disk(tmp_path / "one.img", mebibytes=19), "one")
    take(source, noise_disk(tmp_path / "two.img", mebibytes=19, changed=(250,)), "two")
    record = chunk_record(source, source, 250)
    flip(record.pack, record.offset + 100)
    result = run(str(source), target, everything=True)
    assert [bool(point.problem) for point in result.points] == [True, False]
    holds(target, tmp_path, "two")


def test_signatures_travel_or_are_made(tmp_path: Path, base: Path) -> None:
    private, public = new_signing_key()
    key, trusted = read_signing_key(private, "key"), read_public_key(public, "key")
    source = make(tmp_path / "source")
    point = take(source, base / "one.img", "one")
    (source / "manifests" / f"{point}.sig").write_bytes(key.sign(point))
    target, sealed = make(tmp_path / "plain"), make(tmp_path / "sealed", encrypted=True)
    copy_points(opened(source), opened(target), (point,), sink=ignore)
    assert (target / "manifests" / f"{point}.sig").read_bytes() == key.sign(point)
    unsigned = copy_points(opened(source), opened(sealed, encrypted=True), (point,), sink=ignore)
    assert not (sealed / "manifests" / f"{unsigned.points[0].id}.sig").exists()
    again = make(tmp_path / "again" / "sealed", encrypted=True)
    signed = copy_points(opened(source), opened(again, encrypted=True), (point,), sink=ignore, sign=key)
    repository = opened(again, encrypted=True)
    repository.access = type(repository.access)(ask=lambda: Passphrase(WORDS), trusted=(trusted,))
    assert repository.manifest(signed.points[0].id).name == "one"


def test_parity_is_made_in_the_target(tmp_path: Path, base: Path) -> None:
    target = make(tmp_path / "target", parity=2)
    run(str(base / "plain"), target, everything=True)
    assert len(list(target.rglob("*.parity"))) == len(list(target.rglob("*.pack"))) > 0


def test_a_target_that_is_full_goes_on_where_it_stopped(tmp_path: Path, base: Path) -> None:
    class Full(LocalBackend):
        room = 8 * CHUNK

        def create(self, name: str):  # type: ignore[no-untyped-def]
            manager, outer = super().create(name), self

            class Filling:
                def __enter__(self):  # type: ignore[no-untyped-def]
                    self.file = manager.__enter__()
                    return self

                def __exit__(self, *error):  # type: ignore[no-untyped-def]
                    return manager.__exit__(*error)

                def tell(self) -> int:
                    return int(self.file.tell())

                def write(self, data: bytes) -> None:
                    outer.room -= len(data)
                    if outer.room < 0:
                        raise OSError(28, os.strerror(28))
                    self.file.write(data)

            return Filling()

    target = make(tmp_path / "target")
    source = opened(base / "plain")
    ids = tuple(point.id for point in source.points())
    with pytest.raises(DeviceError, match="No space"):
        copy_points(source, Repository(Full(target)), ids, sink=ignore)
    kept = len(list(records(target)))
    assert kept >= 6
    result = copy_points(source, opened(target), ids, sink=ignore)
    assert result.records + kept == len(list(records(base / "plain")))
    holds(target, base, "one", "two")


def test_the_command(tmp_path: Path, base: Path) -> None:
    target = tmp_path / "target"

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from rescue.cli.main import main; main()", "copy", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])

    done = call("--all", "--repo", str(base / "plain"), "--to", str(target))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("copied") == 2
    done = call("latest", "--json", "--repo", str(base / "plain"), "--to", str(target))
    assert json.loads(done.stdout)["points"][0]["already"] is True
    assert call("--repo", str(base / "plain"), "--to", str(target)).returncode == 2
