"""Soundness of a plan: a plan is a document that people edit, and is believed only where it holds together.

Everything it would write lies on a target it names, in one partition of the table it makes, and on nothing else that
it writes. Whether it is what the person wants is the person's business; what the disks are is the preflight's.
"""

import itertools
from collections.abc import Iterator

import msgspec

from core.errors import DamagedError
from images.model.extents import Extent
from images.model.layout import PartitionRole, PartitionTable, TableKind, devices_made_by
from images.model.manifest import Manifest, VolumeRole
from images.model.stack import Array, VolumeGroup
from images.stack.lvm_text import parse_group
from restore.plan.plan import Plan, TargetDisk
from restore.plan.steps import (
    CreateArray,
    CreateTable,
    GrowFilesystem,
    RelocateFilesystem,
    RemakeFat,
    RestoreVolume,
    ShrinkVolume,
    Step,
    VerifyVolume,
    WipeSignatures,
    WriteHead,
    container_of,
)
from restore.planning.degraded import does_without

#: What comes before what on one disk: wiping, say, would take away what was put there before.
_ORDER: dict[type[Step], int] = {
    WipeSignatures: 0,
    CreateTable: 1,
    WriteHead: 2,
    RestoreVolume: 3,
    ShrinkVolume: 3,
    RemakeFat: 3,
    VerifyVolume: 3,
    RelocateFilesystem: 4,
}

_SECTOR_SIZES = frozenset({512, 1024, 2048, 4096})


class _Claim(msgspec.Struct, frozen=True):
    """Bytes of a target that one step fills."""

    name: str
    extent: Extent


def unsound(plan: Plan) -> Iterator[str]:
    """Every reason why a plan does not hold together; none for a plan that does. Nothing is looked at but the plan."""
    sources = [target.source for target in plan.targets]
    if not sources:
        yield "the plan names no target"
    for source in sorted({source for source in sources if sources.count(source) > 1}):
        yield f"the plan names two targets for {source}"
    if not plan.steps:
        yield "the plan has no steps: nothing would be restored"
    for target in plan.targets:
        if plan.steps and not any(step.disk == target.source for step in plan.steps):
            yield f"the plan has a target for {target.source}, and no step for it"
        if target.sector_size not in _SECTOR_SIZES:
            yield f"{target.source}: no disk has sectors of {target.sector_size} bytes"
            continue
        steps = [step for step in plan.steps if step.disk == target.source]
        tables = [step.table for step in steps if isinstance(step, CreateTable)]
        if len(tables) > 1:
            yield f"the plan makes {len(tables)} partition tables on {target.source}"
        if tables:
            yield from _unsound_table(target, tables[0])
        yield from _unsound_steps(target, steps, tables[0] if tables else None)
    yield from _unsound_order(plan)


def unfit(plan: Plan, manifest: Manifest) -> Iterator[str]:
    """Every reason why a plan is not one for this recovery point."""
    disks = {disk.id for disk in manifest.layout.disks}
    for target in plan.targets:
        if target.source not in disks:
            yield f"the recovery point has no disk {target.source}"
    volumes = {volume.id: volume for volume in manifest.volumes}
    for step in plan.steps:
        name = getattr(step, "volume", "")
        if name and name not in volumes:
            yield f"the recovery point has no volume {name}"
        elif isinstance(step, RestoreVolume | VerifyVolume):
            volume = volumes[name]
            if step.size != volume.size:
                yield f"{name} has {volume.size} bytes, the plan says {step.size}"
            elif volume.disk != step.disk:
                yield f"{name} belongs to {volume.disk}, the plan puts it on {step.disk}"
        elif isinstance(step, WriteHead):
            volume = volumes[name]
            if volume.role is not VolumeRole.HEAD or volume.disk != step.disk:
                yield f"{name} is not what lies around the partition table of {step.disk}"
            elif any(extent.end > volume.size for extent in step.extents):
                yield f"{step.describe()}: {name} has only {volume.size} bytes"
        elif isinstance(step, CreateArray):
            yield from _unfit_array(step.array, manifest)


