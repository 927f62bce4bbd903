"""The key slots of a repository: ``keys/<32 hex>.json``. Unlocking, and listing, adding and removing passphrases."""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from core.documents import encode
from core.errors import DamagedError, RefusedError, UsageError
from core.units import KIB
from images.store.access import Access
from images.store.backend import MissingFileError, Reader, Writer
from images.store.keys import KeySlot, RepositoryKeys, decode_slot, unwrap, work_of
from images.store.passphrase import Passphrase, PassphraseNeededError, WrongPassphraseError

_SLOT_NAME = re.compile(r"[0-9a-f]{32}\.json")
_SLOT_LIMIT = 16 * KIB
#: Each wrong passphrase costs a derivation for each slot. Whoever can put files there must not keep a reader busy
#: for long: 64 slots as liferaft makes them come to 12 GiB (KiB filled, in all passes together).
_SLOTS_TRIED = 64
_WORK_LIMIT_KIB = 16 * 1024 * 1024


def unlock(backend: Reader, repository: bytes, access: Access, names: tuple[str, ...]) -> RepositoryKeys:
    """The keys of an encrypted repository.

    Args:
        names: files of the folder ``keys``.

    Raises:
        RefusedError: nobody can be asked for the passphrase, or it opens no slot (:class:`WrongPassphraseError`).
        DamagedError: there is no slot that can be read.
    """
    if access.ask is None:
        raise PassphraseNeededError(
            f"{backend.location} is encrypted: a passphrase is needed.",
            hint="Give --passphrase-file FILE (in a job: passphrase_file), or run it on a terminal, where it is asked "
            "for.",
        )
    slots, problems = read_slots(backend, names)
    if not slots:
        reason = problems[0] if problems else f"{backend.location}/keys holds no key slot."
        raise DamagedError(reason, hint="Without a key slot nobody can open the repository: look for a copy of keys/.")
    for _, keys in opened_slots(backend, repository, access.ask(), slots):
        return keys
    unread = f" ({len(problems)} more cannot be read: {problems[0]})" if problems else ""
    raise WrongPassphraseError(
        f"The passphrase opens none of the {len(slots)} key slots of {backend.location}{unread}.",
        hint="Mind the keyboard layout and Caps Lock.",
    )


def opened_slots(
    backend: Reader, repository: bytes, passphrase: Passphrase, slots: list[tuple[str, KeySlot]]
) -> Iterator[tuple[str, RepositoryKeys]]:
    """The slots that a passphrase opens: file name and what is in it. Each try costs a derivation."""
    for name, slot in slots:
        keys = unwrap(slot, passphrase, repository, f"{backend.location}/keys/{name}")
        if keys is not None:
            yield name, keys


def read_slots(backend: Reader, names: tuple[str, ...]) -> tuple[list[tuple[str, KeySlot]], list[str]]:
    """The key slots with their file names, and a sentence for each that cannot be read."""
    slots: list[tuple[str, KeySlot]] = []
    problems: list[str] = []
    named = [name for name in names if _SLOT_NAME.fullmatch(name)]
    work = 0
    for name in named[:_SLOTS_TRIED]:
        try:
            where = f"{backend.location}/keys/{name}"
            slot = decode_slot(backend.read(f"keys/{name}", _SLOT_LIMIT), where)
        except (DamagedError, RefusedError, MissingFileError) as error:
            problems.append(error.message)
            continue
        work += work_of(slot)
        if work > _WORK_LIMIT_KIB:
            problems.append(f"{where} and what comes after it ask for more work than all key slots together may.")
            return slots, problems
        slots.append((name, slot))
    if len(named) > _SLOTS_TRIED:
        problems.append(f"{backend.location}/keys holds {len(named)} key slots; {_SLOTS_TRIED} are tried.")
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
