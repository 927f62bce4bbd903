"""Check, forget, prune, copy, rebuild in an object store: everything goes through the same narrow interface."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.events import ignore
from images.store.check import Depth, check
from images.store.connect import connect
from images.store.copy import copy_points
from images.store.create import create_repository
from images.store.locks import read_locks
from images.store.repository import Repository
from images.store.retention import Policy
from images.store.usage import Limit
from images.store.writer import writable
from rescue.jobs.forget import forget_points
from rescue.jobs.prune import prune_repository, rebuild_repository
from tests.flow.servers_s3 import S3Server, moto
from tests.flow.small import CHUNK, make, noise_disk, opened, restored, take, take_into
from tests.flow.test_s3 import use


@pytest.fixture(scope="module")
def process() -> Iterator[S3Server]:
    with moto() as found:
        yield found


def test_upkeep(process: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = use(process, monkeypatch).address("upkeep")
    backend = writable(connect(address))
    create_repository(backend, parity_blocks=2, chunk_size=CHUNK)
    disks = {
        "one": noise_disk(tmp_path / "one.img", mebibytes=2),
        "two": noise_disk(tmp_path / "two.img", mebibytes=2, changed=(1, 2, 3)),
    }
    for name, disk in disks.items():
        take_into(Repository(connect(address)), disk, name)
    source = make(tmp_path / "source")
    disks["three"] = noise_disk(tmp_path / "three.img", seed=4, mebibytes=2)
    copied = take(source, disks["three"], "three")
    copy_points(opened(source), Repository(connect(address)), (copied,), sink=ignore)
    forget_points(address, ("one",), Policy(), grouping=(), may_empty=False, dry_run=False, sink=ignore)
    result = prune_repository(address, Limit(share=0), dry_run=False, sink=ignore)
    assert (result.rewritten, result.freed > 3 * CHUNK) == (1, True)
    rebuild_repository(address, prove=False, sink=ignore)
    found = check(Repository(connect(address)), Depth(data=True), sink=ignore)
    assert (found.damages, found.points, found.garbage.records) == ((), 2, 0)
    repository = Repository(connect(address))
    for point in repository.points():
        assert restored(repository, point.id) == disks[point.name].read_bytes()
    assert read_locks(backend) == ()
