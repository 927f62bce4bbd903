"""Making repositories, and who may open and sign them: what ``liferaft init`` and ``liferaft key`` do.

No job here touches data: passphrases open key slots, and only those are written and removed. Whoever takes one away
holds the repository's exclusive lock, so that two people cannot take away each other's.
"""

import os
from pathlib import Path

import msgspec

from core.errors import RefusedError, UsageError
from core.files import sync_folder
from images.store.access import Access
from images.store.backend import Reader, Writer
from images.store.connect import connect
from images.store.create import create_repository
from images.store.document import CHUNK_SIZE, read_document
from images.store.keyring import add_slot, find_slot, opened_slots, read_slots, remove_slot
from images.store.locks import LockKind, locked
from images.store.passphrase import AskPassphrase, Passphrase, PassphraseNeededError
from images.store.repository import Repository
from images.store.signature import new_signing_key
from images.store.writer import writable, write_catalogue


class NewRepository(msgspec.Struct, frozen=True, kw_only=True):
    """What was made. ``chunk_size`` in bytes; ``parity_blocks`` 0 for no parity."""

    location: str
    id: str
    encrypted: bool
    chunk_size: int
    parity_blocks: int


class KeySummary(msgspec.Struct, frozen=True, kw_only=True):
    """A key slot in a list: one passphrase that opens the repository. Label and time are what its maker wrote."""

    id: str
    label: str
    created: str


def init_repository(
    repository: str, *, passphrase: Passphrase | None = None, parity_blocks: int = 0, chunk_size: int = CHUNK_SIZE
) -> NewRepository:
    """Make a repository in a folder that is missing or empty; encrypted when there is a passphrase.

    Raises:
        UsageError: a parameter is out of bounds. RefusedError: something lies there already.
    """
    backend = writable(connect(repository))
    made = create_repository(backend, passphrase=passphrase, parity_blocks=parity_blocks, chunk_size=chunk_size)
    if not made:
        raise RefusedError(f"Somebody else made a repository at {backend.location} at the same moment.")
    document = read_document(backend)
    return NewRepository(
        location=backend.location,
        id=document.id,
        encrypted=document.encryption is not None,
        chunk_size=document.chunk_size,
        parity_blocks=document.parity.parity_blocks if document.parity else 0,
    )


def list_keys(repository: str) -> tuple[tuple[KeySummary, ...], tuple[str, ...]]:
    """The key slots, oldest first, and a sentence for each that cannot be read. Needs no passphrase.

    Raises:
        RefusedError: the repository is not encrypted, or its folders cannot be listed (HTTP).
    """
    backend = connect(repository)
    _need_encrypted(backend)
    if not backend.lists:
        raise RefusedError(f"{backend.location} cannot list its key slots: a plain HTTP server does not list folders.")
    slots, problems = read_slots(backend, backend.list("keys"))
    found = [KeySummary(id=name.removesuffix(".json"), label=slot.label, created=slot.created) for name, slot in slots]
    return tuple(sorted(found, key=lambda slot: (slot.created, slot.id))), tuple(problems)


def add_passphrase(repository: str, access: Access, new: AskPassphrase, label: str) -> str:
    """Let one more passphrase open the repository.

    Args:
        new: asked when the old passphrase has opened it.

    Returns:
        the id of the new slot.

    Raises:
        RefusedError: ``access`` does not open it, the new passphrase opens it already, or it is in use.
    """
    opened, writer = _open(repository, access)
    passphrase = new()
    assert opened.keys is not None
    with locked(writer, LockKind.SHARED, "key add"):
        already = _slots_of(writer, opened.id, passphrase)
        if already:
            raise RefusedError(f"That passphrase opens the repository already (key slot {already[0][:8]}).")
        identifier = add_slot(writer, opened.id, opened.keys, passphrase, label)
        write_catalogue(opened)
    return identifier


