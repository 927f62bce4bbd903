"""Keys: what opens encrypted containers at restore. They are in memory or in the user's own files, nowhere else.

A passphrase goes to cryptsetup through its standard input, never through its arguments, and stands in no log.
"""

from pathlib import Path

import msgspec


class Keys(msgspec.Struct, frozen=True):
    """Key files and passphrases, tried in this order on every container."""

    files: tuple[Path, ...] = ()
    passphrases: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Keys({len(self.files)} files, {len(self.passphrases)} passphrases)"

    def __bool__(self) -> bool:
        return bool(self.files or self.passphrases)
