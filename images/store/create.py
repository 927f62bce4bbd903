"""A new repository where there is none (docs/image-format.md §3). What is added to one is ``writer.py``'s work."""

from core.documents import encode
from core.errors import RefusedError
from images.store.access import Access
from images.store.backend import Reader, Writer
from images.store.document import CHUNK_SIZE, DOCUMENT, new_document
from images.store.keyring import add_slot, slot_name, slot_names
from images.store.keys import new_keys
from images.store.passphrase import Passphrase
from images.store.repository import Repository
from images.store.writer import writable, write_catalogue


def open_or_create(backend: Reader, access: Access | None = None) -> Repository:
    """Open the repository there, or make a plain one where there is nothing yet.

    Raises:
        RefusedError: other things lie there, or it is read-only, or a passphrase was given for a plain repository
            or for one that is not there yet.
    """
    writer = writable(backend)
    if not writer.exists(DOCUMENT):
        if access is not None and access.encrypted_only:
            raise RefusedError(
                f"There is no repository at {backend.location} yet, and a passphrase was given for it.",
                hint="Is it the right place? liferaft init --encrypt makes an encrypted repository.",
            )
        create_repository(writer)
    return Repository(backend, access)


def create_repository(
    backend: Writer, *, passphrase: Passphrase | None = None, parity_blocks: int = 0, chunk_size: int = CHUNK_SIZE
) -> bool:
    """Make a repository where there is none.

    Args:
        passphrase: encrypt it; the first key slot opens with this.
        parity_blocks: damaged regions of a pack that can be repaired; 0 for no parity.
        chunk_size: bytes, a power of two from 64 KiB to 16 MiB.

    Returns:
        False when somebody else made one there in the meantime: it is theirs, with their passphrase.

    Raises:
        RefusedError: something else lies there, or is a repository already.
    """
    if backend.exists(DOCUMENT):
        raise RefusedError(
            f"{backend.location} is a repository already.", hint="liferaft snapshots shows what it holds."
        )
    foreign = backend.foreign()
    if foreign and not _is_our_beginning(backend):
        raise RefusedError(
            f"{backend.location} is not a liferaft repository and is not empty: it holds {foreign}.",
            hint="Name a new or an empty folder.",
        )
    document = new_document(chunk_size=chunk_size, encrypted=passphrase is not None, parity_blocks=parity_blocks)
    slot = ""
    if passphrase is not None:
        slot = add_slot(backend, bytes.fromhex(document.id), new_keys(), passphrase, "first")
    # The document comes last: from then on it is a repository, and has everything one needs.
    if not backend.write_new(DOCUMENT, encode(document)):
        if slot:
            backend.remove(slot_name(slot))
        return False
    # Slots of a try that was cut off are another master key's: they open nothing, and would be tried for ever.
    for name in slot_names(backend):
        if name != slot_name(slot):
            backend.remove(name)
    ask = None if passphrase is None else lambda: passphrase
    write_catalogue(Repository(backend, Access(ask=ask)))
    return True


def _is_our_beginning(backend: Writer) -> bool:
    """Whether what lies there are key slots: an earlier try was cut off before it wrote the document."""
    return backend.foreign() == "keys" and len(backend.list("keys")) == len(slot_names(backend)) > 0
