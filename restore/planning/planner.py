"""The planner: from a recovery point and named targets to a plan, or to every reason why not.

"Can this be restored there?" is answered by building the plan; nothing is written here.
"""

from collections.abc import Mapping, Sequence

import msgspec

from core.units import ALIGNMENT, format_size, subtract
from images.browse.point import ChunkCache
from images.model.extents import total
from images.model.layout import Disk, PartitionRole
from images.model.machine import Firmware
from images.model.manifest import Manifest, VolumeRole
from images.store.backend import Heard, deaf
from images.store.repository import Repository
from restore.plan.outgrown import outgrown
from restore.plan.plan import Plan, TargetDisk
from restore.plan.steps import CloseStack, CreateTable, RepairBoot, Step, WipeSignatures, WriteHead
from restore.planning.matching import Pair
from restore.planning.placement import Placement, Placing, PlanOptions, is_source, place, refusal, room_of
from restore.planning.scarce import marked
from restore.planning.seating import Content, content_steps, late_steps, streamed
from restore.planning.stack_steps import StackSteps, stack_steps
from restore.planning.surveyed import survey_chunks
from restore.planning.waiting import waiting_notes
from restore.table.head import head_extents
from restore.table.records import carry_records
from restore.target.candidates import Candidate
from restore.target.occupants import occupants_of_disk
from restore.target.signatures import signature_extents
from restore.unique.planning import BOOT_NOTE as UNIQUE_BOOT_NOTE
from restore.unique.planning import NOTE as UNIQUE_NOTE
from restore.unique.planning import make_unique

_DOS_TABLE_END = 512


def make_plan(
    repository: Repository, point: str, pairs: Sequence[Pair], options: PlanOptions, alive: Heard = deaf
) -> Plan:
    """Plan the restore of disks of a recovery point to their targets.

    Args:
        point: the full id.
        pairs: in any order; a disk that is in none is left out, and said so.
        alive: called now and then while it goes on, with 0.

    Raises:
        RefusedError: with every reason against.
        DamagedError: chunks that the recovery point needs are missing or damaged.
    """
    cache = ChunkCache(repository)
    whole = repository.manifest(point)
    placement = place(repository, point, pairs, options, cache)
    if placement.reasons:
        raise refusal(point, placement.reasons, options)
    manifest = _restored(placement)
    surveyed = survey_chunks(repository, point, manifest, alive)
    placings = [_carried(placing) for placing in placement.placings]
    waiting = waiting_notes(cache, point, whole, manifest, [_fitted(placing) for placing in placings])
    late: list[Step] = []
    if options.unique:
        fits, layout, step = make_unique(manifest.layout, [placing.fit for placing in placings])
        manifest = msgspec.structs.replace(manifest, layout=layout)
        placings = [msgspec.structs.replace(one, fit=fitted) for one, fitted in zip(placings, fits, strict=True)]
        late.append(step)
    stack = _stack(manifest, placings, surveyed, placement, options)
    against = list(outgrown(stack.growing, {}, cache, point, manifest))
    if against:
        raise refusal(point, against, options)
    steps: list[Step] = []
    for placing in placings:
        steps += _disk_steps(manifest, placing, surveyed, options)
    steps += [*stack.making, *_late_steps(manifest, placings, surveyed, [*stack.growing, *late], options)]
    if stack.making:
        steps.append(CloseStack(disk=placings[0].disk.id))
    if placement.scarce:
        devices = {volume.id: volume.partition or volume.disk for volume in manifest.volumes}
        steps = [marked(step, placement.scarce, devices) for step in steps]
    notes = [*placement.notes, *_fit_notes(placings), *stack.notes, *waiting, *_notes(manifest, placings, options)]
    return Plan(
        recovery_point=point,
        name=manifest.name,
        created=manifest.created,
        repository=repository.backend.location,
        targets=tuple(_target(placing.disk, placing.candidate) for placing in placings),
        steps=tuple(steps),
        notes=(*notes, *(f"{disk} of the recovery point is not restored." for disk in placement.left)),
    )


def _restored(placement: Placement) -> Manifest:
    """The manifest without the volumes that do not go to a target: nobody needs their chunks."""
    manifest = placement.manifest
    kept = [
        volume
        for placing in placement.placings
        for volume in streamed([volume for volume in manifest.volumes if volume.disk == placing.disk.id], placing.fit)
    ]
    disks = {disk.id for disk in manifest.layout.disks}
    kept += [volume for volume in manifest.volumes if volume.disk not in disks]
    return msgspec.structs.replace(manifest, volumes=tuple(kept))


def _carried(placing: Placing) -> Placing:
    """With what the table keeps of the source's own records, made true for the target."""
    fitted, candidate = placing.fit, placing.candidate
    if fitted.table is None:
        return placing
    carried = carry_records(placing.disk, fitted.table, candidate.size, candidate.sector_size)
    fitted = msgspec.structs.replace(fitted, table=carried.table, notes=(*fitted.notes, *carried.notes))
    return msgspec.structs.replace(placing, fit=fitted)


