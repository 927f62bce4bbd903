"""Placement: the disks of a recovery point on their targets: what fits where, and every reason against it.

What the planner makes steps of, and what is shown to a person who still decides. No chunk is looked for and nothing is
written; of the contents, metadata alone is read.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import msgspec

from core.errors import RefusedError
from images.browse.point import ChunkCache
from images.model.layout import Disk, Layout
from images.model.machine import Firmware
from images.model.manifest import Manifest
from images.model.stack import VolumeGroup
from images.store.repository import Repository
from restore.fit.fitting import Fit, fit
from restore.fit.wishes import Wishes
from restore.planning.contents import Contents
from restore.planning.degraded import Degraded, without_members
from restore.planning.growing import Chosen, chosen_volumes, disks_that_grow, growable_members, with_members
from restore.planning.left_out import dropped_partitions, left_out
from restore.planning.lessening import Lessening
from restore.planning.matching import Pair, is_same_identity, same_disks
from restore.planning.rules import Growth, PartitionRule, TableChoice
from restore.planning.scarce import scarce_notes, scarce_rooms
from restore.planning.seating import rules_reasons
from restore.planning.stack_steps import Room, containers_on, stack_reasons, stack_sizes
from restore.target.candidates import Candidate
from restore.unique.planning import unique_reasons


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user decides.

    Attributes:
        rules: for single partitions; they decide before ``growth`` does.
        firmware: None: do not repair the boot loader.
        onto_source: the disk the recovery point was taken from may be the target.
        unique: give the restored machine identities of its own, for cloning.
        degraded: arrays come back without the members that are left out, as far as their redundancy allows.
    """

    growth: Growth = Growth.NONE
    rules: tuple[PartitionRule, ...] = ()
    table: TableChoice = TableChoice.KEEP
    verify: bool = True
    firmware: Firmware | None = None
    onto_source: bool = False
    unique: bool = False
    degraded: bool = False


