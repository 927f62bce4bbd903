"""The plan: what a restore will do, as an inert document with a digest (DESIGN §4).

A plan is built by ``planner.py``, read by people (``render.py``), confirmed by giving back its digest,
and carried out by ``execute.py``. Changing anything in it changes the digest.
"""

import msgspec
from blake3 import blake3

from core.documents import encode
from images.model.layout import DiskIdentity
from images.model.machine import Occupant
from restore.plan.estimate import Estimate
from restore.plan.steps import RemakeFat, RemakeVolume, RestoreVolume, ShrinkVolume, Step

PLAN_VERSION = 2
DIGEST_DIGITS = 16


class TargetDisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disk that will be written.

    Attributes:
        source: the id of the disk in the manifest's layout that goes here.
        identity: how the disk is found again; not used when ``file`` is set.
        file: absolute path of an image file or loop device; empty for a disk of the machine.
        size, sector_size: bytes, as they were when the plan was made.
        destroys: what is on it now, a line each; holds: the same as ranges, where they are known.
        captured_size: of the source disk, bytes; captured: what lay where on it.
    """

    source: str
    identity: DiskIdentity
    file: str
    size: int
    sector_size: int
    destroys: tuple[str, ...]
    holds: tuple[Occupant, ...] = ()
    captured_size: int = 0
    captured: tuple[Occupant, ...] = ()

    @property
    def shown(self) -> str:
        """Its name for people, without a device node."""
        if self.file:
            return self.file
        names = [self.identity.model, self.identity.serial and f"serial {self.identity.serial}"]
        return " ".join(name for name in names if name) or f"WWN {self.identity.wwn or 'unknown'}"


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ordered, inert steps.

    Attributes:
        recovery_point: full id; name, created: for people.
        repository: where the chunks come from.
        notes: what the person should know before confirming.
        estimate: how long it may take; measured anew each time, and no part of the digest.
    """

    version: int = PLAN_VERSION
    recovery_point: str
    name: str
    created: str
    repository: str
    targets: tuple[TargetDisk, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    estimate: Estimate | None = None

    @property
    def digest(self) -> str:
        """What confirming gives back: the beginning of BLAKE3 over the canonical document without the estimate."""
        return blake3(encode(msgspec.structs.replace(self, estimate=None))).hexdigest()[:DIGEST_DIGITS]

    def target(self, disk: str) -> TargetDisk:
        """The target of a source disk; KeyError when the plan has none."""
        for target in self.targets:
            if target.source == disk:
                return target
        raise KeyError(disk)

    def bytes_written(self) -> int:
        """Bytes that will be written of volumes, zeros not counted; where something is made anew, about."""
        kinds = RestoreVolume | ShrinkVolume | RemakeFat | RemakeVolume
        return sum(step.data for step in self.steps if isinstance(step, kinds))
