"""Streaming a volume to its range, and reading it back."""

from functools import partial

from core.events import Stage, ticking
from core.units import format_size
from restore.perform.work import Outcome, Work
from restore.plan.steps import RestoreVolume, VerifyVolume
from restore.stream.ground import StreamCount


def restore_volume(step: RestoreVolume, work: Work) -> Outcome:
    """Chunks to their LBA range; read back behind the writing where the plan verifies and it pays."""
    work.say(Stage.STREAM, step.describe())
    work.hold(step.disk)
    back = work.reading_back if step.volume in work.proven else None
    with ticking(work.writing):
        placed = work.placed(step.disk, step.volume, step.offset)
        note = partial(work.journal.note, step.volume) if step.disk in work.candidates else None
        return Outcome(count=work.streamers[step.disk].restore(placed, work.writing, back, note))


def verify_volume(step: VerifyVolume, work: Work) -> Outcome:
    """Every chunk that was not read back yet, compared with its id."""
    work.say(Stage.VERIFY, step.describe())
    work.hold(step.disk)
    work.targets[step.disk].flush()
    with ticking(work.reading_back):
        placed = work.placed(step.disk, step.volume, step.offset)
        proof = work.streamers[step.disk].verify(placed, work.reading_back)
        if step is work.last_proof(step.disk):
            work.streamers[step.disk].recheck(work.reading_back)
    warnings: tuple[str, ...] = ()
    if proof.rewritten:
        # What an earlier run noted was written by that run: a cache that lost it is no failing disk.
        chunks = placed.chunks(work.repository.chunk_size)
        noted = work.journal.began(step.disk) and bool(work.journal.done(step.volume, chunks))
        why = (
            "An earlier run had noted that some of this was written; if it comes again, the disk is failing."
            if noted
            else "The disk may be failing."
        )
        node, size = work.targets[step.disk].node, format_size(proof.rewritten)
        warnings = (f"{node}: {size} of {step.volume} read back wrong and were written once more. {why}",)
    return Outcome(count=StreamCount(rewritten=proof.rewritten), verified=proof.verified, warnings=warnings)
