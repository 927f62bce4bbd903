"""From what a person names to an open repository: the backend for an address, and the right to read it."""

import urllib.parse
from pathlib import Path

from core.errors import UsageError
from images.store.access import Access
from images.store.backend import LocalBackend, Reader
from images.store.http import HttpBackend
from images.store.repository import Repository

_HINT = "Give a folder, file:…, http(s)://… or s3://bucket/folder."


def connect(location: str) -> Reader:
    """The backend for a path, ``file:`` or ``http(s):``.

    Raises:
        UsageError: a scheme liferaft does not know.
    """
    scheme, colon, rest = location.partition(":")
    if not colon or "/" in scheme:
        return LocalBackend(Path(location).absolute())
    if scheme in ("http", "https"):
        return HttpBackend(location)
    if scheme == "file":
        return LocalBackend(Path(urllib.parse.unquote(urllib.parse.urlparse(location).path or rest)).absolute())
    raise UsageError(f"{location} is not a repository address.", hint=_HINT)


def open_repository(location: str, access: Access | None = None) -> Repository:
    """The repository at an address.

    Raises:
        UsageError, RefusedError, UnreachableError, DamagedError: as :class:`Repository`.
    """
    return Repository(connect(location), access)
