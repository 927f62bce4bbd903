"""Making room and a table: wiped signatures, the partition table, boot code and boot area around it."""

from collections.abc import Iterator

from core.errors import DeviceError
from core.events import Stage
from images.model.extents import Extent, clip, gaps, merge
from restore.perform.work import Outcome, Work
from restore.plan.steps import CreateTable, RestoreVolume, WipeSignatures, WriteHead
from restore.planning.surveyed import volume_name
from restore.stream.ground import StreamCount
from restore.table.between import write_between
from restore.table.table import create_table


def wipe_signatures(step: WipeSignatures, work: Work) -> Outcome:
    """Zero what old signatures lie in, except where the target holds what the plan puts there: that is not old."""
    work.say(Stage.LAYOUT, step.describe())
    target = work.targets[step.disk]
    work.journal.stand(step.disk, table=False)
    kept = list(merge(sorted(_kept(step, work))))
    for extent in step.extents:
        for old in gaps(kept, extent):
            target.zero(old.start, old.size)
    target.flush()
    return Outcome()


def _kept(wipe: WipeSignatures, work: Work) -> Iterator[Extent]:
    """Chunks within what is wiped that match already, in whole sectors."""
    chunk, sector_size = work.repository.chunk_size, work.candidates[wipe.disk].sector_size
    for step in work.plan.steps:
        if not isinstance(step, RestoreVolume) or step.disk != wipe.disk:
            continue
        marks = work.streamers[step.disk].kept(step.volume)
        for extent in clip(wipe.extents, Extent(step.offset, step.offset + step.size)):
            for number in range((extent.start - step.offset) // chunk, -(-(extent.end - step.offset) // chunk)):
                if number in marks:
                    start = step.offset + number * chunk
                    end = min(start + chunk, step.offset + step.size)
                    yield Extent(start, start + (end - start) // sector_size * sector_size)


def make_table(step: CreateTable, work: Work) -> Outcome:
    """The partition table."""
    work.say(Stage.LAYOUT, step.describe())
    sector_size = work.candidates[step.disk].sector_size
    create_table(work.targets[step.disk], step.table, sector_size, work.runner)
    work.journal.stand(step.disk, table=True)
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
        start, sectors = write_between(target, extent.start, head[extent.start : extent.end], sector_size)
        if target.read_at(start, len(sectors)) != sectors:
            raise DeviceError(f"{target.node}: the boot area that was written does not read back.")
        written += extent.size
    return Outcome(count=StreamCount(written=written))
