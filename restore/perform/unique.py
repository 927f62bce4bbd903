"""Making a restored machine another one than it was: identities and what refers to them, in one checked step."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from core.errors import LiferaftError
from core.events import Stage
from restore.boot.crypttab import named_by_crypttab, sealed
from restore.boot.efi import esp_folder, other_esps
from restore.boot.held import Held, held_partitions
from restore.boot.inside import run_inside
from restore.boot.lvm_devices import renew_devices
from restore.boot.mounts import MountedSystem, find_root, mount_held, mount_point, mounted_system
from restore.boot.system import read_system
from restore.perform.work import Outcome, Work
from restore.plan.steps import MakeUnique, RepairBoot, Step
from restore.stack.mountable import opened_luks, physical_volumes, stack_devices
from restore.target.partitions import partition_node
from restore.unique.filesystem import renew_filesystem, tools
from restore.unique.machine import forget_seeds, renew_host_keys, renew_machine_id
from restore.unique.references import ESP_PLACES, places_still_old, rewrite_places
from restore.unique.renewal import Renewal, Sort

_INITRAMFS_TIMEOUT = 3600.0


#: What the steps before have made with its new identity.
_CONTAINERS = (Sort.ARRAY, Sort.LUKS, Sort.LVM)


class _Made(msgspec.Struct):
    """What was done and what the user must know, a line each; grows as the step goes on."""

    done: list[str] = msgspec.field(default_factory=list)
    warnings: list[str] = msgspec.field(default_factory=list)


def tools_of(step: Step) -> tuple[str, ...]:
    """The programs this step runs."""
    assert isinstance(step, MakeUnique)
    kinds = {renewal.kind for renewal in step.renewals if renewal.sort is Sort.FILESYSTEM}
    return ("blkid", *(tool for kind in sorted(kinds) for tool in tools(kind)))


def make_unique(step: MakeUnique, work: Work) -> Outcome:
    """Filesystems first, then what the system on them says of itself, then a search for what is still old.

    Doing it again finishes what was left: what has its new identity already is not touched.

    Raises:
        DeviceError, ProcessError: a filesystem did not take its new identity; names which.
    """
    work.say(Stage.UNIQUE, step.describe())
    made = _Made()
    with contextlib.ExitStack() as stack:
        nodes: dict[str, Held] = {}
        for disk in work.candidates:
            nodes |= _renew_disk(disk, step.renewals, work, stack, made)
        for renewal in step.renewals:
            if renewal.sort is Sort.FILESYSTEM and renewal.disk not in work.candidates:
                _renew(work.node(renewal.disk), renewal, work, made)
            elif renewal.sort in _CONTAINERS:
                made.done.append(f"unique: {renewal.disk}: {renewal.sort} {renewal.old} is {renewal.new} now")
        nodes |= stack_devices(work.rebuilt(), work.alive.nodes())
        try:
            _renew_system(step.renewals, nodes, work, made)
        except OSError as error:
            # The filesystems have their new identities: boot repair is needed more than ever.
            where = error.filename or "a file of the system"
            made.warnings.append(f"the restored system keeps old identities: {where}: {error.strerror}")
    for line in made.done:
        work.say(Stage.UNIQUE, line)
    return Outcome(boot=tuple(made.done), warnings=tuple(made.warnings))


def _renew_disk(
    disk: str, renewals: Sequence[Renewal], work: Work, stack: contextlib.ExitStack, made: _Made
) -> dict[str, Held]:
    """The filesystems of one disk. Gives the nodes of its partitions, with their facts as they are now."""
    candidate, table = work.candidates[disk], work.restored(disk).table
    wanted = {
        renewal.number: renewal for renewal in renewals if (renewal.disk, renewal.sort) == (disk, Sort.FILESYSTEM)
    }
    nodes: dict[str, Held] = {}
    if table is None:
        if 0 in wanted:
            _renew(candidate.node, wanted[0], work, made)
        return nodes
    for held in held_partitions(candidate.node, work.restored(disk)):
        part = held.partition
        node = stack.enter_context(partition_node(candidate.node, part, candidate.sector_size, work.runner))
        nodes[node] = held
        if part.number in wanted:
            _renew(node, wanted[part.number], work, made)
    return nodes


def _renew(node: str, renewal: Renewal, work: Work, made: _Made) -> None:
    warning = renew_filesystem(node, renewal, work.runner)
    made.done.append(f"unique: {renewal.kind} {renewal.old} is {renewal.new} now")
    if warning:
        made.warnings.append(warning)


def _renew_system(renewals: Sequence[Renewal], nodes: Mapping[str, Held], work: Work, made: _Made) -> None:
    """The references of the Linux on the disks, when there is one."""
    found = find_root(nodes, work.runner, partial(work.say, Stage.UNIQUE))
    opened = opened_luks(work.rebuilt(), work.alive.nodes(), work.node)
    if found is None:
        why = sealed(nodes, opened)
        made.warnings.append(f"no Linux system was found{why}: no file was searched for the old identities")
        return
    # First the root alone: until its fstab is rewritten, it names filesystems that are no more.
    with mount_point("liferaft-root-") as folder:
        with mount_held(found.node, nodes[found.node], folder, work.runner, *found.words):
            changed = list(rewrite_places(folder, renewals))
    root_id = nodes[found.node].id
    with contextlib.ExitStack() as stack:
        tell = partial(work.say, Stage.UNIQUE)
        found, nodes = stack.enter_context(named_by_crypttab(found, nodes, opened, work.runner, tell))
        mounted = stack.enter_context(mounted_system(found, nodes, work.runner))
        root = mounted.root
        made.warnings += [absent.text for absent in mounted.absent if absent.reason]
        changed += rewrite_places(root, renewals)
        changed += _renew_other_esps(mounted, nodes, renewals, work, made)
        made.done += [f"unique: {path} names the new identities" for path in dict.fromkeys(changed)]
        for machine in (renewal for renewal in renewals if renewal.sort is Sort.MACHINE):
            if renew_machine_id(root, machine.new):
                made.done.append(f"unique: machine-id is {machine.new} now")
        keys, warning = renew_host_keys(root, partial(run_inside, root, runner=work.runner))
        if keys:
            made.done.append(f"unique: new SSH host keys ({', '.join(keys)})")
        if warning:
            made.warnings.append(warning)
        forgotten, warning = forget_seeds(root)
        made.done += [f"unique: {path} is made again at the next start" for path in forgotten]
        if warning:
            made.warnings.append(warning)
        # LVM's list has the new UUIDs already: now with what these disks are known by.
        listed = renew_devices(root, physical_volumes(work.rebuilt(), work.alive.nodes(), work.node), work.runner)
        made.done += [f"unique: {listed.done}"] if listed.done else []
        made.warnings += [listed.warning] if listed.warning else []
        if mounted.lacking:
            # It would be made in the empty folder that lies below.
            names = ", ".join(absent.place for absent in mounted.lacking)
            made.warnings.append(f"the initramfs was not made again, because {names} is not mounted")
        elif any(isinstance(step, RepairBoot) for step in work.plan.steps):
            # Which looks for drivers, too: once is enough.
            work.renewed = root_id
        else:
            _rebuild_initramfs(root, work, made)
        made.warnings += places_still_old(root, renewals)


def _renew_other_esps(
    mounted: MountedSystem, nodes: Mapping[str, Held], renewals: Sequence[Renewal], work: Work, made: _Made
) -> list[str]:
    """The references on EFI system partitions that the system does not mount at /boot/efi. Gives the changed files."""
    changed: list[str] = []
    for node, held in other_esps(mounted, nodes).items():
        where = f" on partition {held.partition.number} of {held.disk}"
        try:
            with esp_folder(node, mounted, work.runner, "--options=ro") as folder:
                if not places_still_old(folder, renewals, ESP_PLACES):
                    continue
            with esp_folder(node, mounted, work.runner) as folder:
                changed += [path + where for path in rewrite_places(folder, renewals, ESP_PLACES)]
                made.warnings += [line + where for line in places_still_old(folder, renewals, ESP_PLACES)]
        except (LiferaftError, OSError) as error:
            why = error.message if isinstance(error, LiferaftError) else f"{error.strerror}."
            made.warnings.append(f"the EFI system partition{where} may name the old identities: {why}")
    return changed


def _rebuild_initramfs(root: Path, work: Work, made: _Made) -> None:
    """An initramfs carries the swap device to resume from, crypttab and more: made again, not guessed about."""
    system = read_system(root)
    commands = {
        "update-initramfs": ("update-initramfs", "-u", "-k", "all"),
        "dracut": ("dracut", "--force", "--regenerate-all"),
    }
    command = commands.get(system.initramfs)
    if command is None or not system.kernels:
        if system.kernels:
            made.warnings.append("nothing here can make the initramfs again: it may name the old identities")
        return
    work.say(Stage.UNIQUE, "Making the initramfs again, with the new identities (this takes minutes)")
    try:
        run_inside(root, command, work.runner, timeout=_INITRAMFS_TIMEOUT)
        made.done.append("unique: initramfs made again")
    except LiferaftError as error:
        made.warnings.append(f"the initramfs could not be made again and may name the old identities: {error.message}")