def _fitted(placing: Placing) -> Disk:
    """The disk as it will be."""
    return msgspec.structs.replace(placing.disk, table=placing.fit.table)


def _target(disk: Disk, candidate: Candidate) -> TargetDisk:
    return TargetDisk(
        source=disk.id,
        identity=candidate.identity,
        file=candidate.file,
        size=candidate.size,
        sector_size=candidate.sector_size,
        destroys=candidate.contents,
        holds=candidate.occupants,
        captured_size=disk.size,
        captured=occupants_of_disk(disk),
    )


def _disk_steps(manifest: Manifest, placing: Placing, surveyed: dict[str, Content], options: PlanOptions) -> list[Step]:
    disk, candidate, table = placing.disk, placing.candidate, placing.fit.table
    steps: list[Step] = [
        WipeSignatures(disk=disk.id, extents=signature_extents(candidate.size, table, candidate.sector_size))
    ]
    volumes = [volume for volume in manifest.volumes if volume.disk == disk.id]
    if table is not None:
        steps.append(CreateTable(disk=disk.id, table=table))
        # A head longer than the new disk's boot area would reach into partitions, or into the backup table.
        room = subtract(candidate.size, ALIGNMENT, "the backup table")
        room = min([room, *(part.extent(candidate.sector_size).start for part in table.partitions)])
        steps += [
            WriteHead(
                disk=disk.id,
                volume=volume.id,
                extents=head_extents(table, min(volume.size, max(room, _DOS_TABLE_END)), disk.sector_size),
            )
            for volume in volumes
            if volume.role is VolumeRole.HEAD
        ]
    return steps + content_steps(
        disk, volumes, placing.fit, candidate.sector_size, surveyed, placing.contents.open, verify=options.verify
    )


def _stack(
    manifest: Manifest,
    placings: Sequence[Placing],
    surveyed: Mapping[str, Content],
    placement: Placement,
    options: PlanOptions,
) -> StackSteps:
    room = room_of(placement, manifest.layout)
    fits = [placing.fit for placing in placings]
    sector_sizes = [placing.candidate.sector_size for placing in placings]
    return stack_steps(manifest, fits, sector_sizes, surveyed, room, verify=options.verify)


def _late_steps(
    manifest: Manifest,
    placings: Sequence[Placing],
    surveyed: Mapping[str, Content],
    late: Sequence[Step],
    options: PlanOptions,
) -> list[Step]:
    """What works on the restored filesystems, after all disks hold their data: growth, ``late``, the boot loader."""
    steps: list[Step] = []
    for placing in placings:
        steps += late_steps(placing.disk, manifest.volumes, placing.fit, placing.candidate.sector_size, surveyed)
    steps += late
    if options.firmware is not None:
        steps.append(RepairBoot(disk=_booting(placings, options.firmware).disk.id, firmware=options.firmware))
    return steps


def _booting(placings: Sequence[Placing], firmware: Firmware) -> Placing:
    """The disk that the firmware starts from, by what its table says; the first where none says it."""
    uefi = firmware is Firmware.UEFI
    wanted = PartitionRole.ESP if uefi else PartitionRole.BIOS_BOOT
    for placing in placings:
        parts = placing.fit.table.partitions if placing.fit.table else ()
        if any(part.role is wanted or (part.active and not uefi) for part in parts):
            return placing
    return placings[0]


def _fit_notes(placings: Sequence[Placing]) -> list[str]:
    """The notes of the fits, each with its disk where there are several."""
    several = len(placings) > 1
    return [f"{placing.disk.id}: {note}" if several else note for placing in placings for note in placing.fit.notes]


def _notes(manifest: Manifest, placings: Sequence[Placing], options: PlanOptions) -> list[str]:
    notes = [
        f"{volume.id} was captured whole: {volume.reason}."
        for volume in manifest.volumes
        if volume.role is not VolumeRole.HEAD and volume.reason
    ]
    for volume in manifest.volumes:
        if volume.lost:
            size = format_size(total(volume.lost))
            notes.append(
                f"{volume.id} lacks {size} that could not be read when it was captured; zeros take their place. "
                f"liferaft show --lost names the files."
            )
    notes += [
        f"The target is the disk {placing.disk.id} was captured from: what changed there since is lost."
        for placing in placings
        if is_source(placing.disk, placing.candidate)
    ]
    if options.firmware is Firmware.BIOS and len(placings) > 1:
        # Where the system lies is known when its fstab is read.
        notes.append(
            f"The boot loader goes to {_booting(placings, options.firmware).disk.id}, or to the disk with the system's "
            "/boot where BIOS starts from that one; never over boot code that starts Windows. The report says where."
        )
    if options.unique:
        notes.append(UNIQUE_NOTE)
    if options.firmware is None:
        notes.append(UNIQUE_BOOT_NOTE if options.unique else "The boot loader is left as it was captured.")
    if not options.verify:
        notes.append("Verification is switched off: what is written will not be read back.")
    return notes
