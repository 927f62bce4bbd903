"""Parity files as an input: whatever they say, a pack is examined, repaired or refused within bounds."""

from collections.abc import Callable

from blake3 import blake3

from core.errors import DamagedError
from images.store.parity import examine, parity_name, protect, repair
from images.store.parity_head import DIGEST_SIZE, FIXED_SIZE, Parity, decode_geometry
from images.store.records import encode_pack_header
from images.store.repository import pack_name
from tests.unit.images.store.memory import MemoryBackend

REPOSITORY, PACK = bytes(range(16)), bytes(range(100, 116))
_SEALED_LIMIT = 1 << 20


def parity_seeds() -> list[bytes]:
    """Whole parity files, the first byte saying whether their head is sealed again."""
    return [bytes([seal]) + _protected().files[parity_name(PACK)] for seal in (0, 1)]


def parity_target() -> Callable[[bytes], None]:
    """Makes the target: a sound pack beside a parity file that may lie."""
    sound = _protected()
    pack = sound.files[pack_name(PACK)]

    def run(data: bytes) -> None:
        backend = MemoryBackend()
        backend.files = {pack_name(PACK): pack, parity_name(PACK): _sealed(data[1:]) if data[:1] == b"\1" else data[1:]}
        before = dict(backend.files)
        condition = examine(backend, REPOSITORY, PACK, size=len(pack))
        assert all(extent.end <= max(len(pack), condition.size) for extent in condition.damaged)
        try:
            repair(backend, REPOSITORY, PACK, size=len(pack))
        except DamagedError:
            assert not backend.writes or condition.repairable
            assert condition.repairable or backend.files == before
        else:
            assert condition.repairable

    return run


def _protected() -> MemoryBackend:
    backend = MemoryBackend()
    backend.write(pack_name(PACK), encode_pack_header(REPOSITORY, PACK) + bytes(range(256)) * 150)
    protect(backend, REPOSITORY, PACK, Parity(data_blocks=4, parity_blocks=2, block_size=4096))
    return backend


def _sealed(file: bytes) -> bytes:
    """The file with a digest of its first head that is right, as whoever wants to do harm would have it."""
    try:
        size = decode_geometry(file[:FIXED_SIZE], REPOSITORY, PACK, "input").head_size
    except DamagedError:
        return file
    if size > min(len(file), _SEALED_LIMIT):
        return file
    body = file[: size - DIGEST_SIZE]
    return body + blake3(body).digest() + file[size:]
