"""The work of a plan: what is known beforehand of the disks as they will be."""

from typing import cast

import pytest

from core.events import ignore
from core.units import MIB
from images.model.filesystem import Filesystem, FilesystemKind
from images.model.layout import Disk, DiskIdentity, Layout
from images.model.manifest import Manifest
from images.store.repository import Repository
from restore.perform.work import Work
from restore.plan.plan import Plan
from restore.plan.steps import MakeUnique
from restore.unique.renewal import Renewal, Sort
from tests.runners import ScriptedRunner

OLD, NEW = (f"7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2d00{number}" for number in range(2))


@pytest.mark.parametrize(("disk", "uuid"), [("disk0", NEW), ("disk1", OLD)])
def test_a_disk_without_a_table_has_the_identity_that_the_plan_gives_it(disk: str, uuid: str) -> None:
    found = Disk(
        id="disk0",
        identity=DiskIdentity(),
        size=MIB,
        sector_size=512,
        table=None,
        filesystem=Filesystem(kind=FilesystemKind.EXT4, uuid=OLD),
    )
    layout = Layout(disks=(found,))
    manifest = Manifest(name="n", created="2026", origin="", layout=layout, volumes=(), machine=None, tool="t")
    renewals = (Renewal(sort=Sort.FILESYSTEM, disk=disk, number=0, old=OLD, new=NEW),)
    plan = Plan(
        recovery_point="00",
        name="n",
        created="2026",
        repository="",
        targets=(),
        steps=(MakeUnique(disk="disk0", renewals=renewals),),
        notes=(),
    )
    work = Work(plan, cast("Repository", None), manifest, {}, ScriptedRunner(lambda argv: ""), ignore)
    restored = work.restored("disk0")
    assert restored.filesystem is not None and restored.filesystem.uuid == uuid
