"""Plans that do not hold together after an edit, or are for another machine: refused, nothing written."""

from pathlib import Path

import msgspec
import pytest

from core.errors import ExitCode, RefusedError
from core.events import ignore
from core.process import SystemRunner
from core.units import MIB
from images.model.extents import Extent
from images.model.layout import DiskIdentity
from rescue.jobs.restore import run_plan
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable, RestoreVolume, VerifyVolume, WipeSignatures, WriteHead
from tests.flow.faulty import TARGET_SIZE, carry_out, plan
from tests.flow.small import START


def _edited(made: Plan, **changes: object) -> Plan:
    """The plan with its partition's steps changed, as an editor would."""
    steps = []
    for step in made.steps:
        if isinstance(step, RestoreVolume | VerifyVolume):
            step = msgspec.structs.replace(step, **changes)
        steps.append(step)
    return msgspec.structs.replace(made, steps=tuple(steps))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"offset": TARGET_SIZE - MIB}, "reach beyond"),
        ({"offset": START + 512 * 8}, "do not lie in one partition"),
        ({"offset": START + 100}, "no range of sectors"),
        ({"offset": -512}, "no range of sectors"),
        ({"size": 8 * MIB}, "do not lie in one partition"),
        ({"size": 512}, "has 4194304 bytes, the plan says 512"),
        ({"volume": "disk7-part9"}, "no volume disk7-part9"),
    ],
)
def test_an_edited_plan_that_does_not_hold_together_is_refused(
    repository: Path, target: Path, changes: dict[str, object], reason: str
) -> None:
    made = _edited(plan(repository, target), **changes)
    before = target.read_bytes()
    with pytest.raises(RefusedError) as raised:
        carry_out(made)
    assert any(reason in found for found in raised.value.reasons), raised.value.reasons
    assert raised.value.code is ExitCode.REFUSED
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("start", "count", "reason"), [(2048, 1 << 20, "do not lie within"), (0, 8192, "do not lie within")]
)
def test_an_edited_table_that_exceeds_the_disk_is_refused(
    repository: Path, target: Path, start: int, count: int, reason: str
) -> None:
    made = plan(repository, target)
    steps = []
    for step in made.steps:
        if isinstance(step, CreateTable):
            part = msgspec.structs.replace(step.table.partitions[0], start_lba=start, sector_count=count)
            step = msgspec.structs.replace(step, table=msgspec.structs.replace(step.table, partitions=(part,)))
        steps.append(step)
    before = target.read_bytes()
    with pytest.raises(RefusedError) as raised:
        carry_out(msgspec.structs.replace(made, steps=tuple(steps)))
    assert any(reason in found for found in raised.value.reasons), raised.value.reasons
    assert target.read_bytes() == before


def test_two_volumes_in_one_place_are_refused(repository: Path, target: Path) -> None:
    made = plan(repository, target)
    volume = next(step for step in made.steps if isinstance(step, RestoreVolume))
    doubled = msgspec.structs.replace(made, steps=(*made.steps, volume))
    with pytest.raises(RefusedError) as raised:
        carry_out(doubled)
    assert any("overlap: bytes 1048576 to 5242880" in found for found in raised.value.reasons)


def test_a_wipe_beyond_the_disk_is_refused(repository: Path, target: Path) -> None:
    made = plan(repository, target)
    wipe = made.steps[0]
    assert isinstance(wipe, WipeSignatures)
    extents = tuple(msgspec.structs.replace(extent, end=extent.end + 512) for extent in wipe.extents)
    edited = msgspec.structs.replace(made, steps=(msgspec.structs.replace(wipe, extents=extents), *made.steps[1:]))
    with pytest.raises(RefusedError, match="reach beyond"):
        carry_out(edited)


def test_a_volume_is_no_boot_area(repository: Path, target: Path) -> None:
    """Its size is nobody's promise, and it would all be read into memory."""
    made = plan(repository, target)
    heads = [step for step in made.steps if isinstance(step, WriteHead)]
    for changes in ({"volume": "disk0-part1"}, {"extents": (Extent(0, START + 512),)}):
        changed = [msgspec.structs.replace(step, **changes) if step in heads else step for step in made.steps]
        before = target.read_bytes()
        with pytest.raises(RefusedError, match=r"around the partition table|has only 1048576 bytes|overlap"):
            carry_out(msgspec.structs.replace(made, steps=tuple(changed)))
        assert target.read_bytes() == before


def test_a_plan_that_was_edited_after_it_was_confirmed_is_refused(repository: Path, target: Path) -> None:
    made = plan(repository, target)
    before = target.read_bytes()
    edited = msgspec.structs.replace(made, name="another")
    with pytest.raises(RefusedError, match="digest"):
        run_plan(edited, made.digest, SystemRunner(), ignore)
    assert target.read_bytes() == before


def test_a_plan_for_another_machine_is_refused(repository: Path, target: Path) -> None:
    made = plan(repository, target)
    elsewhere = msgspec.structs.replace(
        made.targets[0], file="", identity=DiskIdentity(wwn="0x5000c500deadbeef", serial="NOTHERE", model="Far Away")
    )
    before = target.read_bytes()
    with pytest.raises(RefusedError, match="target is not in this machine: Far Away serial NOTHERE") as raised:
        carry_out(msgspec.structs.replace(made, targets=(elsewhere,)))
    assert raised.value.code is ExitCode.REFUSED
    assert target.read_bytes() == before
