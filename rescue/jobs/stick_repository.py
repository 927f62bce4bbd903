"""The repository on a stick's data partition: planned before the stick is written, filled when it is there.

The partition is mounted for that and let go again; recovery points come by the same copy as ``liferaft copy``, so
that running it again goes on where it stopped.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from builder.stick.data import VOLUME_LABEL
from builder.stick.layout import SECTOR
from core.errors import DeviceError, ProcessError
from core.events import Event, Sink, Stage
from core.process import Runner, find_tool
from core.stopping import lasting
from core.units import counted, format_size
from images.model.layout import Partition
from images.store.access import Access
from images.store.backend import LocalBackend
from images.store.connect import connect, open_repository
from images.store.document import DOCUMENT
from images.store.passphrase import AskPassphrase, Passphrase
from rescue.jobs.copy import copy_repository
from rescue.jobs.keys import init_repository
from restore.boot.mounts import mount_point
from restore.target.partitions import partition_node

#: The repository's folder on the data partition.
FOLDER = "repository"


class UnmountedError(DeviceError):
    """The data partition is there and cannot be mounted."""


class PlannedRepository(msgspec.Struct, frozen=True, kw_only=True):
    """What the data partition will hold.

    Attributes:
        source: whose recovery points are copied; empty for a new, empty repository. shown: it for people, without the
            password that its address may hold.
        access: opens it. passphrase: of the new one, when it will be encrypted.
        points: recovery points in the source. stored: its bytes; None when nobody can say.
        parity_blocks, chunk_size: of the source, which the copy takes over; chunk_size 0 for a new one.
    """

    source: str = ""
    shown: str = ""
    access: Access | None = None
    passphrase: Passphrase | None = None
    points: int = 0
    stored: int | None = None
    parity_blocks: int = 0
    chunk_size: int = 0

    def against(self, size: int, *, kept: bool) -> Iterator[str]:
        """What speaks against it on a data partition of ``size`` bytes; of one that is kept only the copy will tell
        how much is free."""
        if not kept and self.stored is not None and self.stored > size:
            yield (
                f"{self.shown} takes {format_size(self.stored)}, and the data partition would have {format_size(size)}"
            )
        if os.geteuid() != 0:
            yield "a repository can only be put on the stick by root, who may mount it: run it with sudo, or copy later"

    def describe(self) -> str:
        """For people."""
        sealed = ", encrypted" if self.passphrase else ""
        if not self.source:
            return f"An empty repository{sealed} is made on it."
        size = f", {format_size(self.stored)}" if self.stored is not None else ""
        return f"{counted(self.points, 'recovery point')} of {self.shown}{size} are copied to it{sealed}."


class StickRepository(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was put there.

    Attributes:
        folder: on the data partition. points: recovery points copied, or there already. stored: bytes.
        problems: a sentence for each recovery point that could not be copied.
    """

    folder: str
    points: int
    stored: int
    encrypted: bool = False
    problems: tuple[str, ...] = ()


def plan_repository(
    source: str, access: Access | None, new_passphrase: AskPassphrase, *, encrypt: bool
) -> PlannedRepository:
    """Look at the repository that is to be copied, or plan an empty one.

    Args:
        source: empty for an empty one.
        encrypt: the new one is encrypted; that of an encrypted source always is.
        new_passphrase: asked when it is.

    Raises:
        RefusedError, UnreachableError, DamagedError: the source cannot be read.
    """
    if not source:
        return PlannedRepository(passphrase=new_passphrase() if encrypt else None)
    opened = open_repository(source, access)
    parity = opened.document.parity
    return PlannedRepository(
        source=source,
        shown=opened.backend.location,
        access=access,
        passphrase=new_passphrase() if encrypt or opened.keys is not None else None,
        points=len(opened.points()),
        stored=_stored(source),
        parity_blocks=parity.parity_blocks if parity else 0,
        chunk_size=opened.chunk_size,
    )


def fill_repository(
    planned: PlannedRepository, node: str, part: Partition, runner: Runner, sink: Sink
) -> StickRepository:
    """Mount the data partition and put the repository there.

    Raises:
        UnmountedError: it cannot be mounted; the stick is whole, and the repository can be put there later.
        DeviceError: it is full, or failed.
    """
    with _mounted(node, part, runner) as place:
        folder = place / FOLDER
        if not (folder / DOCUMENT).exists():
            sink(Event(stage=Stage.COPY, message=f"Making the repository {FOLDER} on the data partition"))
            chosen = {"chunk_size": planned.chunk_size} if planned.chunk_size else {}
            init_repository(str(folder), passphrase=planned.passphrase, parity_blocks=planned.parity_blocks, **chosen)
        if not planned.source or not planned.points:
            return StickRepository(folder=FOLDER, points=0, stored=0, encrypted=planned.passphrase is not None)
        passphrase = planned.passphrase
        result = copy_repository(
            planned.source,
            str(folder),
            (),
            everything=True,
            decrypt=False,
            sink=sink,
            access=planned.access,
            target_access=Access(ask=lambda: passphrase) if passphrase else None,
        )
        problems = tuple(
            f"{point.source[:12]} was not copied: {point.problem}" for point in result.points if point.problem
        )
        return StickRepository(
            folder=FOLDER,
            points=len(result.points) - len(problems),
            stored=result.stored,
            encrypted=passphrase is not None,
            problems=problems,
        )


@contextlib.contextmanager
def _mounted(node: str, part: Partition, runner: Runner) -> Iterator[Path]:
    with (
        mount_point("liferaft-stick-") as folder,
        partition_node(node, part, SECTOR, runner) as device,
        # umount returns when all is on the stick.
        lasting(
            lambda: _mount(device, str(folder), runner), lambda _: runner.run(["umount", str(folder)], timeout=1800)
        ),
    ):
        yield folder


def _mount(device: str, folder: str, runner: Runner) -> None:
    """By the kernel; exFAT, which kernels may lack, by FUSE where that is installed."""
    ways: list[Sequence[str]] = [["mount", "-o", "nosuid,nodev,noexec", device, folder]]
    if find_tool("mount.exfat-fuse") is not None:
        ways.append(["mount.exfat-fuse", "-o", "nosuid,nodev,noexec", device, folder])
    problem = ""
    for way in ways:
        try:
            runner.run(way, timeout=120)
        except ProcessError as error:
            problem = problem or error.message
        else:
            return
    raise UnmountedError(
        f"The stick is written and starts, but its data partition {VOLUME_LABEL} cannot be mounted: {problem}",
        hint="This kernel may lack the filesystem; where it lacks exFAT, install exfat-fuse.",
    )


def _stored(source: str) -> int | None:
    backend = connect(source)
    if not isinstance(backend, LocalBackend):
        return None
    return sum(path.stat().st_size for path in backend.folder.rglob("*") if path.is_file())
