"""What the live system is told of its site: the repositories that the wizard offers, and where the site's hooks lie.

Written by the builder, read by the wizard and by whoever restores. A job names its repository itself.
"""

import urllib.parse
from pathlib import Path

import msgspec

from core.documents import decode_stored
from core.errors import DamagedError

#: Where it lies in the live system, and where the site's hooks do.
SITE_DOCUMENT = Path("/etc/liferaft/site.json")
SITE_HOOKS = Path("/etc/liferaft/hooks")
SITE_VERSION = 1
_LIMIT = 1 << 20


class SiteRepository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository of the site: its address, and what it is called (the address when empty)."""

    address: str
    name: str = ""

    @property
    def shown(self) -> str:
        """The address without a password that may be in it."""
        parts = urllib.parse.urlsplit(self.address)
        return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class SiteDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What a site says of itself."""

    version: int = SITE_VERSION
    repositories: tuple[SiteRepository, ...] = ()


def read_site(path: Path = SITE_DOCUMENT) -> SiteDocument:
    """The document of the running live system; an empty one where there is none.

    Raises:
        DamagedError: it cannot be read, or is not one that this liferaft knows.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_LIMIT)
    except FileNotFoundError:
        return SiteDocument()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}.") from None
    document = decode_stored(content, SiteDocument, name=str(path))
    if document.version != SITE_VERSION:
        raise DamagedError(f"{path} has version {document.version}; this liferaft knows {SITE_VERSION}.")
    return document


def site_hooks(folder: Path = SITE_HOOKS) -> Path | None:
    """The site's hooks in the running live system; None where there are none."""
    return folder if folder.is_dir() else None
