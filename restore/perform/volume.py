"""Streaming a volume to its range, and reading it back."""

from core.events import Stage, ticking
from restore.perform.work import Outcome, Work
from restore.steps import RestoreVolume, VerifyVolume


def restore_volume(step: RestoreVolume, work: Work) -> Outcome:
    """Chunks to their LBA range; read back behind the writing where the plan verifies and it pays."""
    work.say(Stage.STREAM, step.describe())
    back = work.reading_back if work.verifies else None
    with ticking(work.writing):
        placed = work.placed(step.disk, step.volume, step.offset)
        return Outcome(count=work.streamers[step.disk].restore(placed, work.writing, back))


def verify_volume(step: VerifyVolume, work: Work) -> Outcome:
    """Every chunk that was not read back yet, compared with its id."""
    work.say(Stage.VERIFY, step.describe())
    work.targets[step.disk].flush()
    with ticking(work.reading_back):
        placed = work.placed(step.disk, step.volume, step.offset)
        return Outcome(verified=work.streamers[step.disk].verify(placed, work.reading_back))
