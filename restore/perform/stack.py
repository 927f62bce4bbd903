"""Making the stack again: arrays, opened containers, volume groups, bottom up; and closing it when all is done."""

from functools import partial

from core.events import Stage
from core.stopping import undisturbed
from core.units import counted, format_size
from images.model.stack import Array
from restore.perform.work import Outcome, Work
from restore.plan.steps import CloseStack, CreateArray, CreateVolumeGroup, OpenLuks, Step
from restore.stack import luks, lvm, md, thin


def create_array(step: CreateArray, work: Work) -> Outcome:
    """An array, of members that the steps before made."""
    work.say(Stage.LAYOUT, step.describe())
    nodes = {device: work.node(device) for device in step.array.member_ids}
    with undisturbed():
        node = md.create_array(step.array, nodes, work.runner, fill=step.fill)
        work.alive.add(step.array.id, node)
        work.alive.on_close(partial(md.stop_array, node, work.runner))
    captured = next((found for found in work.manifest.layout.containers if found.id == step.array.id), None)
    before = captured.lacking if isinstance(captured, Array) else 0
    called, lacking = f"array {step.array.name or step.array.id}", step.array.lacking
    if lacking and step.array.spares >= lacking:
        return Outcome(warnings=(f"{called} lacks {counted(lacking, 'member')} until md has filled its spares",))
    if lacking > before:
        node = f"/dev/md/{step.array.name.rpartition(':')[2] or step.array.id}"
        text = f"{called} lacks {counted(lacking, 'member')}, as the plan says: mdadm --manage {node} --add DEVICE"
        return Outcome(warnings=(text,))
    return Outcome(warnings=(f"{called} lacks {counted(lacking, 'member')}, as it did",) if lacking else ())


def open_luks(step: OpenLuks, work: Work) -> Outcome:
    """A container, whose header is in place again."""
    work.say(Stage.LAYOUT, step.describe())
    node = work.node(step.container.device)
    captured = next(found for found in work.manifest.layout.containers if found.id == step.container.id)
    if captured.uuid != step.container.uuid:
        luks.renew_luks(node, captured.uuid, step.container.uuid, work.runner)
    with undisturbed():
        opened = luks.open_luks(step.container, node, work.keys, work.runner)
        work.alive.add(step.container.id, opened)
        work.alive.on_close(partial(luks.close_luks, opened, work.runner))
    return Outcome()


def create_group(step: CreateVolumeGroup, work: Work) -> Outcome:
    """A volume group with all its volumes, active."""
    work.say(Stage.LAYOUT, step.describe())
    group = step.group
    nodes = {device: work.node(device) for device in group.member_ids}
    fronts = {volume.partition or volume.disk for volume in work.manifest.volumes}
    lvm.create_group(group, nodes, work.runner, fronts=fronts)
    if lvm.has_thin(group):
        thin.make_pools_empty(group, nodes, work.runner)
    work.alive.on_close(partial(lvm.deactivate_group, group, nodes, work.runner))
    for volume, node in lvm.activate_group(group, nodes, work.runner).items():
        work.alive.add(volume, node)
    if step.grow:
        size = lvm.extend_volume(group, step.grow, nodes, work.runner)
        work.say(Stage.LAYOUT, f"{group.name}/{step.grow} has {format_size(size)} now")
    return Outcome()


def close_stack(step: CloseStack, work: Work) -> Outcome:
    """Everything off, so that the disks can be taken out."""
    work.say(Stage.LAYOUT, step.describe())
    work.close()
    return Outcome()


def tools(step: Step) -> tuple[str, ...]:
    """Programs a step of the stack runs."""
    if isinstance(step, CreateArray):
        return md.TOOLS
    if isinstance(step, OpenLuks):
        return luks.TOOLS
    if isinstance(step, CreateVolumeGroup):
        thin_tools = thin.TOOLS if lvm.has_thin(step.group) else ()
        grow_tools = ("vgs", "pvresize", "lvextend") if step.grow else ()
        return (*lvm.TOOLS, *thin_tools, *grow_tools)
    return ()
