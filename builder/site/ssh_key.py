"""Public SSH keys: one line each, as OpenSSH's ``authorized_keys`` and ``.pub`` files have them.

Format: sshd(8), "AUTHORIZED_KEYS FILE FORMAT"; the key itself RFC 4253, section 6.6. Not a reader of private keys:
one that was put in the place of a public key is named, and kept off the medium.
"""

import re
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from core.errors import UsageError
from core.files import read_small
from core.units import MIB

_TYPES = (
    r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)"
    r"|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com"
)
_LINE = re.compile(
    rf"(?P<options>[^ ].*? )??(?P<type>{_TYPES})[ \t]+(?P<body>[A-Za-z0-9+/]+={{0,3}})(?P<rest>[ \t].*)?"
)
#: sshd_config(5), RequiredRSASize: shorter ones are not taken.
_RSA_BITS = 1024
_LIMIT = MIB
_HINT = "A public key is the one line of a .pub file, such as ~/.ssh/id_ed25519.pub."


class SshKey(msgspec.Struct, frozen=True):
    """A line of ``authorized_keys``."""

    line: str


def is_key(text: str) -> bool:
    """Whether a text of a recipe is a key itself and not the name of a file."""
    return _LINE.fullmatch(text.strip()) is not None or "PRIVATE KEY" in text or text.startswith("ssh-")


def parse_key(line: str, place: str) -> SshKey:
    """A key from its line; ``place`` is what an error calls it.

    Raises:
        UsageError: it is not a public key that sshd takes.
    """
    if "PRIVATE KEY" in line:
        raise UsageError(f"{place} is a private key: it must never leave its owner's machine.", hint=_HINT)
    found = _LINE.fullmatch(line.strip())
    if found is None:
        raise UsageError(f"{place} is not a public SSH key.", hint=_HINT)
    try:
        key = load_ssh_public_key(f"{found['type']} {found['body']}".encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{place} is not a public SSH key: {error}.", hint=_HINT) from None
    if isinstance(key, RSAPublicKey) and key.key_size < _RSA_BITS:
        raise UsageError(
            f"{place} is an RSA key of {key.key_size} bits, which sshd refuses.", hint="ssh-keygen -t ed25519"
        )
    return SshKey(line.strip())


def read_keys(named: str, place: str) -> tuple[SshKey, ...]:
    """The keys that a recipe's text means: one itself, or those of a file.

    Raises:
        UsageError: the file cannot be read or has no key, or a line of it is not one.
    """
    if is_key(named):
        return (parse_key(named, place),)
    path = Path(named)
    try:
        text = read_small(path, f"{place}: the file {path}", _LIMIT, hint=_HINT).decode()
    except UnicodeDecodeError:
        raise UsageError(f"{place}: the file {path} is not text.", hint=_HINT) from None
    if "PRIVATE KEY" in text:
        raise UsageError(f"{place}: {path} is a private key: it must never leave its owner's machine.", hint=_HINT)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    keys = tuple(
        parse_key(line, f"{place}: {path}, line {number}")
        for number, line in lines
        if line and not line.startswith("#")
    )
    if not keys:
        raise UsageError(f"{place}: there is no key in {path}.", hint=_HINT)
    return keys
