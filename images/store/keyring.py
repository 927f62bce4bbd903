"""The key slots of a repository: ``keys/<32 hex>.json``. Unlocking, and listing, adding and removing passphrases."""

import os
import re
from datetime import UTC, datetime

from core.documents import encode
from core.errors import DamagedError, RefusedError, UsageError
from core.units import KIB
from images.store.access import Access
from images.store.backend import MissingFileError, Reader, Writer
from images.store.keys import KeySlot, RepositoryKeys, WrongPassphraseError, decode_slot, unwrap
from images.store.passphrase import Passphrase

_SLOT_NAME = re.compile(r"[0-9a-f]{32}\.json")
_SLOT_LIMIT = 16 * KIB
#: Each wrong passphrase costs a derivation for each slot.
_SLOTS_TRIED = 64


def unlock(backend: Reader, repository: bytes, access: Access, names: tuple[str, ...]) -> RepositoryKeys:
    """The keys of an encrypted repository.

    Args:
        names: files of the folder ``keys``.

    Raises:
        RefusedError: nobody can be asked for the passphrase, or it opens no slot (:class:`WrongPassphraseError`).
        DamagedError: there is no slot that can be read.
    """
    if access.ask is None:
        raise RefusedError(
            f"{backend.location} is encrypted: a passphrase is needed.",
            hint="Give --passphrase-file FILE, or run it on a terminal, where it is asked for.",
        )
    slots, problems = read_slots(backend, names)
    if not slots:
        reason = problems[0] if problems else f"{backend.location}/keys holds no key slot."
        raise DamagedError(reason, hint="Without a key slot nobody can open the repository: look for a copy of keys/.")
    passphrase = access.ask()
    for name, slot in slots:
        keys = unwrap(slot, passphrase, repository, f"{backend.location}/keys/{name}")
        if keys is not None:
            return keys
    raise WrongPassphraseError(
        f"The passphrase opens none of the {len(slots)} key slots of {backend.location}.",
        hint="Mind the keyboard layout and Caps Lock.",
    )


def read_slots(backend: Reader, names: tuple[str, ...]) -> tuple[list[tuple[str, KeySlot]], list[str]]:
    """The key slots with their file names, and a sentence for each that cannot be read."""
    slots: list[tuple[str, KeySlot]] = []
    problems: list[str] = []
    for name in [name for name in names if _SLOT_NAME.fullmatch(name)][:_SLOTS_TRIED]:
        try:
            where = f"{backend.location}/keys/{name}"
            slots.append((name, decode_slot(backend.read(f"keys/{name}", _SLOT_LIMIT), where)))
        except (DamagedError, RefusedError, MissingFileError) as error:
            problems.append(error.message)
    return slots, problems


def add_slot(backend: Writer, repository: bytes, keys: RepositoryKeys, passphrase: Passphrase, label: str) -> str:
    """Let one more passphrase open the repository. Returns the slot's id."""
    identifier = os.urandom(16).hex()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    slot = keys.wrap(passphrase, repository, label=label, created=created)
    backend.write(f"keys/{identifier}.json", encode(slot))
    return identifier


def remove_slot(backend: Writer, identifier: str) -> None:
    """Take a passphrase's right away. It keeps what whoever had it has copied already.

    Args:
        identifier: the beginning of the slot's id.

    Raises:
        UsageError: none or several slots begin so. RefusedError: it is the last one.
    """
    names = [name for name in backend.list("keys") if _SLOT_NAME.fullmatch(name)]
    matches = [name for name in names if len(identifier) >= 4 and name.startswith(identifier.lower())]
    if len(matches) != 1:
        raise UsageError(f"{len(matches)} key slots begin with {identifier}.", hint="liferaft key list shows them.")
    if len(names) == 1:
        raise RefusedError(
            "This is the only key slot: without it nobody could ever open the repository again.",
            hint="Add another passphrase first: liferaft key add.",
        )
    backend.remove(f"keys/{matches[0]}")
