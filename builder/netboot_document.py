"""The netboot set's own document, ``netboot.json``: what lies in the set around the files of the medium.

``liferaft/medium.json`` is the medium's own, the same on an ISO, and does not know what firmware loads from a network.
Only ``inspect`` and ``inject`` read this; no server needs it, and what the site lays into ``site/`` is not in it.
"""

import msgspec

from builder.document import MediumFile
from core.documents import decode_stored
from core.errors import DamagedError

NETBOOT_VERSION = 1
#: Where it lies in the set.
NETBOOT_DOCUMENT = "netboot.json"


class NetbootDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Size and digest of every file that the set has beside the medium's: loaders, menus, the initrd's network part."""

    version: int = NETBOOT_VERSION
    files: tuple[MediumFile, ...]


def parse_netboot(content: bytes, *, name: str) -> NetbootDocument:
    """A document that liferaft wrote; ``name`` is what an error calls it.

    Raises:
        DamagedError: it is not one, or of a version that this liferaft does not know.
    """
    document = decode_stored(content, NetbootDocument, name=name)
    if document.version != NETBOOT_VERSION:
        raise DamagedError(
            f"{name} has version {document.version}; this liferaft knows {NETBOOT_VERSION}.",
            hint="Use the liferaft that wrote the set, or a newer one.",
        )
    return document
