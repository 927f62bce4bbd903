"""Documents: round trips, strictness, and schemas that say what the code says."""

import runpy
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.documents import decode_stored, decode_written, encode, encode_readable
from core.errors import DamagedError, UsageError
from images.model.layout import (
    Disk,
    DiskIdentity,
    Filesystem,
    FilesystemKind,
    Layout,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from images.model.manifest import Manifest
from rescue.jobs.unattended import Job
from restore.plan.plan import Plan, TargetDisk
from restore.plan.steps import WipeSignatures

ROOT = Path(__file__).parents[2]

partitions = st.builds(
    Partition,
    id=st.text(max_size=5),
    number=st.integers(1, 128),
    start_lba=st.integers(0, 1 << 40),
    sector_count=st.integers(0, 1 << 40),
    type=st.text(max_size=36),
    role=st.sampled_from(PartitionRole),
    uuid=st.none() | st.uuids(),
    name=st.text(max_size=36),
    attributes=st.integers(0, (1 << 63) - 1),
    active=st.booleans(),
    filesystem=st.none() | st.builds(Filesystem, kind=st.sampled_from(FilesystemKind), label=st.text(max_size=8)),
)
tables = st.builds(
    PartitionTable,
    kind=st.sampled_from(TableKind),
    identifier=st.text(max_size=36),
    partitions=st.lists(partitions, max_size=3).map(tuple),
)
layouts = st.builds(
    Layout,
    disks=st.lists(
        st.builds(
            Disk,
            id=st.text(max_size=5),
            identity=st.builds(DiskIdentity, serial=st.text(max_size=9)),
            size=st.integers(0, 1 << 50),
            sector_size=st.sampled_from([512, 4096]),
            table=st.none() | tables,
        ),
        max_size=2,
    ).map(tuple),
)


@given(layouts)
def test_a_manifest_survives_the_round_trip(layout: Layout) -> None:
    manifest = Manifest(tool="t", name="n", created="c", origin="o", machine=None, layout=layout, volumes=())
    assert decode_stored(encode(manifest), Manifest, name="m") == manifest


@given(st.lists(st.text(max_size=20), max_size=3), st.integers(0, 1 << 50))
def test_a_plan_survives_the_round_trip_with_its_digest(notes: list[str], size: int) -> None:
    target = TargetDisk(
        source="disk0", identity=DiskIdentity(wwn="w"), file="", size=size, sector_size=512, destroys=tuple(notes)
    )
    plan = Plan(
        recovery_point="p",
        name="n",
        created="c",
        repository="r",
        targets=(target,),
        steps=(WipeSignatures(disk="disk0", extents=()),),
        notes=tuple(notes),
    )
    again = decode_written(encode_readable(plan).encode(), Plan, name="plan")
    assert again == plan
    assert again.digest == plan.digest
    assert msgspec.structs.replace(plan, repository="other").digest != plan.digest


def test_equal_documents_give_equal_bytes() -> None:
    assert encode({"b": 1, "a": UUID(int=1)}) == b'{"a":"00000000-0000-0000-0000-000000000001","b":1}\n'


def test_unknown_fields_are_errors_where_people_write_and_kept_out_of_harm_where_we_did() -> None:
    with pytest.raises(UsageError, match="surprise"):
        decode_written(b'{"repository": "r", "target": {"only": true}, "surprise": 1}', Job, name="job")
    text = encode(
        Manifest(tool="t", name="n", created="c", origin="o", machine=None, layout=Layout(disks=()), volumes=())
    )
    newer = text.rstrip()[:-1] + b',"zz_newer":1}\n'
    assert decode_stored(newer, Manifest, name="m").name == "n"


@given(st.binary(max_size=60))
def test_random_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_stored(data, Manifest, name="m")


def test_published_schemas_are_those_of_the_code() -> None:
    made = runpy.run_path(str(ROOT / ".ci" / "schemas.py"))["schemas"]()
    published = {path.name: path.read_text() for path in (ROOT / "docs" / "schema").iterdir()}
    assert published == made, "run: python .ci/schemas.py"
