"""From what a person names to an open repository: the backend for an address, and the right to read it."""

import importlib
import urllib.parse
from pathlib import Path

from core.errors import MissingToolError, UsageError
from images.store.access import Access
from images.store.backend import LocalBackend, Reader
from images.store.repository import Repository

#: Scheme -> module whose ``connect`` takes the address. A module is imported when its scheme is asked for:
#: the libraries behind them count on a machine that boots from a CD.
BACKENDS = {
    "http": "images.store.http",
    "https": "images.store.http",
    "s3": "images.store.s3",
    "s3+http": "images.store.s3",
    "s3+https": "images.store.s3",
}
_HINT = "Give a folder, file:…, http(s)://… or s3://bucket/folder."


def connect(location: str) -> Reader:
    """The backend for a path, ``file:``, ``http(s):`` or ``s3:``. Nothing is read yet.

    Raises:
        UsageError: a scheme liferaft does not know, or an address that is not of its scheme's form.
        MissingToolError: the library for that scheme is not installed.
    """
    scheme, colon, rest = location.partition(":")
    if not colon or "/" in scheme:
        return LocalBackend(Path(location).absolute())
    if scheme in BACKENDS and rest.startswith("//"):
        try:
            module = importlib.import_module(BACKENDS[scheme])
        except ModuleNotFoundError as error:
            raise MissingToolError(
                f"A repository behind {scheme}: needs the Python package {error.name}, which is not installed.",
                hint=f"pip install {error.name}",
            ) from None
        backend: Reader = module.connect(location)
        return backend
    if scheme == "file":
        return LocalBackend(Path(urllib.parse.unquote(urllib.parse.urlparse(location).path or rest)).absolute())
    raise UsageError(f"{location} is not a repository address.", hint=_HINT)


def open_repository(location: str, access: Access | None = None) -> Repository:
    """The repository at an address.

    Raises:
        UsageError, RefusedError, UnreachableError, DamagedError: as :class:`Repository`.
    """
    return Repository(connect(location), access)
