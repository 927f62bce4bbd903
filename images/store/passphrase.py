"""A passphrase, and who is asked for it. It never shows itself: not printed, not logged, not in a traceback."""

import unicodedata
from collections.abc import Callable

from core.errors import RefusedError, UsageError


class Passphrase:
    """What a person typed or a file holds, in one spelling: the same letters give the same bytes on every system."""

    def __init__(self, text: str) -> None:
        """Take the text.

        Raises:
            UsageError: it is empty.
        """
        if not text:
            raise UsageError("The passphrase is empty.", hint="An empty passphrase protects nothing.")
        self._text = text

    def __repr__(self) -> str:
        return "Passphrase(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Passphrase) and other.encode() == self.encode()

    def __hash__(self) -> int:
        return hash(self.encode())

    def encode(self) -> bytes:
        """UTF-8 of the text in Unicode's NFKC form."""
        return unicodedata.normalize("NFKC", self._text).encode()


class PassphraseNeededError(RefusedError):
    """The repository is encrypted, and nobody could be asked for the passphrase."""


class WrongPassphraseError(RefusedError):
    """No key slot opens with that passphrase."""


#: Called when a repository turns out to be encrypted, and not before.
AskPassphrase = Callable[[], Passphrase]
