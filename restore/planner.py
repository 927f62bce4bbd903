"""The planner: from a recovery point and named targets to a plan, or to every reason why not.

"Can this be restored there?" is answered by building the plan; nothing is written here.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from core.errors import DamagedError, RefusedError
from core.units import ALIGNMENT, format_size, subtract
from images.browse.point import ChunkCache
from images.model.extents import total
from images.model.layout import Disk
from images.model.machine import Firmware
from images.model.manifest import Manifest, Volume, VolumeRole
from images.store.repository import Repository
from restore.contents import Contents
from restore.fit.fitting import Fit, fit
from restore.fit.wishes import Wishes
from restore.growing import chosen_volumes, disks_that_grow, growable_members, with_members
from restore.matching import Pair, is_same_identity, same_disks
from restore.occupants import occupants_of_disk
from restore.outgrown import outgrown
from restore.placed import lba_range
from restore.plan import Plan, TargetDisk
from restore.planning_stack import Room, containers_on, stack_reasons, stack_steps
from restore.rules import Growth, PartitionRule, TableChoice
from restore.seating import Content, content_steps, late_steps, rules_reasons, streamed
from restore.signatures import signature_extents
from restore.steps import (
    CloseStack,
    CreateTable,
    RepairBoot,
    Step,
    WipeSignatures,
    WriteHead,
)
from restore.table_head import head_extents
from restore.table_records import carry_records
from restore.targets import Candidate
from restore.unique.planning import BOOT_NOTE as UNIQUE_BOOT_NOTE
from restore.unique.planning import NOTE as UNIQUE_NOTE
from restore.unique.planning import make_unique, unique_reasons

_DOS_TABLE_END = 512


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user decides.

    Attributes:
        rules: for single partitions; they decide before ``growth`` does.
        firmware: None: do not repair the boot loader.
        onto_source: the disk the recovery point was taken from may be the target.
        unique: give the restored machine identities of its own, for cloning.
    """

    growth: Growth = Growth.NONE
    rules: tuple[PartitionRule, ...] = ()
    table: TableChoice = TableChoice.KEEP
    verify: bool = True
    firmware: Firmware | None = None
    onto_source: bool = False
    unique: bool = False


def make_plan(repository: Repository, point: str, pairs: Sequence[Pair], options: PlanOptions) -> Plan:
    """Plan the restore of disks of a recovery point to their targets.

    Args:
        point: the full id.
        pairs: in any order; a disk that is in none is left out, and said so.

    Raises:
        RefusedError: with every reason against.
        DamagedError: chunks that the recovery point needs are missing or damaged.
    """
    whole = repository.manifest(point)
    manifest = only_disks(whole, [pair.disk for pair in pairs])
    disks = manifest.layout.disks
    named = {pair.disk: pair.candidate for pair in pairs}
    candidates = [_in_sectors_of(disk, named[disk.id]) for disk in disks]
    reasons = _reasons_against(whole, pairs)
    if not options.onto_source:
        reasons += [
            f"{candidate.node} is the disk that {disk.id} was captured from: what changed there since would be lost"
            for candidate in candidates
            for disk in disks
            if _is_source(disk, candidate)
        ]
    chosen, unfollowed = chosen_volumes(manifest.layout, options.rules)
    reasons += unfollowed
    growable = growable_members(manifest.layout, chosen)
    partition_rules = with_members(manifest.layout, options.rules, chosen)
    cache = ChunkCache(repository)
    stored = [Contents(repository, point, manifest, disk, cache) for disk in disks]
    fits = [
        fit(disk, candidate.size, candidate.sector_size, _wishes(disk, contents, growable, partition_rules, options))
        for disk, candidate, contents in zip(disks, candidates, stored, strict=True)
    ]
    reasons += rules_reasons([rule for rule in options.rules if rule.partition], [disk.id for disk in disks])
    for disk, candidate, fitted, contents in zip(disks, candidates, fits, stored, strict=True):
        against = [*fitted.reasons, *contents.against_remaking(fitted.seats, candidate.sector_size)]
        against += contents.against_growing(fitted.seats, candidate.sector_size)
        reasons += [f"{disk.id} to {candidate.node}: {reason}" for reason in against]
    reasons += stack_reasons(whole.layout, named)
    if options.unique and manifest.layout.containers:
        reasons.append("arrays, LUKS containers and volume groups are made with the identities they had, not unique")
    if options.unique:
        reasons += unique_reasons(repository, point, manifest, disks)
    if reasons:
        raise _refusal(point, reasons, options)
    manifest = _restored(manifest, fits)
    surveyed = survey_chunks(repository, point, manifest)
    fits = [_carried(disk, fitted, candidate) for disk, fitted, candidate in zip(disks, fits, candidates, strict=True)]
    late: list[Step] = []
    if options.unique:
        fits, step = make_unique(disks, fits)
        late.append(step)
    steps: list[Step] = []
    notes: list[str] = []
    for disk, candidate, fitted, contents in zip(disks, candidates, fits, stored, strict=True):
        steps += _disk_steps(manifest, disk, candidate, fitted, surveyed, contents, options)
        notes += [f"{disk.id}: {note}" if len(disks) > 1 else note for note in fitted.notes]
    room = Room(
        targets={disk.id: found.size for disk, found in zip(disks, candidates, strict=True) if disk.table is None},
        growing=disks_that_grow(manifest.layout, chosen, asked=options.growth is not Growth.NONE),
        chosen=chosen,
    )
    sector_sizes = [candidate.sector_size for candidate in candidates]
    stack = stack_steps(manifest, fits, sector_sizes, surveyed, room, verify=options.verify)
    against = list(outgrown(stack.growing, {}, cache, point, manifest))
    if against:
        raise _refusal(point, against, options)
    steps += [*stack.making, *_late_steps(manifest, candidates, fits, surveyed, [*stack.growing, *late], options)]
    if stack.making:
        steps.append(CloseStack(disk=disks[0].id))
    notes += stack.notes
    notes += _notes(manifest, candidates, options)
    notes += [f"{disk.id} of the recovery point is not restored." for disk in whole.layout.disks if disk not in disks]
    return Plan(
        recovery_point=point,
        name=manifest.name,
        created=manifest.created,
        repository=repository.backend.location,
        targets=tuple(_target(disk, candidate) for disk, candidate in zip(disks, candidates, strict=True)),
        steps=tuple(steps),
        notes=tuple(notes),
    )


