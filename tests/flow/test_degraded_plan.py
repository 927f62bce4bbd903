"""A mirror that comes back on one disk: the plan is made, and its estimate measures what the plan reads.

The recovery point of two plain disks is told to be that of a mirror: to make one takes a kernel with md and root.
"""

import os
from pathlib import Path

import msgspec
import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.model.filesystem import Filesystem, FilesystemKind
from images.model.manifest import Manifest, VolumeRole
from images.model.stack import Array, ArrayMember
from images.store.repository import Repository
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore
from restore.plan import forecast
from restore.plan.estimate import Rate
from restore.plan.rates import fetch_rate
from restore.plan.steps import CreateArray, RestoreVolume, WriteHead
from tests.flow.disks import MIB, need, put_ext, run

SIZE = 24 * MIB


def _empty(path: Path) -> Path:
    with path.open("wb") as stream:
        stream.truncate(SIZE + 2 * MIB)
    return path


def _disk(path: Path, tree: Path) -> Path:
    disk = _empty(path)
    run("sfdisk", "-q", disk, stdin=f"label: gpt\nstart=1MiB,size={SIZE // MIB}MiB\n")
    put_ext(disk, MIB, SIZE, tree)
    return disk


def _mirrored(manifest: Manifest) -> Manifest:
    """With an array on the partition of both disks, and what lay on that of the first one on it."""
    member = Filesystem(kind=FilesystemKind.UNKNOWN, detail="linux_raid_member")
    disks, parts = [], []
    for disk in manifest.layout.disks:
        assert disk.table is not None
        (part,) = disk.table.partitions
        parts.append(part)
        table = msgspec.structs.replace(disk.table, partitions=(msgspec.structs.replace(part, filesystem=member),))
        disks.append(msgspec.structs.replace(disk, table=table))
    array = Array(
        id="md0",
        uuid="3aaa0122:29827cfa:5331ad66:ca767371",
        name="host:0",
        level=1,
        metadata="1.0",
        slots=2,
        members=tuple(ArrayMember(device=part.id, slot=slot) for slot, part in enumerate(parts)),
        size=SIZE,
        component_size=SIZE,
        filesystem=parts[0].filesystem,
    )
    return msgspec.structs.replace(
        manifest,
        layout=msgspec.structs.replace(manifest.layout, disks=tuple(disks), containers=(array,)),
        volumes=tuple(
            msgspec.structs.replace(volume, disk="md0", role=VolumeRole.DISK, partition="", offset=0)
            if volume.partition == parts[0].id
            else volume
            for volume in manifest.volumes
            if volume.partition != parts[1].id
        ),
    )


def test_the_plan_of_a_degraded_mirror_is_made_and_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("mke2fs", "sfdisk")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(8 * MIB))
    disks = [_disk(tmp_path / f"disk{number}", tree) for number in range(2)]
    repo = str(tmp_path / "repo")
    capture_disks(disks, repo, name="n", runner=SystemRunner(), sink=ignore)
    plain = Repository.manifest
    monkeypatch.setattr(Repository, "manifest", lambda self, point: _mirrored(plain(self, point)))
    target = _empty(tmp_path / "target")
    choices = RestoreChoices(boot=BootChoice.NO, skip=("disk1",))
    with pytest.raises(RefusedError, match="--degraded makes it without"):
        plan_restore(repo, "latest", [target], choices, SystemRunner())
    choices = msgspec.structs.replace(choices, degraded=True)
    measured: list[set[str]] = []

    def measure(repository: Repository, manifest: Manifest) -> Rate:
        measured.append({volume.id for volume in manifest.volumes})
        return fetch_rate(repository, manifest)

    monkeypatch.setattr(forecast, "fetch_rate", measure)
    plan = plan_restore(repo, "latest", [target], choices, SystemRunner())
    (made,) = (step.array for step in plan.steps if isinstance(step, CreateArray))
    assert (made.slots, made.lacking) == (2, 1)
    assert [step.disk for step in plan.steps if isinstance(step, RestoreVolume)] == ["md0"]
    assert any("has NO redundancy" in note for note in plan.notes)
    assert plan.estimate is not None
    assert measured == [{step.volume for step in plan.steps if isinstance(step, RestoreVolume | WriteHead)}]