def _unfit_array(array: Array, manifest: Manifest) -> Iterator[str]:
    """An array that md would not make of these members, or that would not hold what was captured."""
    captured = next((one for one in manifest.layout.containers if one.id == array.id), None)
    called = f"array {array.name or array.id}"
    if not isinstance(captured, Array):
        yield f"the recovery point has no {called}"
        return
    places = {(member.slot, member.device) for member in captured.members}
    strange = [member.device for member in array.members if (member.slot, member.device) not in places]
    if (array.level, array.slots) != (captured.level, captured.slots):
        was = f"RAID {captured.level} of {captured.slots} devices"
        yield f"{called} was {was}, the plan makes it {array.level} of {array.slots}"
    elif strange or len(array.members) != len(set(array.member_ids)):
        yield f"{called}: the plan makes it of other members ({', '.join(array.member_ids)})"
    elif not does_without(captured, set(captured.member_ids) - set(array.member_ids)):
        yield f"{called}: the plan leaves out more members than its redundancy replaces"


def _unsound_table(target: TargetDisk, table: PartitionTable) -> Iterator[str]:
    """Partitions that overlap, or do not lie where this disk has room for partitions."""
    size = target.sector_size
    sectors = target.size // size
    first, behind = (table.first_usable_lba, table.last_usable_lba + 1) if table.kind is TableKind.GPT else (1, sectors)
    if behind > sectors:
        yield f"{target.source}: the table uses sectors up to {behind - 1}, the target has {sectors}"
    numbers = [part.number for part in table.partitions]
    for number in sorted({number for number in numbers if numbers.count(number) > 1}):
        yield f"{target.source}: the table has two partitions {number}"
    if table.kind is TableKind.GPT:
        # A GPT has attribute bits of its own for that; the field would be dropped without a word.
        yield from (
            f"{target.source}, partition {part.number} is active: only dos tables know that"
            for part in table.partitions
            if part.active
        )
    outers: list[Extent] = []
    claims: list[_Claim] = []
    for part in table.partitions:
        name = f"{target.source}, partition {part.number}"
        if part.start_lba < first or part.end_lba > min(behind, sectors) or part.sector_count <= 0:
            yield (
                f"{name}: sectors {part.start_lba} to {part.end_lba - 1} do not lie within {first} to "
                f"{min(behind, sectors) - 1}"
            )
        elif part.role is PartitionRole.EXTENDED:
            outers.append(part.extent(size))
        if part.role is not PartitionRole.LOGICAL and part.sector_count > 0 and part.start_lba >= 0:
            claims.append(_Claim(name, part.extent(size)))
    yield from _overlaps(claims)
    inner = [part for part in table.partitions if part.role is PartitionRole.LOGICAL and part.sector_count > 0]
    for part in inner:
        if not any(outer.start < part.start_lba * size and part.end_lba * size <= outer.end for outer in outers):
            yield f"{target.source}, partition {part.number} does not lie in the extended partition"
    yield from _overlaps(
        [_Claim(f"{target.source}, partition {part.number}", part.extent(size)) for part in inner if part.start_lba > 0]
    )


def _unsound_steps(target: TargetDisk, steps: list[Step], table: PartitionTable | None) -> Iterator[str]:
    """Steps that reach beyond the disk, their partition, or into each other."""
    size = target.sector_size
    parts = [part for part in table.partitions if part.role is not PartitionRole.EXTENDED] if table else []
    places = [part.extent(size) for part in parts if part.start_lba >= 0 and part.sector_count > 0]
    rooms = {part.number: part.sector_count * size for part in parts}
    filled: list[_Claim] = []
    for step in steps:
        offset, length = getattr(step, "offset", None), getattr(step, "size", None)
        if isinstance(step, WipeSignatures | WriteHead):
            for extent in step.extents:
                if extent.end > target.size:
                    yield f"{step.describe()}: bytes {extent.start} to {extent.end} reach beyond {target.size}"
        elif isinstance(offset, int) and isinstance(length, int):
            if offset < 0 or length < 0 or offset % size:
                yield f"{step.describe()}: {length} bytes at {offset} are no range of sectors"
                continue
            extent = Extent(offset, offset + length)
            if extent.end > target.size:
                yield f"{step.describe()}: bytes {extent.start} to {extent.end} reach beyond {target.size}"
            elif table is not None and not any(
                place.start <= extent.start and extent.end <= place.end for place in places
            ):
                yield f"{step.describe()}: bytes {extent.start} to {extent.end} do not lie in one partition"
            if not isinstance(step, VerifyVolume | RelocateFilesystem | GrowFilesystem):
                filled.append(_Claim(step.describe(), extent))
        number = getattr(step, "number", 0)
        if number and number not in rooms:
            yield f"{step.describe()}: the table has no partition {number}"
        elif isinstance(step, GrowFilesystem) and number and step.size > (room := rooms[number]):
            yield f"{step.describe()}: the partition has {room} bytes, the plan says {step.size}"
    for step in steps:
        if isinstance(step, WriteHead):
            heads = [_Claim(step.describe(), extent) for extent in step.extents]
            yield from _overlaps([*heads, *(_Claim("a partition", place) for place in _outermost(places))])
    yield from _overlaps(filled)