def _refusal(point: str, reasons: Sequence[str], options: PlanOptions) -> RefusedError:
    hint = "Choose another target; liferaft probe lists the disks of this machine."
    if options.rules:
        hint = "Change the rules, or choose another target."
    if all("was captured from" in reason for reason in reasons):
        hint = "Add --onto-source if that is what you want."
    return RefusedError(
        f"Recovery point {point[:12]} cannot be restored there: {reasons[0]}.", hint=hint, reasons=tuple(reasons)
    )


def _in_sectors_of(disk: Disk, candidate: Candidate) -> Candidate:
    """A plain file has no sectors of its own: it gets those that the disk had."""
    if candidate.plain and candidate.size % disk.sector_size == 0:
        return msgspec.structs.replace(candidate, sector_size=disk.sector_size)
    return candidate


def _wishes(
    disk: Disk,
    contents: Contents,
    growable: frozenset[str],
    rules: Sequence[PartitionRule],
    options: PlanOptions,
) -> Wishes:
    """What the fit of one disk is asked for."""
    return Wishes(
        growth=options.growth,
        rules=tuple(rule for rule in rules if rule.disk in ("", disk.id)),
        table=options.table,
        firmware=options.firmware,
        growable=growable,
        least=contents.least,
        conversion=contents.convert,
    )


def _carried(disk: Disk, fitted: Fit, candidate: Candidate) -> Fit:
    """The fit with what its table keeps of the source's own records, made true for the target."""
    if fitted.table is None:
        return fitted
    carried = carry_records(disk, fitted.table, candidate.size, candidate.sector_size)
    return msgspec.structs.replace(fitted, table=carried.table, notes=(*fitted.notes, *carried.notes))


def _restored(manifest: Manifest, fits: Sequence[Fit]) -> Manifest:
    """The manifest without the volumes that do not go to a target: nobody needs their chunks."""
    kept = [
        volume
        for disk, fitted in zip(manifest.layout.disks, fits, strict=True)
        for volume in streamed([volume for volume in manifest.volumes if volume.disk == disk.id], fitted)
    ]
    disks = {disk.id for disk in manifest.layout.disks}
    kept += [volume for volume in manifest.volumes if volume.disk not in disks]
    return msgspec.structs.replace(manifest, volumes=tuple(kept))


def only_disks(manifest: Manifest, ids: Collection[str]) -> Manifest:
    """The manifest without the other disks and their volumes."""
    layout = msgspec.structs.replace(
        manifest.layout,
        disks=tuple(disk for disk in manifest.layout.disks if disk.id in ids),
        containers=containers_on(manifest.layout, ids),
    )
    known = {device.id for device in layout.devices()}
    volumes = tuple(volume for volume in manifest.volumes if volume.disk in known)
    return msgspec.structs.replace(manifest, layout=layout, volumes=volumes)