class Placing(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of the recovery point on its target."""

    disk: Disk
    candidate: Candidate
    fit: Fit
    contents: Contents


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """All of them.

    Attributes:
        manifest: with the disks that are restored, alone, and without what partitions that are left out take along.
        layout: of these disks, with that.
        left: ids of those that are not.
        placings: in the order of the disks.
        chosen: by id of a volume group, the volume that a rule lets grow.
        growth: who takes the room that no rule is about.
        reasons: every reason against; the fits are then not to be used.
        notes: a sentence for each array that lacks members which are left out.
        scarce: by id of the partition or device that a filesystem with kernels lies on, the bytes that one more kernel
            takes, where it would not find them.
        degradable: a few words for each array that does, or could do, without what is left out.
    """

    manifest: Manifest
    layout: Layout
    left: tuple[str, ...]
    placings: tuple[Placing, ...]
    chosen: Chosen
    growth: Growth
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()
    scarce: Mapping[str, int] = MappingProxyType({})
    degradable: tuple[str, ...] = ()


def place(
    repository: Repository, point: str, pairs: Sequence[Pair], options: PlanOptions, cache: ChunkCache | None = None
) -> Placement:
    """Place disks of a recovery point on their targets.

    Args:
        point: the full id.
        pairs: in any order; a disk that is in none is left out.
    """
    whole = repository.manifest(point)
    reduced = _reduced(whole, pairs, options)
    if options.degraded:
        whole = msgspec.structs.replace(whole, layout=reduced.layout)
    manifest = only_disks(whole, [pair.disk for pair in pairs])
    disks = manifest.layout.disks
    named = {pair.disk: pair.candidate for pair in pairs}
    cache = cache or ChunkCache(repository)
    chosen, unfollowed = chosen_volumes(manifest.layout, options.rules)
    growable = growable_members(manifest.layout, chosen)
    rules = with_members(manifest.layout, options.rules, chosen)
    placings: list[Placing] = []
    for disk in disks:
        candidate = _in_sectors_of(disk, named[disk.id])
        contents = Contents(repository, point, manifest, disk, cache)
        wishes = _wishes(disk, contents, growable, rules, options)
        fitted = fit(disk, candidate.size, candidate.sector_size, wishes)
        placings.append(Placing(disk=disk, candidate=candidate, fit=fitted, contents=contents))
    reasons = [*_against_pairs(whole, pairs), *_against_sources(placings, options), *unfollowed]
    reasons += rules_reasons([rule for rule in options.rules if rule.partition], [disk.id for disk in disks])
    reasons += [reason for placing in placings for reason in _against_fit(placing)]
    layout = manifest.layout
    placings, manifest, against = _without_dropped(whole.layout, placings, manifest, rules)
    reasons += against
    reasons += [
        f"there is a rule for {container.name}/{chosen[container.id]}, and its group is left out"
        for container in whole.layout.containers
        if isinstance(container, VolumeGroup) and container.id in chosen and container not in manifest.layout.containers
    ]
    if options.unique:
        reasons += unique_reasons(repository, point, manifest)
    placement = Placement(
        manifest=manifest,
        layout=layout,
        left=tuple(disk.id for disk in whole.layout.disks if disk not in disks),
        placings=tuple(placings),
        chosen=chosen,
        growth=options.growth,
        reasons=tuple(reasons),
        notes=reduced.notes if options.degraded else (),
        degradable=reduced.effects,
    )
    return placement if reasons else _with_scarce(placement)


def _reduced(whole: Manifest, pairs: Sequence[Pair], options: PlanOptions) -> Degraded:
    """The layout with its arrays on what is restored alone, whether or not that is wanted."""
    named = [pair.disk for pair in pairs]
    dropped = [
        name
        for disk in whole.layout.disks
        if disk.id in named
        for name in dropped_partitions(disk, _rules_of(disk, options.rules))
    ]
    return without_members(whole.layout, named, dropped)


def room_of(placement: Placement, layout: Layout) -> Room:
    """Who in the stack of a layout, which is the placement's or one made of it, takes or gives up room."""
    placings = placement.placings
    return Room(
        targets={placing.disk.id: placing.candidate.size for placing in placings if placing.disk.table is None},
        growing=disks_that_grow(layout, placement.chosen, asked=placement.growth is not Growth.NONE),
        chosen=placement.chosen,
        lessening={placing.disk.id: _lessening(placing) for placing in placings},
        open=placings[0].contents.open,
    )


def _with_scarce(placement: Placement) -> Placement:
    """With what is to be known of filesystems that lose the room for one more kernel."""
    layout, placings = placement.manifest.layout, placement.placings
    if not any(placing.fit.roomy for placing in placings):
        return placement
    fits, sector_sizes = [one.fit for one in placings], [one.candidate.sector_size for one in placings]
    sizes = stack_sizes(layout, fits, sector_sizes, room_of(placement, layout))
    scarce: dict[str, int] = {}
    told: list[Placing] = []
    for placing in placings:
        rooms = scarce_rooms(layout, placing.disk, placing.contents, sizes) if placing.fit.roomy else {}
        notes = scarce_notes(layout, rooms, placing.fit.roomy, placing.candidate.size)
        fitted = msgspec.structs.replace(placing.fit, notes=(*notes, *placing.fit.notes))
        told.append(msgspec.structs.replace(placing, fit=fitted))
        scarce |= rooms
    return msgspec.structs.replace(placement, placings=tuple(told), scarce=scarce)


def _lessening(placing: Placing) -> Lessening:
    return placing.contents.bare_lessening if placing.fit.roomy else placing.contents.lessening


def _without_dropped(
    whole: Layout, placings: list[Placing], manifest: Manifest, rules: Sequence[PartitionRule]
) -> tuple[list[Placing], Manifest, list[str]]:
    """All without the containers that partitions which are left out take with them, and why the others cannot be made.

    Args:
        whole: the layout with the disks that have no target, too.
        manifest: with the disks that are restored, alone.
    """
    disks = [placing.disk.id for placing in placings]
    dropped = [
        name for placing in placings for name in dropped_partitions(placing.disk, _rules_of(placing.disk, rules))
    ]
    left = left_out(whole, disks, dropped)
    bare = {placing.disk.id: placing.candidate.size for placing in placings if placing.disk.table is None}
    reasons = [*left.reasons, *stack_reasons(whole, disks, left.containers, bare)]
    if left.reasons:
        return placings, manifest, reasons
    if left.notes:
        fitted = placings[0].fit
        fitted = msgspec.structs.replace(fitted, notes=(*fitted.notes, *left.notes))
        placings = [msgspec.structs.replace(placings[0], fit=fitted), *placings[1:]]
    layout = manifest.layout
    containers = tuple(container for container in layout.containers if container.id not in left.containers)
    manifest = msgspec.structs.replace(
        manifest,
        layout=msgspec.structs.replace(layout, containers=containers),
        volumes=tuple(volume for volume in manifest.volumes if volume.disk not in left.devices),
    )
    return placings, manifest, reasons


def refusal(point: str, reasons: Sequence[str], options: PlanOptions) -> RefusedError:
    """The error that says every reason against a restore."""
    hint = "Choose another target; liferaft probe lists the disks of this machine."
    if options.rules:
        hint = "Change the rules, or choose another target."
    if all("was captured from" in reason for reason in reasons):
        hint = "Add --onto-source if that is what you want."
    return RefusedError(
        f"Recovery point {point[:12]} cannot be restored there: {reasons[0]}.", hint=hint, reasons=tuple(reasons)
    )


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


def is_source(disk: Disk, candidate: Candidate) -> bool:
    """Whether a target is the very disk, or image file, that was captured."""
    if candidate.file:
        return candidate.file == disk.path
    return is_same_identity(disk.identity, candidate.identity)


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
        rules=_rules_of(disk, rules),
        table=options.table,
        firmware=options.firmware,
        growable=growable,
        least=contents.least,
        bare=contents.bare_least,
        boots=contents.holds_boot,
        conversion=contents.convert,
    )


