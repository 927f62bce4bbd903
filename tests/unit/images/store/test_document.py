"""The repository document: one turned bit is never read as something else."""

from pathlib import Path

from core.documents import encode
from core.errors import DamagedError, RefusedError
from images.store.backend import LocalBackend
from images.store.document import new_document, read_document


def _read(folder: Path, data: bytes) -> object:
    (folder / "liferaft.json").write_bytes(data)
    return read_document(LocalBackend(folder))


def test_every_turned_bit_is_noticed_or_is_only_the_id(tmp_path: Path) -> None:
    document = new_document(encrypted=True, parity_blocks=2)
    data = encode(document)
    assert _read(tmp_path, data) == document
    start = data.index(b'"id":"') + 6
    passed = []
    for at in range(len(data) - 1):
        for bit in range(8):
            turned = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            try:
                found = _read(tmp_path, turned)
            except (DamagedError, RefusedError):
                continue
            # Packs, indexes and key slots repeat the id; numbers within bounds meet the packs' own.
            passed.append(at)
            assert found.encryption is not None  # type: ignore[attr-defined]
            assert found.parity is not None  # type: ignore[attr-defined]
    assert all(start <= at < start + 32 or chr(data[at]).isdigit() for at in passed)
