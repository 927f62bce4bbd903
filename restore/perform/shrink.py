"""A volume made smaller: prepared on scratch before the first write to any target, then written and proven."""

import contextlib
import os
from collections.abc import Iterator

from core.events import Meter, Stage, ticking
from core.units import format_size
from images.browse.point import ChunkCache, open_volume
from restore.perform.work import Outcome, Work
from restore.plan.steps import ShrinkVolume, Step
from restore.planning.scarce import after_words
from restore.planning.surveyed import volume_name
from restore.shrink.kinds import SHRINKERS
from restore.shrink.made import shrunk_volume
from restore.shrink.mount import TOOLS as MOUNT_TOOLS
from restore.shrink.mount import obstacle
from restore.shrink.room import scratch_folder
from restore.shrink.writing import Writing


def tools(step: Step) -> tuple[str, ...]:
    """The programs that making this kind smaller runs."""
    if not isinstance(step, ShrinkVolume) or step.kind not in SHRINKERS:
        return ()
    return (*SHRINKERS[step.kind].tools, *MOUNT_TOOLS)


def against(step: ShrinkVolume) -> tuple[str, ...]:
    """Why this machine cannot make it smaller: a kind nobody can, no FUSE, no root where it has to be mounted."""
    if step.kind not in SHRINKERS:
        return (f"this version cannot make {step.kind} smaller",)
    reasons = [obstacle()]
    if SHRINKERS[step.kind].root and os.geteuid() != 0:
        reasons.append(f"making {step.kind} smaller needs root")
    return tuple(reason for reason in reasons if reason)


@contextlib.contextmanager
def prepare(step: ShrinkVolume, work: Work) -> Iterator[None]:
    """The filesystem is made smaller and checked while nothing is written yet: what fails here costs nothing."""
    work.say(Stage.PREFLIGHT, f"{step.volume}: making the {step.kind} filesystem smaller on scratch")
    volume = work.manifest.volume(step.volume)
    source = open_volume(ChunkCache(work.repository), work.plan.recovery_point, work.manifest, volume)
    name = volume_name(work.plan.recovery_point, work.manifest, volume)
    folder = scratch_folder(work.conduct.scratch)
    with shrunk_volume(source, step.kind, step.size, folder, work.runner, name, work.heard) as shrunk:
        work.shrunk[step.volume] = shrunk
        yield


def shrink_volume(step: ShrinkVolume, work: Work) -> Outcome:
    """What was prepared goes to its range, and is read back."""
    work.say(Stage.STREAM, step.describe())
    work.hold(step.disk)
    volume = work.manifest.volume(step.volume)
    writing = Writing(
        work.shrunk[step.volume],
        work.targets[step.disk],
        step.offset,
        volume_name(work.plan.recovery_point, work.manifest, volume),
        resume=work.streamers[step.disk].resume,
        discard=work.conduct.discard,
        halt=work.halt.check,
    )
    total = writing.size
    meter = Meter(work.sink, Stage.STREAM, total, message="Writing")
    with ticking(meter):
        count = writing.write(meter)
    place = f"partition {step.number}" if step.number else step.disk
    warnings = tuple(f"{place}: {note}" for note in writing.shrunk.notes) + after_words(place, step.kernel_room)
    if not step.verify:
        return Outcome(count=count, warnings=warnings)
    meter = Meter(work.sink, Stage.VERIFY, total, message="Reading back")
    with ticking(meter):
        mended = writing.verify(meter)
    if mended.rewritten:
        warnings += (
            f"{work.targets[step.disk].node}: {format_size(mended.rewritten)} of {step.volume} read back wrong and "
            f"were written once more. The disk may be failing.",
        )
    return Outcome(count=count + mended, verified=total + count.zeroed, warnings=warnings)
