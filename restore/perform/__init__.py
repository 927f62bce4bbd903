"""Who carries out which step."""

from restore.grow import TOOLS as GROW_TOOLS
from restore.perform import filesystem, table, volume
from restore.perform.work import Performer
from restore.steps import (
    CreateTable,
    GrowFilesystem,
    RepairBoot,
    RestoreVolume,
    Step,
    VerifyVolume,
    WipeSignatures,
    WriteHead,
)

PERFORMERS: dict[type[Step], Performer] = {
    WipeSignatures: Performer(perform=table.wipe_signatures, holding=True),
    CreateTable: Performer(perform=table.make_table, holding=True, tools=lambda step: ("sfdisk",)),
    WriteHead: Performer(perform=table.write_head, holding=True),
    RestoreVolume: Performer(perform=volume.restore_volume, holding=True),
    VerifyVolume: Performer(perform=volume.verify_volume, holding=True),
    GrowFilesystem: Performer(perform=filesystem.grow, holding=False, tools=lambda step: GROW_TOOLS, loops=True),
    RepairBoot: Performer(perform=filesystem.repair, holding=False),
}
