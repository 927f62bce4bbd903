"""Volumes made anew with the same identity, their files copied out of the recovery point and read back."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from core.errors import LiferaftError, RefusedError
from core.events import Meter, Stage, ticking
from images.browse.point import ChunkCache, VolumeSource, open_volume
from images.browse.tree import Tree
from images.model.extents import Extent
from restore.boot.mounts import mount, mount_point
from restore.filesystems.file_copy import copy_files
from restore.filesystems.file_proof import prove_files
from restore.filesystems.held import HeldPartition
from restore.filesystems.makers import MAKERS, remake_doubts
from restore.perform.work import Outcome, Work
from restore.plan.steps import RemakeFat, RemakeVolume, Step
from restore.planning.scarce import after_words
from restore.stream.ground import StreamCount
from restore.target.partitions import partition_node


def remake_fat(step: RemakeFat, work: Work) -> Outcome:
    """A FAT volume of another size, or in sectors of another size, written in one go and compared file by file.

    Raises:
        RefusedError: the recovery point holds no FAT there, or its files do not fit.
        DeviceError: writing failed, or something does not read back.
    """
    # They bring a library that few restores need.
    from images.browse.fat import FatFilesystem
    from restore.filesystems.fat_copy import FatCopy, gathered
    from restore.filesystems.fat_proof import prove_equal

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
    warnings = [f"partition {step.number}: {line}" for line in _doubt(source)]
    if _is_syslinux(source):
        warnings.append(f"partition {step.number}: Syslinux finds its files by their place: install it again")
    if copy.shape.kind is not step.kind:
        warnings.append(
            f"partition {step.number}: {step.kind} became {copy.shape.kind}, for it has too few clusters now"
        )
    return Outcome(count=StreamCount(written=position), verified=verified, warnings=tuple(warnings))


def remake_volume(step: RemakeVolume, work: Work) -> Outcome:
    """A fresh filesystem with the identity and features of the stored one, its files copied, and every one compared.

    Raises:
        RefusedError: the recovery point holds no such filesystem, or one that cannot be made again.
        DamagedError: a file cannot be read out of the recovery point.
        DeviceError: the files do not fit, writing failed, or something does not read back.
    """
    work.say(Stage.COPY, step.describe())
    source = _stored(step.volume, work)
    tree = Tree(source)
    against = remake_doubts(source, step.kind)
    if against:
        raise RefusedError(f"{source.name} is not made anew: {against[0]}.", reasons=against)
    maker = MAKERS[step.kind]
    copying = Meter(work.sink, Stage.COPY, step.data, message=f"Copying the files of {step.volume}")
    proving = Meter(work.sink, Stage.VERIFY, step.data, message=f"Comparing the files of {step.volume}")
    sector_size = _sector_size(step, work)
    with _place(step, work) as node:
        for words in maker.words(source, step.size, sector_size, node):
            work.runner.run(words, timeout=3600)
        with _mounted(node, work, maker.mounting) as folder, ticking(copying):
            said = copy_files(tree, folder, copying, work.repository.chunk_size)
        _forget_cached(node)
    if step.disk in work.candidates and work.candidates[step.disk].file:
        _forget_cached(work.candidates[step.disk].file)
    with _place(step, work) as node:
        with _mounted(node, work, f"{maker.mounting},ro") as folder, ticking(proving):
            verified = prove_files(Tree(source), folder, proving.advance)
        work.runner.run([*maker.check, node], timeout=24 * 3600)
    said += (*_doubt(source), *maker.notes(source))
    called = f"partition {step.number}" if step.number else step.disk
    warnings = tuple(f"{called}: {line}" for line in said) + after_words(called, step.kernel_room)
    return Outcome(count=StreamCount(written=copying.done), verified=verified, warnings=warnings)


def _sector_size(step: RemakeVolume, work: Work) -> int:
    """Of what the filesystem is made on, bytes."""
    if step.number == 0:
        return work.manifest.layout.device(step.disk).sector_size
    return work.candidates[step.disk].sector_size


@contextlib.contextmanager
def _place(step: RemakeVolume, work: Work) -> Iterator[str]:
    """The node of the partition, or of the device of the stack, that the filesystem is made on.

    Raises:
        LiferaftError: the plan says another place than the table, or another size than the device has.
    """
    if step.number == 0:
        node = work.node(step.disk)
        with Path(node).open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
        if (step.offset, step.size) != (0, size):
            raise LiferaftError(f"{step.describe()}: {step.disk} has {size} bytes, the plan says {step.size}.")
        yield node
        return
    candidate, partition = work.candidates[step.disk], work.partition(step.disk, step.number)
    if partition.extent(candidate.sector_size) != Extent(step.offset, step.offset + step.size):
        # Made by number, claimed by place: a plan that says two things would have another partition overwritten.
        raise LiferaftError(
            f"{step.describe()}: partition {step.number} does not lie at byte {step.offset} with {step.size} bytes."
        )
    with partition_node(candidate.node, partition, candidate.sector_size, work.runner) as node:
        yield node


def _is_syslinux(source: VolumeSource) -> bool:
    """Whether the boot sector is that of Syslinux, which keeps a list of sectors and no name."""
    return source.read_at(3, 8) == b"SYSLINUX"


def _doubt(source: VolumeSource) -> tuple[str, ...]:
    """What capture had to say of a volume whose files are copied now."""
    reason = source.volume.reason
    return (f"its files were copied out of a volume of which capture said: {reason}",) if reason else ()


@contextlib.contextmanager
def _mounted(node: str, work: Work, options: str) -> Iterator[Path]:
    with mount_point("liferaft-remake-") as folder:
        with mount(node, folder, work.runner, "--options", f"{options},nosuid,nodev,noexec") as place:
            yield place


def _forget_cached(path: str) -> None:
    """Have everything on the disk and nothing of it in memory: what is compared then comes from the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _stored(volume_id: str, work: Work) -> VolumeSource:
    volume = work.manifest.volume(volume_id)
    return open_volume(ChunkCache(work.repository), work.plan.recovery_point, work.manifest, volume)


def tools(step: Step) -> tuple[str, ...]:
    """The programs that making a filesystem anew runs."""
    own = MAKERS[step.kind].tools if isinstance(step, RemakeVolume) and step.kind in MAKERS else ()
    return ("mount", "umount", *own)