def _rules_of(disk: Disk, rules: Sequence[PartitionRule]) -> tuple[PartitionRule, ...]:
    return tuple(rule for rule in rules if rule.disk in ("", disk.id))


def _against_pairs(manifest: Manifest, pairs: Sequence[Pair]) -> list[str]:
    candidates = [pair.candidate for pair in pairs]
    known = [disk.id for disk in manifest.layout.disks]
    named = [pair.disk for pair in pairs]
    reasons = [reason for candidate in candidates for reason in candidate.obstacles]
    reasons += [f"it has no disk {disk}: it has {', '.join(known)}" for disk in named if disk not in known]
    reasons += [f"{disk} has {named.count(disk)} targets" for disk in known if named.count(disk) > 1]
    if not pairs:
        reasons.append("no target is named")
    return reasons + same_disks(candidates)


def _against_sources(placings: Sequence[Placing], options: PlanOptions) -> list[str]:
    if options.onto_source:
        return []
    return [
        f"{placing.candidate.node} is the disk that {disk.id} was captured from: what changed there since would be lost"
        for placing in placings
        for disk in (other.disk for other in placings)
        if is_source(disk, placing.candidate)
    ]


def _against_fit(placing: Placing) -> list[str]:
    fitted, contents, sector_size = placing.fit, placing.contents, placing.candidate.sector_size
    against = [*fitted.reasons, *contents.against_remaking(fitted.seats, sector_size)]
    against += contents.against_growing(fitted.seats, sector_size)
    if fitted.reasons and placing.candidate.size < placing.disk.size:
        against += [
            f"{device} cannot be made smaller: {why}" for device, why in contents.lessening.firm_above().items()
        ]
    return [f"{placing.disk.id} to {placing.candidate.node}: {reason}" for reason in against]
