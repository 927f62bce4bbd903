"""Room at the destination: obviously too little is said before a capture, how much is missing after one that stopped.

Both are estimates: nobody knows what the rest of a disk compresses to before it was read.
"""

from core.units import format_size
from images.store.backend import FullError, Measured
from images.store.repository import Repository

#: Where nothing is stored yet, a disk takes at least this part of its used bytes: docs/performance.md has system
#: disks at a half. Less room than that is obviously too little.
BEST = 3


def too_little_room(repository: Repository, allocated: int) -> str:
    """A sentence when a first capture of so many bytes will hardly fit; empty otherwise, or when nobody can say."""
    backend = repository.backend
    free = backend.free() if isinstance(backend, Measured) else None
    if free is None or free >= allocated // BEST or repository.index_names():
        return ""
    return (
        f"{backend.location} has room for {format_size(free)}, and {format_size(allocated)} are to be captured: "
        "that will hardly be enough."
    )


def with_what_is_missing(error: FullError, *, left: int, read: int, stored: int) -> FullError:
    """The error of a capture that found no room, with how much is missing.

    Args:
        left: allocated bytes that are still to be read.
        read, stored: bytes read since the first was stored, and stored meanwhile; the ratio so far.
    """
    if not left:
        return FullError(f"{error.message} All is read; only the index and the manifest are missing.", hint=error.hint)
    if read > 0 and stored > 0:
        missing = left * min(stored, read) // read
        how = f"of what was read so far {min(100, 100 * stored // read)} % had to be stored"
    else:
        missing, how = left, "nothing is known yet of how well they compress"
    text = f"About {format_size(missing)} are missing, by estimate: {format_size(left)} are left to read, and {how}."
    return FullError(f"{error.message} {text}", hint=error.hint)
