"""What works on a restored filesystem, when the data is written and the kernel knows the partitions."""

from core.events import Stage
from images.model.layout import Disk
from restore.boot.awaited import known
from restore.boot.held import Held, held_partitions
from restore.boot.repair import Around, repair_boot
from restore.filesystems.grow import grow_filesystem
from restore.perform.work import Outcome, Work
from restore.plan.steps import GrowFilesystem, RepairBoot, container_of
from restore.stack.mountable import opened_luks, physical_volumes, stack_devices
from restore.target.partitions import partition_node


def grow(step: GrowFilesystem, work: Work) -> Outcome:
    """A filesystem to the size of its partition, or of its device of the stack."""
    work.say(Stage.GROW, step.describe())
    if step.number == 0 and work.alive.has(step.disk):
        said = grow_filesystem(work.node(step.disk), step.kind, work.runner)
        return Outcome(warnings=tuple(f"{step.disk}: {line}" for line in said))
    candidate = work.candidates[step.disk]
    partition = work.partition(step.disk, step.number)
    with partition_node(candidate.node, partition, candidate.sector_size, work.runner) as node:
        said = grow_filesystem(node, step.kind, work.runner)
    return Outcome(warnings=tuple(f"partition {step.number}: {line}" for line in said))


def repair(step: RepairBoot, work: Work) -> Outcome:
    """Boot loader and initramfs, for the hardware that is there now."""
    work.say(Stage.BOOT, step.describe())
    node = work.candidates[step.disk].node
    others: dict[str, Held] = dict(stack_devices(work.rebuilt(), work.alive.nodes()))
    other_disks: dict[str, Disk] = {}
    # A system may have its root, its boot partition or its ESP on any disk.
    for disk in (disk for disk in work.candidates if disk != step.disk):
        other = work.candidates[disk].node
        other_disks[other] = work.restored(disk)
        others |= {work.node(held.partition.id): held for held in held_partitions(other, other_disks[other])}
    layout, alive = work.rebuilt(), work.alive.nodes()
    disks = tuple(work.restored(disk) for disk in work.candidates)
    made = tuple(container for step in work.plan.steps if (container := container_of(step)) is not None)
    around = Around(
        others=others,
        other_disks=other_disks,
        opened=opened_luks(layout, alive, work.node),
        listed=physical_volumes(layout, alive, work.node),
        known=known(work.manifest.layout, disks, made),
        renewed=work.renewed,
    )
    fixed = repair_boot(node, work.restored(step.disk), step.firmware, work.runner, work.sink, around=around)
    return Outcome(boot=fixed.actions, warnings=fixed.warnings)
