"""A repository of format version 1, made by an older liferaft (data/README.md): read, and written to, as it is."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.store.connect import connect
from images.store.create import open_or_create
from rescue.jobs.capture import capture_disks
from rescue.jobs.points import list_points, show_point
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from tests.flow.disks import MIB, need, run
from tests.flow.servers import serving

ARCHIVE = Path(__file__).with_name("data") / "repository-v1.tar.gz"
POINT = "637bb992944a8b03bcc0b4106ca48499edae4078d0509a7a7ea1500b80e579aa"
#: sha256sum of the files that were put on the disk, and of the partition, before it was captured.
FILES = {
    "numbers.txt": "f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a",
    "hello.txt": "cfcb83a9274ad6c0dacac0b2d3ebb1840ab91d5ce2cd8757ad0637314521eb93",
}
PARTITION = "1c44c3f0d602406e1c5b4d399393171145cff55f374717ddfc2f555777116493"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    run("tar", "-C", tmp_path, "-xf", ARCHIVE)
    return tmp_path / "repository"


def restore(repository: str, point: str, folder: Path) -> Path:
    """To a blank image of 8 MiB."""
    target = folder / "target.img"
    with target.open("wb") as stream:
        stream.truncate(8 * MIB)
    choices = RestoreChoices(boot=BootChoice.NO)
    plan = plan_restore(repository, point, [target], choices, SystemRunner())
    assert run_plan(plan, plan.digest, SystemRunner(), ignore).verified
    return target


def prove(disk: Path) -> None:
    need("sfdisk", "fsck.vfat", "mcopy")
    assert "11111111-2222-3333-4444-555555555555" in run("sfdisk", "--dump", disk)
    part = disk.with_suffix(".part")
    part.write_bytes(disk.read_bytes()[MIB : 4 * MIB])
    # What is not allocated is zero on the source (a fresh image file) and on the target.
    assert hashlib.sha256(part.read_bytes()).hexdigest() == PARTITION
    run("fsck.vfat", "-n", part)
    for name, digest in FILES.items():
        out = disk.with_name(name)
        run("mcopy", "-n", "-i", part, f"::{name}", out)
        assert hashlib.sha256(out.read_bytes()).hexdigest() == digest


def test_it_lists_shows_and_restores(old: Path, tmp_path: Path) -> None:
    (point,) = list_points(str(old))
    assert (point.id, point.name, point.disk_size) == (POINT, "version 1", 6 * MIB)
    identifier, manifest = show_point(str(old), "version 1")
    assert identifier == POINT
    (disk,) = manifest.layout.disks
    assert disk.table is not None
    (partition,) = disk.table.partitions
    assert partition.name == "data"
    assert str(partition.uuid) == "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    assert partition.filesystem is not None and partition.filesystem.label == "VERSION1"
    prove(restore(str(old), "latest", tmp_path))


def test_it_restores_over_http(old: Path, tmp_path: Path) -> None:
    with serving(old) as server:
        prove(restore(server.url, POINT[:8], tmp_path))


def test_a_new_capture_into_it_shares_what_is_there(old: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file() and path.name != "catalogue.json"}
    disk = restore(str(old), "latest", tmp_path)
    taken = capture_disks([disk], str(old), name="again", runner=SystemRunner(), sink=ignore)
    assert [point.name for point in list_points(str(old))] == ["version 1", "again"]
    for path, content in before.items():
        assert path.read_bytes() == content, f"{path} was rewritten"
    # The filesystem is the same; only the boot area is another (the table says how large the disk is).
    part = 3 * MIB
    assert taken.read < part and taken.new_records <= 3
    (tmp_path / "second").mkdir()
    prove(restore(str(old), "again", tmp_path / "second"))


def test_a_repository_from_the_future_names_its_version(old: Path) -> None:
    document = msgspec.json.decode((old / "liferaft.json").read_bytes())
    (old / "liferaft.json").write_bytes(msgspec.json.encode({**document, "version": 3, "hash": "a new one"}))
    with pytest.raises(RefusedError, match="has repository version 3; this liferaft reads up to 2"):
        list_points(str(old))
    with pytest.raises(RefusedError, match="version 3"):
        open_or_create(connect(str(old)))
