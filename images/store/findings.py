"""What a check finds: damage with its address, what it hits, garbage. Facts only; finding is in ``inspection.py``."""

from enum import StrEnum

import msgspec

#: Findings that are kept with their address; more are counted.
FINDINGS_LIMIT = 10_000


class DamageKind(StrEnum):
    """What is damaged."""

    KEY = "key slot"
    MANIFEST = "manifest"
    INDEX = "index"
    PACK = "pack"
    RECORD = "record"
    PAGE = "page"
    CHUNK = "chunk"
    PARITY = "parity"
    CATALOGUE = "catalogue"


#: What no restore needs: as long as nothing else is damaged, every recovery point restores.
HARMLESS = frozenset({DamageKind.PARITY, DamageKind.CATALOGUE, DamageKind.KEY})


class Damage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One damage.

    Attributes:
        file: named from the repository's root; empty when no file is known (a chunk that no index knows).
        offset, length: bytes in that file; None and 0 for the whole file.
        record: id of the chunk or page, 64 hex; empty when it is not about one.
        message: a sentence with file, offset, field, expected and found.
    """

    kind: DamageKind
    file: str = ""
    offset: int | None = None
    length: int = 0
    record: str = ""
    message: str

    @property
    def harmless(self) -> bool:
        """Whether every recovery point restores all the same."""
        return self.kind in HARMLESS


class Hit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a recovery point that cannot be restored.

    Attributes:
        record: id of the chunk or page that is lost, 64 hex.
        point, name: the recovery point. volume, disk, partition: ids in its manifest; ``partition`` may be empty.
        offset, size: bytes in the volume. first_lba, sector_count: on the disk it was taken from.
    """

    record: str
    point: str
    name: str
    volume: str
    disk: str
    partition: str = ""
    offset: int
    size: int
    first_lba: int
    sector_count: int


class Garbage(msgspec.Struct, frozen=True, kw_only=True):
    """What prune would collect. It does no harm. Sizes in bytes.

    Attributes:
        leftovers: files that were being written when their writer died.
        packs: that no index names (a capture that runs now has some, too); pack_bytes: their size.
        records: that no recovery point uses; record_bytes: their size.
        indexes: none of whose records is used.
        strays: parity without a pack, signatures without a manifest.
    """

    leftovers: int = 0
    packs: int = 0
    pack_bytes: int = 0
    records: int = 0
    record_bytes: int = 0
    indexes: int = 0
    strays: int = 0


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found, and what was repaired.

    Attributes:
        points: recovery points whose manifest is sound. packs, indexes: files that are there and sound.
        records: entries of all indexes. pages, chunks: of all trees, shared pages counted once.
        stored: bytes of all packs.
        proven_records, proven_bytes: read and hashed (``--data``).
        unprotected: packs without parity in a repository that has parity.
        damages: what is damaged now, at most 10000; damage_count: all of it.
        harmless: whether every recovery point restores nevertheless.
        hits: what cannot be restored; affected: ids of those recovery points.
        repaired: a sentence for each thing that was repaired.
        notes: what else should be known.
    """

    location: str
    points: int
    indexes: int
    packs: int
    records: int
    pages: int
    chunks: int
    stored: int
    proven_records: int
    proven_bytes: int
    unprotected: int
    damages: tuple[Damage, ...]
    damage_count: int
    harmless: bool
    hits: tuple[Hit, ...]
    affected: tuple[str, ...]
    garbage: Garbage
    repaired: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
