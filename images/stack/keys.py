"""Keys: what opens encrypted containers. They are in memory or in the user's own files, nowhere else.

A passphrase goes to cryptsetup through its standard input, never through its arguments, and stands in no log.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

#: Asked with the name of a container, when nothing that was given opens it; an empty answer gives up.
AskKey = Callable[[str], str]


class Try(msgspec.Struct, frozen=True):
    """One attempt: cryptsetup's options, and what goes to its standard input."""

    words: Sequence[str]
    text: str | None = None


class Keys(msgspec.Struct, frozen=True):
    """Key files and passphrases, tried in this order on every container. ``ask``: a person who knows more; or None."""

    files: tuple[Path, ...] = ()
    passphrases: tuple[str, ...] = ()
    ask: AskKey | None = None

    def __repr__(self) -> str:
        return f"Keys({len(self)})"

    def __len__(self) -> int:
        return len(self.files) + len(self.passphrases)

    def tries(self) -> Iterator[Try]:
        """All attempts, in order."""
        for path in self.files:
            yield Try(("--key-file", str(path)))
        for passphrase in self.passphrases:
            # "-" reads standard input to its end, a newline included: nothing is added to the passphrase.
            yield Try(("--key-file", "-"), passphrase)

    def with_passphrase(self, passphrase: str) -> "Keys":
        """The same and one more."""
        return msgspec.structs.replace(self, passphrases=(*self.passphrases, passphrase))
