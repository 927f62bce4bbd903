"""The right to read, from files: passphrase files, signing keys and the keys of those who are trusted.

Every face and the unattended job come through here. Nothing that is read here is ever part of a message.
"""

import contextlib
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import UsageError
from core.files import read_small
from core.units import KIB
from images.store.access import Access
from images.store.passphrase import AskPassphrase, Passphrase
from images.store.signature import SigningKey, read_public_key, read_signing_key

#: Bytes that a passphrase or key file may have.
LIMIT = 64 * KIB
_HINT = "The passphrase is the one line of the file; the end of the line does not belong to it."


def access_from(
    passphrase: Passphrase | None, ask: AskPassphrase | None = None, trusted: tuple[bytes, ...] = ()
) -> Access:
    """What a command brings to a repository.

    Args:
        passphrase: given in advance; a repository that is not encrypted is refused then.
        ask: who is asked otherwise, at most once; None for nobody.
        trusted: public keys, 32 bytes each; empty when no signature is required.
    """
    if passphrase is not None:
        return Access(ask=lambda: passphrase, encrypted_only=True, trusted=trusted)
    return Access(ask=ask and _once(ask), trusted=trusted)


def read_passphrase(path: Path, warn: Callable[[str], None]) -> Passphrase:
    """The passphrase in a file of one line.

    Args:
        warn: is given a sentence when others may read the file.

    Raises:
        UsageError: it cannot be read, is empty, or holds more than one line.
    """
    content = read_small(path, f"The passphrase file {path}", LIMIT)
    with contextlib.suppress(OSError):
        status = path.stat()
        # A pipe (a shell's <(...)) has no readers but us, whatever its mode says.
        if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            warn(f"{path} can be read by other users of this machine: chmod 600 {path}")
    return parse_passphrase(content, str(path))


def parse_passphrase(content: bytes, name: str) -> Passphrase:
    """The same from bytes; ``name`` is what an error calls them.

    Raises:
        UsageError: it is empty, not UTF-8, or more than one line.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        # The error itself holds the bytes: it must not be seen, not even as a cause.
        raise UsageError(f"{name} is not text in UTF-8.", hint=_HINT) from None
    if len(lines) != 1 or not lines[0]:
        found = "is empty" if not any(lines) else f"has {len(lines)} lines"
        raise UsageError(f"{name} {found}, and should hold a passphrase.", hint=_HINT)
    return Passphrase(lines[0])


def read_trusted(paths: Sequence[Path]) -> tuple[bytes, ...]:
    """The public keys in PEM files, 32 bytes each.

    Raises:
        UsageError: one cannot be read, or is not an Ed25519 key in PEM.
    """
    return tuple(read_public_key(read_small(path, f"The public key {path}", LIMIT), str(path)) for path in paths)


def read_signer(path: Path) -> SigningKey:
    """The private key that signs recovery points.

    Raises:
        UsageError: it cannot be read, or is not an Ed25519 key in PEM.
    """
    return read_signing_key(read_small(path, f"The signing key {path}", LIMIT), str(path))


def _once(ask: AskPassphrase) -> AskPassphrase:
    """A job may open its repository several times: to plan, and to do it. The person is asked once."""
    answers: list[Passphrase] = []

    def answer() -> Passphrase:
        if not answers:
            answers.append(ask())
        return answers[0]

    return answer
