"""Inputs the fuzzer begins with: sound structures, so that it spends its time behind the first check."""

import os
from uuid import UUID

import msgspec
import zstandard

from core.documents import encode
from images.model.layout import (
    Disk,
    DiskIdentity,
    Filesystem,
    FilesystemKind,
    Layout,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from images.model.manifest import CaptureMode, Manifest, Volume, VolumeRole
from images.model.stack import Array, ArrayMember, LogicalVolume, Luks, PhysicalVolume, VolumeGroup
from images.store.catalogue import Catalogue, PointSummary
from images.store.index import IndexBuilder, Location
from images.store.keys import KeySlot, RepositoryKeys
from images.store.pages import Page, encode_page
from images.store.passphrase import Passphrase
from images.store.records import Codec, RecordKind, chunk_id, encode_record
from images.store.sealed import seal_document
from images.store.signature import new_signing_key, read_signing_key
from tests.fuzz.parity import parity_seeds
from tests.samples import sample_machine

_REPOSITORY = bytes(range(16))


def seeds(target: str) -> list[bytes]:
    """Inputs for a target; those on images begin with one patch of one byte."""
    makers = {
        "page": _pages,
        "tree": _trees,
        "record": _records,
        "index": _indexes,
        "manifest": lambda: [encode(sample_manifest()), encode(stacked_manifest())],
        "machine": lambda: [encode(sample_machine())],
        "catalogue": _catalogues,
        "sealed": lambda: [encode(seal_document(RepositoryKeys(bytes(32)), "points", _REPOSITORY, b"x" * 40))],
        "key-slot": _slots,
        "signature": lambda: [read_signing_key(new_signing_key()[0], "seed").sign("00" * 32)],
        "parity": parity_seeds,
        "plan": lambda: [b'{"version":1,"steps":[],"targets":[],"notes":[]}'],
    }
    maker = makers.get(target)
    return maker() if maker else [bytes([base]) + b"\0\0\0\0\0\0" for base in range(8)]


def _pages() -> list[bytes]:
    page = Page(0, {0: bytes(32), 255: b"\1" * 32}, frozenset({1, 2}))
    upper = Page(1, {3: bytes(32)}, frozenset())
    return [bytes([level.level]) + encode_page(level) for level in (page, upper)]


def _trees() -> list[bytes]:
    pages = [encode_page(Page(level, {0: bytes(32), 9: b"\1" * 32}, frozenset())) for level in (0, 1, 2)]
    return [chunks.to_bytes(3, "little") + page[4:] for chunks in (200, 60_000, 1 << 23) for page in pages]


def _records() -> list[bytes]:
    plain = os.urandom(50) + bytes(500)
    packed = zstandard.compress(plain)
    return [
        b"".join(encode_record(RecordKind.CHUNK, chunk_id(plain), len(plain), codec, payload, None))
        for codec, payload in ((Codec.STORED, plain), (Codec.ZSTANDARD, packed))
    ]


def _indexes() -> list[bytes]:
    builder = IndexBuilder()
    for number in range(20):
        builder.add(chunk_id(bytes([number])), Location(bytes(16), 64 + 100 * number, 20, 100))
    builder.close_pack(bytes(16), 4096)
    return [builder.encode(_REPOSITORY)]


def sample_manifest() -> Manifest:
    """A sound manifest: a GPT disk with an ESP, an ext4 and swap, and a dos disk with NTFS."""
    gpt = _disk("disk0", TableKind.GPT, [(2048, 65536, FilesystemKind.FAT32), (67584, 262144, FilesystemKind.EXT4)])
    dos = _disk(
        "disk1",
        TableKind.DOS,
        [(63, 9000, FilesystemKind.NTFS), (10240, 50000, None), (12288, 4096, FilesystemKind.EXT2)],
    )
    volumes = tuple(
        Volume(
            id=part.id,
            disk=disk.id,
            role=VolumeRole.PARTITION,
            partition=part.id,
            offset=part.start_lba * 512,
            size=part.sector_count * 512,
            root="00" * 32,
            height=0,
            allocated=4096,
            mode=CaptureMode.USED,
        )
        for disk in (gpt, dos)
        for part in (disk.table.partitions if disk.table else ())
        if part.filesystem
    )
    return Manifest(
        tool="liferaft",
        name="n",
        created="2026-11-21T00:00:00+00:00",
        origin="host",
        machine=sample_machine(),
        layout=Layout(disks=(gpt, dos)),
        volumes=volumes,
    )


def stacked_manifest() -> Manifest:
    """A sound manifest: a mirror over two disks, LUKS on it, in it LVM with a plain volume, a thin one and a pool."""
    plain = sample_manifest()
    first, second = plain.layout.disks
    mirror = Array(
        id="md0",
        uuid="01234567:89abcdef:01234567:89abcdef",
        name="host:0",
        level=1,
        metadata="1.2",
        slots=2,
        members=(
            ArrayMember(device="disk0-part2", slot=0, data_offset=1 << 20),
            ArrayMember(device="disk1-part1", slot=1, data_offset=1 << 20),
        ),
        size=3 << 20,
        component_size=3 << 20,
        bitmap=True,
    )
    luks = Luks(
        id="luks0", uuid=str(UUID(int=1)), device="md0", version=2, payload_offset=1 << 20, size=2 << 20, name="secret"
    )
    group = VolumeGroup(
        id="lvm0",
        uuid="Abcdef-0123-4567-89AB-CDEF-0123-456789",
        name="vg",
        extent_size=1 << 16,
        members=(
            PhysicalVolume(
                device="luks0", uuid="Bbcdef-0123-4567-89AB-CDEF-0123-456789", size=2 << 20, data_offset=4096
            ),
        ),
        volumes=tuple(
            LogicalVolume(
                id=f"lvm0-{name}",
                name=name,
                uuid=f"{name[:1]}bcdef-0123-4567-89AB-CDEF-0123-456789",
                size=1 << 20,
                segments=segments,
                pool="pool" if name == "thin" else "",
                active=name != "pool",
                filesystem=Filesystem(kind=FilesystemKind.EXT4) if name != "pool" else None,
            )
            for name, segments in (("root", ("linear",)), ("thin", ("thin",)), ("pool", ("thin-pool",)))
        ),
        backup='contents = "Text Format Volume Group"',
    )
    kept = tuple(volume for volume in plain.volumes if volume.id not in mirror.member_ids)
    made = tuple(
        Volume(
            id=device,
            disk=device,
            role=VolumeRole.DISK,
            offset=0,
            size=size,
            root="00" * 32,
            height=0,
            allocated=4096,
            mode=CaptureMode.USED,
        )
        for device, size in (("md0", luks.payload_offset), ("lvm0-root", 1 << 20), ("lvm0-thin", 1 << 20))
    )
    layout = Layout(disks=(first, second), containers=(mirror, luks, group))
    return msgspec.structs.replace(plain, version=2, layout=layout, volumes=(*kept, *made))


def _disk(name: str, kind: TableKind, places: list[tuple[int, int, FilesystemKind | None]]) -> Disk:
    is_gpt = kind is TableKind.GPT
    parts = tuple(
        Partition(
            id=f"{name}-part{number}",
            number=number,
            start_lba=start,
            sector_count=count,
            type="0x83",
            role=PartitionRole.PRIMARY if holds else PartitionRole.EXTENDED,
            uuid=UUID(int=number) if is_gpt else None,
            filesystem=Filesystem(kind=holds) if holds else None,
        )
        for number, (start, count, holds) in enumerate(places, 1)
    )
    table = PartitionTable(kind=kind, identifier="x", partitions=parts, entry_count=128 if is_gpt else 0)
    return Disk(id=name, identity=DiskIdentity(serial=name), size=1 << 28, sector_size=512, table=table)


def _catalogues() -> list[bytes]:
    point = PointSummary(id="00" * 32, name="n", created="2026", origin="h", disk_size=1, allocated=1)
    return [encode(Catalogue(indexes=("00" * 16 + ".index",), points=(point,)))]


def _slots() -> list[bytes]:
    keys = RepositoryKeys(bytes(32))
    slot: KeySlot = keys.wrap(Passphrase("x"), _REPOSITORY, label="first", created="2026")
    return [encode(slot)]