def _unsound_order(plan: Plan) -> Iterator[str]:
    """Steps about a disk that is not there, and steps that would undo, or prove, what another one does later."""
    known = {target.source for target in plan.targets}
    reached: dict[str, int] = {}
    streamed: dict[str, RestoreVolume] = {}
    rooms: dict[str, int] = {}
    tabled = {step.disk for step in plan.steps if isinstance(step, CreateTable)}
    made = known - tabled
    for step in plan.steps:
        if isinstance(step, CreateTable):
            made |= {part.id for part in step.table.partitions if part.role is not PartitionRole.EXTENDED}
        container = container_of(step)
        if container is not None:
            for member in sorted(set(container.member_ids) - made):
                yield f"{step.describe()}: the plan makes no {member} before it"
            if isinstance(container, VolumeGroup):
                yield from _unsound_group(container)
            made |= {device.id for device in devices_made_by(container, 512)}
            # When it grows it has more; nothing is written there before its filesystem grows.
            rooms |= {device.id: device.size for device in devices_made_by(container, 512)}
            known |= {step.disk, *rooms}
        size = getattr(step, "size", 0)
        if step.disk in rooms and not isinstance(step, GrowFilesystem) and size > rooms[step.disk]:
            yield f"{step.describe()}: {step.disk} has {rooms[step.disk]} bytes, the plan says {size}"
        if step.disk not in known:
            yield f"{step.describe()}: the plan has no target for {step.disk}"
        rank = _ORDER.get(type(step), 0)
        if type(step) in _ORDER and rank < reached.get(step.disk, 0):
            yield f"{step.describe()}: this comes too late, it would undo what was done before"
        reached[step.disk] = max(rank, reached.get(step.disk, 0))
        if isinstance(step, RestoreVolume):
            if step.volume in streamed:
                yield f"the plan writes {step.volume} twice"
            streamed[step.volume] = step
        elif isinstance(step, VerifyVolume):
            written = streamed.get(step.volume)
            if written is None or (written.disk, written.offset) != (step.disk, step.offset):
                yield f"{step.describe()}: the plan has not written it there before"


def _unsound_group(group: VolumeGroup) -> Iterator[str]:
    """What a group says of itself and LVM's text does not: LVM makes what the text says."""
    called = f"the volume group {group.name}"
    try:
        text = parse_group(group.backup)
    except DamagedError as error:
        yield f"{called}: {error.message.removesuffix('.')}"
        return
    for what, said, found in (
        ("name", group.name, text.name),
        ("UUID", group.uuid, text.uuid),
        ("extent size", group.extent_size, text.extent_size),
    ):
        if said != found:
            yield f"{called}: its {what} is {said}, in LVM's text {found}"
    members = [(member.uuid, member.size, member.data_offset) for member in group.members]
    physical = [(member.uuid, member.size, member.data_offset) for member in text.physical]
    if sorted(members) != sorted(physical):
        yield f"{called}: its physical volumes (UUID, size, data offset) are {members}, in LVM's text {physical}"
    volumes = {volume.name: (volume.uuid, volume.size, volume.segments, volume.pool) for volume in group.volumes}
    logical = {one.name: (one.uuid, one.size, one.segments, one.pool) for one in text.logical if one.visible}
    differing = {name for name in {*volumes, *logical} if volumes.get(name) != logical.get(name)}
    if differing or len(volumes) != len(group.volumes):
        names = ", ".join(sorted(differing or volumes))
        yield f"{called}: volume {names} is not (by UUID, size, segments and pool) what LVM's text says"


def _outermost(places: list[Extent]) -> list[Extent]:
    """Only one of places that overlap: that they do is said elsewhere."""
    found: list[Extent] = []
    for place in sorted(places):
        if not found or place.start >= found[-1].end:
            found.append(place)
    return found


def _overlaps(claims: list[_Claim]) -> Iterator[str]:
    ordered = sorted((claim for claim in claims if claim.extent.size), key=lambda claim: claim.extent)
    for first, second in itertools.pairwise(ordered):
        if second.extent.start < first.extent.end:
            yield (
                f"{first.name} and {second.name} overlap: bytes {second.extent.start} to "
                f"{min(first.extent.end, second.extent.end)}"
            )