def change_passphrase(repository: str, access: Access, new: AskPassphrase, label: str = "") -> str:
    """Put a new passphrase in the place of the one that ``access`` has.

    The new slot is there, and proven to open, before an old one goes. Whoever stops it in between has both, and
    running it again finishes it.

    Args:
        label: of the new slot; empty for that of the old one.

    Returns:
        the id of the slot that the new passphrase opens.

    Raises:
        UsageError: both are the same. RefusedError: ``access`` does not open it, or it is in use.
    """
    opened, writer = _open(repository, access)
    if access.ask is None:
        raise PassphraseNeededError(f"The present passphrase of {writer.location} is needed.")
    old = access.ask()
    passphrase = new()
    if passphrase == old:
        raise UsageError("The new passphrase is the old one.", hint="Nothing was changed.")
    assert opened.keys is not None
    with locked(writer, LockKind.EXCLUSIVE, "key change") as lock:
        theirs = _slots_of(writer, opened.id, old)
        if not theirs:
            raise RefusedError("Somebody else has taken the old passphrase away meanwhile. Nothing was changed.")
        already = _slots_of(writer, opened.id, passphrase)
        label = label or _label_of(writer, theirs[0])
        identifier = already[0] if already else add_slot(writer, opened.id, opened.keys, passphrase, label)
        # Whoever cannot list folders knows slots from the catalogue: it must not name only those that are gone.
        write_catalogue(opened)
        lock.check()
        for slot in theirs:
            remove_slot(writer, slot)
        write_catalogue(opened)
    return identifier


def remove_passphrase(repository: str, access: Access, identifier: str) -> str:
    """Take a key slot away. ``access`` must open another one: so there is somebody who can still open the repository.

    Args:
        identifier: the beginning of its id.

    Returns:
        its full id.

    Raises:
        UsageError: no slot or several begin so. RefusedError: it is the last one, or ``access`` opens no other.
    """
    opened, writer = _open(repository, access)
    slot = find_slot(writer, identifier)
    assert access.ask is not None
    with locked(writer, LockKind.EXCLUSIVE, "key remove") as lock:
        others = [name for name in _slots_of(writer, opened.id, access.ask()) if name != slot]
        if not others:
            raise RefusedError(
                f"The passphrase opens only key slot {slot[:8]}, which would be removed: perhaps nobody could open "
                "the repository afterwards.",
                hint="Give a passphrase that stays. If there is no other: liferaft key add, or liferaft key change.",
            )
        lock.check()
        remove_slot(writer, slot)
        write_catalogue(opened)
    return slot


def make_signing_key(private: Path, public: Path) -> None:
    """A new pair of keys, in two files that must not exist yet. Only the owner can read the private one.

    Raises:
        UsageError: a file is there already or cannot be written.
    """
    if private == public or public.exists():
        raise UsageError(f"{public} is there already.", hint="Name a new file: a key is never overwritten.")
    secret, open_key = new_signing_key()
    _write_key(private, secret, 0o600)
    try:
        _write_key(public, open_key, 0o644)
    except BaseException:
        private.unlink(missing_ok=True)
        raise


def _open(repository: str, access: Access) -> tuple[Repository, Writer]:
    backend = connect(repository)
    _need_encrypted(backend)
    writer = writable(backend)
    return Repository(writer, access), writer


def _need_encrypted(backend: Reader) -> None:
    if read_document(backend).encryption is None:
        raise RefusedError(
            f"{backend.location} is not encrypted: it has no passphrases.",
            hint="Make an encrypted one with liferaft init --encrypt and copy the recovery points into it.",
        )


def _slots_of(backend: Reader, repository: bytes, passphrase: Passphrase) -> list[str]:
    """The ids of all slots that a passphrase opens."""
    slots, _ = read_slots(backend, backend.list("keys"))
    return [name.removesuffix(".json") for name, _ in opened_slots(backend, repository, passphrase, slots)]


def _label_of(backend: Reader, identifier: str) -> str:
    slots, _ = read_slots(backend, (f"{identifier}.json",))
    return slots[0][1].label if slots else ""


def _write_key(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(path.parent)
    except FileExistsError:
        raise UsageError(f"{path} is there already.", hint="Name a new file: a key is never overwritten.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
