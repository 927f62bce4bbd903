"""Making room and a table: wiped signatures, the partition table, boot code and boot area around it."""

from core.errors import DeviceError
from core.events import Stage
from restore.ground import StreamCount
from restore.perform.work import Outcome, Work
from restore.planner import volume_name
from restore.steps import CreateTable, WipeSignatures, WriteHead
from restore.table import create_table


def wipe_signatures(step: WipeSignatures, work: Work) -> Outcome:
    """Zero what old signatures lie in."""
    work.say(Stage.LAYOUT, step.describe())
    target = work.targets[step.disk]
    for extent in step.extents:
        target.zero(extent.start, extent.size)
    target.flush()
    return Outcome()


def make_table(step: CreateTable, work: Work) -> Outcome:
    """The partition table."""
    work.say(Stage.LAYOUT, step.describe())
    sector_size = work.candidates[step.disk].sector_size
    create_table(work.targets[step.disk], step.table, sector_size, work.runner)
    return Outcome()


def write_head(step: WriteHead, work: Work) -> Outcome:
    """Boot code and gap go around the table that was made a moment ago.

    Raises:
        DeviceError: what was written does not read back.
    """
    work.say(Stage.LAYOUT, step.describe())
    volume = work.manifest.volume(step.volume)
    target = work.targets[step.disk]
    where = volume_name(work.plan.recovery_point, work.manifest, volume)
    chunk = work.repository.chunk_size
    head = bytearray(volume.size)
    for slot in work.repository.slots(volume, where):
        if slot.id is not None:
            plain = work.repository.read_chunk(slot.id, where)
            head[slot.number * chunk : slot.number * chunk + len(plain)] = plain
    sector_size = work.candidates[step.disk].sector_size
    written = 0
    for extent in step.extents:
        start, end = extent.start // sector_size * sector_size, -(-extent.end // sector_size) * sector_size
        sectors = bytearray(target.read_at(start, end - start))
        sectors[extent.start - start : extent.end - start] = head[extent.start : extent.end]
        target.write_at(start, bytes(sectors))
        if target.read_at(start, end - start) != sectors:
            raise DeviceError(f"{target.node}: the boot area that was written does not read back.")
        written += extent.size
    return Outcome(count=StreamCount(written=written))
