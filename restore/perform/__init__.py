"""Who carries out which step."""

from restore.filesystems.grow import tools_to_grow
from restore.perform import filesystem, relocate, remake, shrink, stack, table, unique, volume
from restore.perform.work import Performer
from restore.plan.steps import (
    CloseStack,
    CreateArray,
    CreateTable,
    CreateVolumeGroup,
    GrowFilesystem,
    MakeUnique,
    OpenLuks,
    RelocateFilesystem,
    RemakeFat,
    RemakeVolume,
    RepairBoot,
    RestoreVolume,
    ShrinkVolume,
    Step,
    VerifyVolume,
    WipeSignatures,
    WriteHead,
)


def _grow_tools(step: Step) -> tuple[str, ...]:
    return tools_to_grow(step.kind) if isinstance(step, GrowFilesystem) else ()


PERFORMERS: dict[type[Step], Performer] = {
    WipeSignatures: Performer(perform=table.wipe_signatures, holding=True),
    CreateTable: Performer(perform=table.make_table, holding=True, alone=True, tools=lambda step: ("sfdisk", "fdisk")),
    WriteHead: Performer(perform=table.write_head, holding=True),
    RestoreVolume: Performer(perform=volume.restore_volume, holding=True),
    VerifyVolume: Performer(perform=volume.verify_volume, holding=True),
    ShrinkVolume: Performer(
        perform=shrink.shrink_volume, holding=True, tools=shrink.tools, prepare=shrink.prepare, against=shrink.against
    ),
    RelocateFilesystem: Performer(perform=relocate.relocate, holding=True),
    RemakeFat: Performer(perform=remake.remake_fat, holding=True),
    RemakeVolume: Performer(perform=remake.remake_volume, holding=False, tools=remake.tools, loops=True),
    GrowFilesystem: Performer(perform=filesystem.grow, holding=False, tools=_grow_tools, loops=True),
    RepairBoot: Performer(perform=filesystem.repair, holding=False, loops=True),
    MakeUnique: Performer(perform=unique.make_unique, holding=False, tools=unique.tools_of, loops=True),
    CreateArray: Performer(perform=stack.create_array, holding=False, tools=stack.tools, loops=True),
    OpenLuks: Performer(perform=stack.open_luks, holding=False, tools=stack.tools, loops=True),
    CreateVolumeGroup: Performer(perform=stack.create_group, holding=False, tools=stack.tools, loops=True),
    CloseStack: Performer(perform=stack.close_stack, holding=False),
}
