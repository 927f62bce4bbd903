"""Volumes made anew with the same identity, their files copied out of the recovery point and read back."""

from core.errors import RefusedError
from core.events import Meter, Stage, ticking
from images.browse.fat import FatFilesystem
from images.browse.point import ChunkCache, VolumeSource, open_volume
from images.browse.tree import Tree
from restore.filesystems.fat_copy import FatCopy, gathered
from restore.filesystems.fat_proof import prove_equal
from restore.filesystems.held import HeldPartition
from restore.ground import StreamCount
from restore.perform.work import Outcome, Work
from restore.steps import RemakeFat


def remake_fat(step: RemakeFat, work: Work) -> Outcome:
    """A FAT volume of another size, or in sectors of another size, written in one go and compared file by file.

    Raises:
        RefusedError: the recovery point holds no FAT there, or its files do not fit.
        DeviceError: writing failed, or something does not read back.
    """
    work.say(Stage.COPY, step.describe())
    sector_size = work.candidates[step.disk].sector_size
    source = _stored(step.volume, work)
    stored = Tree(source).filesystem
    if not isinstance(stored, FatFilesystem):
        raise RefusedError(f"{source.name} holds {stored.name}, not {step.kind}: it is not made anew.")
    new_lba = step.offset // sector_size
    copy = FatCopy(source, stored, step.size, sector_size, old_lba=step.old_lba, new_lba=new_lba)
    partition = HeldPartition(work.targets[step.disk], step.offset, step.size, sector_size)
    target, position = work.targets[step.disk], 0
    writing = Meter(work.sink, Stage.COPY, copy.size, message=f"Writing {step.kind}")
    with ticking(writing):
        for piece in gathered(copy.pieces()):
            target.write_at(step.offset + position, piece)
            position += len(piece)
            writing.advance(len(piece))
    target.flush()
    proving = Meter(work.sink, Stage.VERIFY, copy.data, message=f"Comparing the files of {step.kind}")
    with ticking(proving):
        verified = prove_equal(stored, FatFilesystem(partition), proving.advance)
    warnings = []
    if copy.shape.kind is not step.kind:
        warnings.append(
            f"partition {step.number}: {step.kind} became {copy.shape.kind}, for it has too few clusters now"
        )
    return Outcome(count=StreamCount(written=position), verified=verified, warnings=tuple(warnings))


def _stored(volume_id: str, work: Work) -> VolumeSource:
    volume = work.manifest.volume(volume_id)
    return open_volume(ChunkCache(work.repository), work.plan.recovery_point, work.manifest, volume)
