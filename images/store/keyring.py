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
        f"The passphrase opens none of the key slots of {backend.location}{unread}.",
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


def slot_name(identifier: str) -> str:
    """The file of a key slot."""
    return f"keys/{identifier}.json"


def slot_names(backend: Reader) -> tuple[str, ...]:
    """The files of all key slots; needs a backend that lists."""
    return tuple(f"keys/{name}" for name in backend.list("keys") if _SLOT_NAME.fullmatch(name))


def add_slot(backend: Writer, repository: bytes, keys: RepositoryKeys, passphrase: Passphrase, label: str) -> str:
    """Let one more passphrase open the repository.

    Returns:
        the slot's id.

    Raises:
        RefusedError: there are as many slots as a reader tries.
        DamagedError: what was written does not open; it was taken away again.
    """
    if len(slot_names(backend)) >= _SLOTS_TRIED:
        raise RefusedError(
            f"{backend.location} has {_SLOTS_TRIED} key slots: there can be no more.",
            hint="Remove one first: liferaft key list, liferaft key remove.",
        )
    identifier = os.urandom(16).hex()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    slot = keys.wrap(passphrase, repository, label=label, created=created)
    name = slot_name(identifier)
    backend.write(name, encode(slot))
    where = f"{backend.location}/{name}"
    # The old passphrase may be taken away next: nothing but what lies there now counts.
    if unwrap(decode_slot(backend.read(name, _SLOT_LIMIT), where), passphrase, repository, where) is None:
        backend.remove(name)
        raise DamagedError(f"{where} does not open right after it was written.", hint="Check the disk or the share.")
    return identifier


def find_slot(backend: Reader, identifier: str) -> str:
    """The id of the one slot whose id begins so.

    Raises:
        UsageError: none or several do.
    """
    found = [name.removeprefix("keys/").removesuffix(".json") for name in slot_names(backend)]
    matches = [name for name in found if len(identifier) >= 4 and name.startswith(identifier.lower())]
    if len(matches) != 1:
        raise UsageError(
            f"{len(matches) or 'No'} key slots begin with {identifier}.",
            hint="liferaft key list shows them; give at least 4 digits.",
        )
    return matches[0]


def remove_slot(backend: Writer, identifier: str) -> None:
    """Take a passphrase's right away. It keeps what whoever had it has copied already.

    Args:
        identifier: the slot's full id.

    Raises:
        RefusedError: it is the last one.
    """
    if slot_names(backend) == (slot_name(identifier),):
        raise RefusedError(
            "This is the only key slot: without it nobody could ever open the repository again.",
            hint="Add another passphrase first: liferaft key add.",
        )
    backend.remove(slot_name(identifier))