def _reasons_against(manifest: Manifest, pairs: Sequence[Pair]) -> list[str]:
    candidates = [pair.candidate for pair in pairs]
    known = [disk.id for disk in manifest.layout.disks]
    named = [pair.disk for pair in pairs]
    reasons = [reason for candidate in candidates for reason in candidate.obstacles]
    reasons += [f"it has no disk {disk}: it has {', '.join(known)}" for disk in named if disk not in known]
    reasons += [f"{disk} has {named.count(disk)} targets" for disk in known if named.count(disk) > 1]
    if not pairs:
        reasons.append("no target is named")
    return reasons + same_disks(candidates)


def _is_source(disk: Disk, candidate: Candidate) -> bool:
    """Whether a target is the very disk, or image file, that was captured."""
    if candidate.file:
        return candidate.file == disk.path
    return is_same_identity(disk.identity, candidate.identity)


def survey_chunks(repository: Repository, point: str, manifest: Manifest) -> dict[str, Content]:
    """Walk every volume's map and check that each chunk is indexed and its pack is there, whole.

    Raises:
        DamagedError: naming every volume that cannot be restored.
    """
    problems: list[str] = []
    contents: dict[str, Content] = {}
    repository.check_packs()
    for volume in manifest.volumes:
        where = volume_name(point, manifest, volume)
        sector_size = manifest.layout.device(volume.disk).sector_size
        try:
            contents[volume.id] = _survey_volume(repository, volume, where, sector_size)
        except DamagedError as error:
            problems.append(error.message)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DamagedError(
            f"Recovery point {point[:12]} ({manifest.name}) is damaged: {problems[0]}{more}",
            hint="Choose another recovery point. Nothing was written.",
        )
    return contents


def _survey_volume(repository: Repository, volume: Volume, where: str, sector_size: int) -> Content:
    chunk = repository.chunk_size
    data = zero = stored = 0
    for slot in repository.slots(volume, where):
        length = min(chunk, volume.size - slot.number * chunk)
        if slot.id is None:
            zero += length
            continue
        place = repository.locate(slot.id)
        if place is None:
            lbas = lba_range(volume, slot.number, chunk, sector_size)
            raise repository.missing(slot.id, f"{where}, {lbas}")
        data += length
        stored += place.payload_length
    return Content(data=data, zero=zero, stored=stored)


def volume_name(point: str, manifest: Manifest, volume: Volume) -> str:
    """How errors name a volume."""
    return f"recovery point {point[:12]} ({manifest.name}), volume {volume.id}"


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


def _disk_steps(
    manifest: Manifest,
    disk: Disk,
    candidate: Candidate,
    fitted: Fit,
    surveyed: dict[str, Content],
    contents: Contents,
    options: PlanOptions,
) -> list[Step]:
    table = fitted.table
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
        disk, volumes, fitted, candidate.sector_size, surveyed, contents.open, verify=options.verify
    )


def _late_steps(
    manifest: Manifest,
    candidates: Sequence[Candidate],
    fits: Sequence[Fit],
    surveyed: Mapping[str, Content],
    late: Sequence[Step],
    options: PlanOptions,
) -> list[Step]:
    """What works on the restored filesystems, after all disks hold their data: growth, ``late``, the boot loader."""
    steps: list[Step] = []
    disks = manifest.layout.disks
    for disk, candidate, fitted in zip(disks, candidates, fits, strict=True):
        steps += late_steps(disk, manifest.volumes, fitted, candidate.sector_size, surveyed)
    steps += late
    if options.firmware is not None:
        steps += [RepairBoot(disk=disk.id, firmware=options.firmware) for disk in disks[:1]]
    return steps


def _notes(manifest: Manifest, candidates: Sequence[Candidate], options: PlanOptions) -> list[str]:
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
    for disk, candidate in zip(manifest.layout.disks, candidates, strict=True):
        if _is_source(disk, candidate):
            notes.append(f"The target is the disk {disk.id} was captured from: what changed there since is lost.")
    if options.unique:
        notes.append(UNIQUE_NOTE)
    if options.firmware is None:
        notes.append(UNIQUE_BOOT_NOTE if options.unique else "The boot loader is left as it was captured.")
    if not options.verify:
        notes.append("Verification is switched off: what is written will not be read back.")
    return notes
