"""Small repositories made in milliseconds: disks of noise, chunks of 64 KiB. No tool is needed."""

import random
import struct
from pathlib import Path

import msgspec
import pytest

from core.events import ignore
from core.units import KIB, MIB
from images.capture import capture
from images.model.layout import DiskIdentity
from images.sources import open_source
from images.store import keys
from images.store.access import Access
from images.store.backend import LocalBackend, Writer
from images.store.connect import connect
from images.store.create import create_repository
from images.store.passphrase import Passphrase
from images.store.repository import Repository
from images.store.xaes import XaesKey
from images.survey import survey_disk

CHUNK = 64 * KIB
#: Where the partition begins; before it lies the head volume.
START = MIB
WORDS = "correct horse battery staple"


def noise_disk(path: Path, *, seed: int = 1, mebibytes: int = 3, changed: tuple[int, ...] = ()) -> Path:
    """A dos disk with one partition of noise, which nobody knows and which is captured whole.

    Args:
        changed: numbers of chunks of the partition that hold other noise.
    """
    size = (mebibytes - 1) * MIB
    content = bytearray(random.Random(seed).randbytes(size))
    for number in changed:
        content[number * CHUNK : (number + 1) * CHUNK] = random.Random(1000 * seed + number).randbytes(CHUNK)
    table = bytearray(START)
    struct.pack_into("<B3xB3xII", table, 446, 0, 0x83, START // 512, size // 512)
    table[510:512] = b"\x55\xaa"
    path.write_bytes(bytes(table) + bytes(content))
    return path


def access(*, encrypted: bool) -> Access:
    return Access(ask=lambda: Passphrase(WORDS)) if encrypted else Access()


def make(folder: Path, *, encrypted: bool = False, parity: int = 0) -> Path:
    """An empty repository with chunks of 64 KiB; its passphrase is cheap to stretch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys.RepositoryKeys, "wrap", _cheap_slot)
        create_repository(
            LocalBackend(folder),
            passphrase=Passphrase(WORDS) if encrypted else None,
            parity_blocks=parity,
            chunk_size=CHUNK,
        )
    return folder


def _cheap_slot(
    self: keys.RepositoryKeys, passphrase: Passphrase, repository: bytes, *, label: str, created: str
) -> keys.KeySlot:
    """A slot says itself how much work opening it asks for: here the least there is."""
    slot = keys.KeySlot(
        label=label, created=created, iterations=1, lanes=1, memory=8, salt=random.Random(3).randbytes(16).hex()
    )
    key = XaesKey(keys._stretch(slot, passphrase))
    nonce, sealed = key.seal(self._master, keys._associated(slot, repository))
    return msgspec.structs.replace(slot, nonce=nonce.hex(), sealed=sealed.hex())


def take(backend: Writer | Path, disk: Path, name: str = "n", *, encrypted: bool = False) -> str:
    """A recovery point; its id."""
    where = LocalBackend(backend) if isinstance(backend, Path) else backend
    repository = Repository(where, access(encrypted=encrypted))
    return take_into(repository, disk, name)


def take_into(repository: Repository, disk: Path, name: str = "n", host: str = "host") -> str:
    with open_source(disk) as source:
        surveys = (survey_disk(source, "disk0", DiskIdentity()),)
        origin = f"{host}: {disk}"
        taken = capture(repository, surveys, name=name, origin=origin, machine=None, tool="t", sink=ignore, threads=1)
    return taken.id


def opened(folder: Path, *, encrypted: bool = False) -> Repository:
    return Repository(connect(str(folder)), access(encrypted=encrypted))


def restored(repository: Repository, point: str) -> bytes:
    """The bytes of a recovery point's disk, chunk by chunk as the format says: head, then the partition."""
    manifest = repository.manifest(point)
    disk = bytearray(manifest.layout.disks[0].size)
    for volume in manifest.volumes:
        for slot in repository.slots(volume, volume.id):
            if slot.id is not None:
                plain = repository.read_chunk(slot.id, volume.id)
                at = volume.offset + slot.number * repository.chunk_size
                disk[at : at + len(plain)] = plain
    return bytes(disk)
