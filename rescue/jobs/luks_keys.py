"""Keys of encrypted disks, from files: for capture, which looks inside, and restore, which writes inside.

A passphrase is the one line of its file, byte for byte as it was typed: LUKS knows no spelling of it but that.
"""

from collections.abc import Sequence
from pathlib import Path

from core.errors import UsageError
from core.files import read_small
from images.stack.keys import AskKey, Keys
from rescue.jobs.access import LIMIT


def read_keys(files: Sequence[Path], passphrase_files: Sequence[Path], ask: AskKey | None = None) -> Keys:
    """The keys that a user names.

    Args:
        files: key files, used as they are. passphrase_files: each holds one line.
        ask: who is asked when none of them opens a container.

    Raises:
        UsageError: one cannot be read, or holds no passphrase.
    """
    for path in files:
        _read(path)
    return Keys(tuple(path.absolute() for path in files), tuple(map(_passphrase, passphrase_files)), ask)


def _passphrase(path: Path) -> str:
    return parse_key(_read(path), str(path))


def parse_key(content: bytes, name: str) -> str:
    """The passphrase in the bytes of a file; ``name`` is what an error calls it. Raises UsageError."""
    content = content.removesuffix(b"\n")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        # The error itself holds the bytes: it must not be seen, not even as a cause.
        raise UsageError(f"{name} is not text in UTF-8.", hint="Use it as a key file: --luks-key.") from None
    if not text or "\n" in text:
        raise UsageError(f"{name} should hold a passphrase in one line.", hint="Use it as a key file: --luks-key.")
    return text


def _read(path: Path) -> bytes:
    content = read_small(path, f"The key {path}", LIMIT)
    if not content:
        raise UsageError(f"The key {path} is empty.")
    return content
