"""Large disks that are cheap to make: 16 TiB with a synthetic map, 100 GiB with real files."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.disk import mounted, partition
from images.model.layout import Disk, DiskIdentity, Layout, PartitionTable
from images.model.manifest import CaptureMode, Manifest, Volume, VolumeRole
from images.sources import open_source
from images.store.connect import connect
from images.store.create import open_or_create
from images.store.pages import Slot, height_for, write_tree
from images.store.records import Codec, RecordKind
from images.store.writer import RepositoryWriter, writing
from images.tables.detect import read_table

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
#: A file of ext4 ends one block before 16 TiB.
HUGE = 16 * TIB - MIB
HUGE_USED = 100 * GIB
#: Chunks that lie together, as extents of files do.
RUN = 16
BIG = 100 * GIB
WANTED = "bench/one-mebibyte.bin"


def make_huge(folder: Path) -> tuple[Path, Path]:
    """A repository with a recovery point of a disk of 16 TiB, 100 GiB of it in use, all over; and a blank target.

    The records of the chunks are synthetic, a few bytes each: planning looks up where they lie and reads none of
    them. Everything else (table, manifest, pages, index, packs of the size the index tells) is what a capture makes.
    """
    image, repo = folder / "huge.img", folder / "huge-repo"
    with image.open("wb") as stream:
        stream.truncate(HUGE)
    subprocess.run(["sfdisk", "-q", str(image)], input="label: gpt\nstart=2048\n", text=True, check=True)
    with open_source(image) as source:
        table = read_table(source)
        assert table is not None
        disk = _disk(image, table, source.size)
        offset = table.partitions[0].extent(512).start
        size = table.partitions[0].extent(512).size
    with writing(open_or_create(connect(str(repo)))) as writer:
        chunks = -(-size // MIB)
        root = write_tree(_slots(writer, chunks), chunks, lambda page: _keep(writer, RecordKind.PAGE, page))
        volume = Volume(
            id="disk0-part1",
            disk="disk0",
            role=VolumeRole.PARTITION,
            partition="disk0-part1",
            offset=offset,
            size=size,
            root=root.hex() if root else None,
            height=height_for(chunks),
            allocated=HUGE_USED,
            mode=CaptureMode.USED,
        )
        writer.commit(
            Manifest(
                tool="benchmarks",
                name="huge",
                created="2026-01-01T00:00:00+00:00",
                origin="synthetic",
                machine=None,
                layout=Layout(disks=(disk,)),
                volumes=(volume,),
            )
        )
    image.unlink()
    target = folder / "huge-target.img"
    with target.open("wb") as stream:
        stream.truncate(HUGE)
    return repo, target


def _disk(image: Path, table: PartitionTable, size: int) -> Disk:
    identity = DiskIdentity(model="synthetic")
    named = tuple(msgspec.structs.replace(part, id=f"disk0-part{part.number}") for part in table.partitions)
    table = msgspec.structs.replace(table, partitions=named)
    return Disk(
        id="disk0",
        identity=identity,
        size=size,
        sector_size=512,
        physical_sector_size=512,
        path=str(image),
        table=table,
    )


def _slots(writer: RepositoryWriter, chunks: int) -> Iterator[Slot]:
    """Runs of used chunks, evenly over the whole volume, each chunk with a record of its own."""
    wanted = HUGE_USED // MIB
    for run in range(wanted // RUN):
        first = run * (chunks // (wanted // RUN))
        for number in range(first, first + RUN):
            yield Slot(number, _keep(writer, RecordKind.CHUNK, b"synthetic chunk %016d" % number))


def _keep(writer: RepositoryWriter, kind: RecordKind, content: bytes) -> bytes:
    identifier = writer.repository.identify(content)
    writer.put(kind, identifier, len(content), Codec.STORED, content)
    return identifier


def make_big(folder: Path, disk: Path) -> Path:
    """The disk with real files, grown to 100 GiB, and one file of 1 MiB more, of bytes that do not compress."""
    big = folder / "big.img"
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(disk), str(big)], check=True)
    with big.open("r+b") as stream:
        stream.truncate(BIG)
    subprocess.run(["sfdisk", "-q", "--relocate", "gpt-bak-std", str(big)], check=True)
    subprocess.run(["sfdisk", "-q", "-N", "1", str(big)], input=", +\n", text=True, check=True)
    with partition(big) as node:
        subprocess.run(["e2fsck", "-fp", node], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["resize2fs", node], check=True, capture_output=True)
        with mounted(node, folder / "big.mnt") as place:
            wanted = place / WANTED
            wanted.parent.mkdir()
            with Path("/dev/urandom").open("rb") as noise:
                wanted.write_bytes(noise.read(MIB))
            shutil.copy(wanted, folder / "wanted.bin")
    return big
