"""HTTP: the only module that imports requests.

:class:`HttpBackend` reads a repository from any server with range requests; :func:`fetch` and
:func:`post` serve job documents and reports. Faults that may pass (no connection, 5xx, a short
answer) are tried again with growing pauses; a 404 or a server that ignores ranges is final.
"""

import logging
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import TypeVar

import requests
import urllib3.exceptions

from core.errors import DamagedError, DeviceError, UnreachableError
from images.store.backend import MissingFileError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds to connect, seconds between two bytes.
TIMEOUT = (10.0, 30.0)
#: Pauses between tries, in seconds. Together they outlast a server's restart.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


class HttpBackend:
    """A repository behind ``http://`` or ``https://``. Read-only."""

    lists = False
    distant = True

    def __init__(self, url: str, *, pauses: tuple[float, ...] = PAUSES) -> None:
        self._url, self._auth = split_credentials(url.rstrip("/"))
        self._pauses = pauses
        self._local = threading.local()

    @property
    def location(self) -> str:
        return self._url

    def read(self, name: str, limit: int) -> bytes:
        def once() -> bytes:
            with self._session().get(f"{self._url}/{name}", timeout=TIMEOUT, stream=True) as answer:
                self._judge(answer, name)
                data = bytearray()
                for piece in answer.iter_content(1 << 16):
                    data += piece
                    if len(data) > limit:
                        raise DeviceError(f"{self._url}/{name} is larger than the {limit} bytes it may have.")
                expected = answer.headers.get("Content-Length")
                if expected and "Content-Encoding" not in answer.headers and int(expected) != len(data):
                    raise requests.ConnectionError(f"{len(data)} of {expected} bytes")
                return bytes(data)

        return self._again(once, name)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        def once() -> bytes:
            wanted = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
            answer = self._session().get(f"{self._url}/{name}", headers=wanted, timeout=TIMEOUT, stream=True)
            with answer:
                self._judge(answer, name)
                if answer.status_code != 206:
                    raise DeviceError(
                        f"{self._url} does not answer range requests (status {answer.status_code}).",
                        hint="Serve the repository with nginx, Apache or another server that does.",
                    )
                data = answer.raw.read(length + 1)
            if len(data) != length:
                raise requests.ConnectionError(f"{len(data)} of {length} bytes")
            return bytes(data)

        return self._again(once, name)

    def size(self, name: str) -> int:
        def once() -> int:
            answer = self._session().head(
                f"{self._url}/{name}", headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT, allow_redirects=True
            )
            self._judge(answer, name)
            if "Content-Length" not in answer.headers:
                raise DeviceError(f"{self._url} does not say how large {name} is.", hint="Serve plain files.")
            return int(answer.headers["Content-Length"])

        return self._again(once, name)

    def list(self, folder: str) -> tuple[str, ...]:
        raise DeviceError(f"{self._url} cannot list folders.")

    def sizes(self, folder: str) -> dict[str, int]:
        raise DeviceError(f"{self._url} cannot list folders.")

    def _session(self) -> requests.Session:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.auth = self._auth
        assert isinstance(session, requests.Session)
        return session

    def _judge(self, answer: requests.Response, name: str) -> None:
        if answer.status_code in (404, 410):
            raise MissingFileError(f"{self._url}/{name} is missing (status {answer.status_code}).")
        if answer.status_code == 416:
            raise DamagedError(f"{self._url}/{name} is truncated: it ends before the range asked for (status 416).")
        if answer.status_code >= 500:
            raise requests.ConnectionError(f"status {answer.status_code}")
        if answer.status_code >= 400:
            raise UnreachableError(f"{self._url}/{name} was refused with status {answer.status_code}.")

    def _again(self, once: Callable[[], T], name: str) -> T:
        return _retry(once, f"{self._url}/{name}", self._pauses)


def fetch(url: str, limit: int, *, pauses: tuple[float, ...] = PAUSES) -> bytes:
    """A whole document of at most ``limit`` bytes from a URL.

    Raises:
        MissingFileError, UnreachableError, DeviceError: as :meth:`HttpBackend.read`.
    """
    folder, _, name = url.rpartition("/")
    return HttpBackend(folder, pauses=pauses).read(name, limit)


def post(url: str, content: bytes, *, pauses: tuple[float, ...] = PAUSES) -> None:
    """Send a JSON document to a URL.

    Raises:
        UnreachableError: no server took it.
    """

    shown, auth = split_credentials(url)

    def once() -> None:
        answer = requests.post(
            shown, auth=auth, data=content, headers={"Content-Type": "application/json"}, timeout=TIMEOUT
        )
        if answer.status_code >= 400:
            raise requests.ConnectionError(f"status {answer.status_code}")

    _retry(once, shown, pauses)


def split_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """A URL without ``user:password@``, which must reach no log and no plan, and what it held."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is None:
        return url, None
    host = parts.netloc.rpartition("@")[2]
    auth = (urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or ""))
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), auth


def _retry(once: Callable[[], T], what: str, pauses: tuple[float, ...]) -> T:
    """Try, pause, try again; UnreachableError when all tries failed."""
    tries = iter(pauses)
    while True:
        try:
            return once()
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            pause = next(tries, None)
            if pause is None:
                raise UnreachableError(
                    f"{what} cannot be reached: {_reason(error)}.",
                    hint="Is the server running, is the network up, is the address right?",
                ) from None
            log.info("%s: %s; trying again in %s s", what, _reason(error), pause)
            time.sleep(pause)


def _reason(error: Exception) -> str:
    """The cause in a few words: requests wraps it several layers deep."""
    cause: BaseException = error
    while True:
        inner = cause.__cause__ or cause.__context__ or (cause.args and cause.args[0])
        reason = getattr(cause, "reason", None)
        if isinstance(reason, BaseException):
            cause = reason
        elif isinstance(inner, BaseException) and inner is not cause:
            cause = inner
        else:
            break
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(cause) or type(cause).__name__
