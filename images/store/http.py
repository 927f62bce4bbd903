"""HTTP: the only module that imports requests.

:class:`HttpBackend` reads a repository from any server with range requests; :func:`fetch` and
:func:`post` serve job documents and reports. Faults that may pass (no connection, 429, 5xx, a body
that breaks off) are tried again with growing pauses, and only for what is still missing; a 404, a
certificate that does not hold, or a server that ignores ranges is final. Proxies and certificates
come from the environment, as requests takes them (docs/backends.md). It does not write.
"""

import contextlib
import email.utils
import logging
import random
import re
import ssl
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

import requests
import urllib3.exceptions

from core.errors import DamagedError, DeviceError, UnreachableError, UsageError
from core.stopping import is_stopping
from core.units import KIB
from images.store.backend import FileStart, Heard, MissingFileError, Tell, deaf

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds to connect, seconds between two bytes.
TIMEOUT = (10.0, 30.0)
#: Pauses between tries, in seconds. Together they outlast a server's restart. Each is varied by a quarter, so that
#: the machines of a rack do not come back all at once; they stay in order.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_JITTER = 0.25
#: Seconds that a server may ask for (``Retry-After``), and that may pass without a byte before it is given up.
_WAIT_LIMIT = 60.0
_PATIENCE = 180.0
#: Requests for one file or range, however much each of them brings.
_REQUESTS_LIMIT = 64
#: Bytes read at once: what is lost of a body that breaks off is less.
_PIECE = 256 * KIB
#: Statuses that may pass, beside 5xx: Request Timeout, Too Early, Too Many Requests (RFC 9110, 8470, 6585).
_PASSING = (408, 425, 429)
#: A 5xx that will not: Not Implemented, HTTP Version Not Supported.
_FINAL = (501, 505)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_IDENTITY = {"Accept-Encoding": "identity"}


class HttpBackend:
    """A repository behind ``http://`` or ``https://``. Read-only; safe from several threads, each on its connection."""

    lists = False
    distant = True

    def __init__(self, url: str, *, pauses: tuple[float, ...] = PAUSES, headers: dict[str, str] | None = None) -> None:
        self._address = url
        self._url, self._auth = split_credentials(url.rstrip("/"))
        self._pauses = pauses
        self._headers = _IDENTITY | (headers or {})
        self.tell: Tell = log.info
        self.heard: Heard = deaf
        # A session goes from thread to thread and keeps its connection, also when the threads of one volume end.
        self._idle: deque[requests.Session] = deque()

    @property
    def location(self) -> str:
        return self._url

    def uncached(self) -> "HttpBackend":
        """The same, asking every cache on the way to ask the server again (RFC 9111 §5.2.1.4)."""
        found = HttpBackend(self._address, pauses=self._pauses, headers={"Cache-Control": "no-cache"})
        found.tell, found.heard = self.tell, self.heard
        return found

    def read(self, name: str, limit: int) -> bytes:
        shown = f"{self._url}/{name}"
        body = _Body(self.heard)

        def once() -> bytes:
            wanted = {"Range": f"bytes={body.size}-"} if body.size else {}
            with self._answer("GET", name, wanted) as answer:
                if answer.status_code != 206:
                    body.restart()
                elif _content_range(answer, shown)[0] != body.size:
                    raise DeviceError(f"{shown}: the server answers another range than it was asked for.")
                body.belongs(answer)
                rest = answer.headers.get("Content-Length", "")
                if body.size + int(rest if rest.isdecimal() else 0) > limit:
                    raise DeviceError(f"{shown} is larger than the {limit} bytes it may have.")
                body.fill(answer, limit + 1 - body.size)
            if body.size > limit:
                raise DeviceError(f"{shown} is larger than the {limit} bytes it may have.")
            return body.content()

        return _retry(once, shown, self._pauses, self.tell, body)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self._part(name, offset, length, exact=True).data

    def read_start(self, name: str, length: int) -> FileStart:
        return self._part(name, 0, length, exact=False)

    def _part(self, name: str, offset: int, length: int, *, exact: bool) -> FileStart:
        """A range, or when not ``exact`` what there is of it; the file's size is 0 when the server does not say it."""
        shown = f"{self._url}/{name}"
        body = _Body(self.heard)

        def once() -> FileStart:
            start, end = offset + body.size, offset + length
            with self._answer("GET", name, {"Range": f"bytes={start}-{end - 1}"}) as answer:
                if answer.status_code != 206:
                    raise DeviceError(
                        f"{self._url} does not answer range requests (status {answer.status_code}).",
                        hint="Serve the repository with nginx, Apache or another server that does.",
                    )
                first, total = _content_range(answer, shown)
                if first != start:
                    raise DeviceError(f"{shown}: the server answers a range from {first}, expected {start}.")
                if exact and total is not None and total < end:
                    raise DamagedError(f"{shown} is truncated: it ends at {total}, expected {end}.")
                if not exact:
                    if total is None:
                        raise DeviceError(f"{self._url} does not say how large {name} is.", hint="Serve plain files.")
                    end = min(end, total)
                body.belongs(answer)
                body.fill(answer, end - start)
            if offset + body.size < end:
                raise requests.ConnectionError(f"{body.size} of {length} bytes")
            return FileStart(body.content(), total or 0)

        return _retry(once, shown, self._pauses, self.tell, body)

    def size(self, name: str) -> int:
        def once() -> int:
            with self._answer("HEAD", name, {}) as answer:
                if not answer.headers.get("Content-Length", "").isdecimal():
                    raise DeviceError(f"{self._url} does not say how large {name} is.", hint="Serve plain files.")
                return int(answer.headers["Content-Length"])

        return _retry(once, f"{self._url}/{name}", self._pauses, self.tell)

    def list(self, folder: str) -> tuple[str, ...]:
        raise DeviceError(f"{self._url} cannot list folders.")

    def sizes(self, folder: str) -> dict[str, int]:
        raise DeviceError(f"{self._url} cannot list folders.")

    @contextlib.contextmanager
    def _answer(self, method: str, name: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """The answer to one request, its status judged and its body not read yet."""
        try:
            session = self._idle.pop()
        except IndexError:
            session = requests.Session()
            session.auth = self._auth
        try:
            with session.request(
                method,
                f"{self._url}/{name}",
                headers=headers | self._headers,
                timeout=TIMEOUT,
                # An answer to HEAD is whole at once; closed before it is read, it would take its connection along.
                stream=method != "HEAD",
                allow_redirects=True,
            ) as answer:
                if answer.status_code >= 400:
                    # What the server says of it is read over, so that the connection can be used again.
                    answer.raw.read(64 * KIB)
                _judge(answer, f"{self._url}/{name}")
                self.heard(0)
                yield answer
        finally:
            self._idle.append(session)


class _Body:
    """What has arrived of a file or a range, over one or several requests."""

    def __init__(self, heard: Heard) -> None:
        self.size = 0
        self._heard = heard
        self._pieces: list[bytes] = []
        self._version: tuple[str | None, ...] | None = None

    def restart(self) -> None:
        """Drop what is there: the next bytes are the first."""
        self.size, self._version = 0, None
        self._pieces.clear()

    def belongs(self, answer: requests.Response) -> None:
        """Make sure that the answer goes on with the same file. A catalogue may be replaced at any moment."""
        version = (answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
        if self._version not in (None, version):
            self.restart()
            raise requests.ConnectionError("the file was replaced")
        self._version = version

    def fill(self, answer: requests.Response, limit: int) -> None:
        """Take at most ``limit`` bytes. What came before a fault is kept, unless it was an encoded body."""
        encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
        end = self.size + limit
        try:
            while self.size < end:
                piece = answer.raw.read(min(_PIECE, end - self.size), decode_content=encoded)
                if not piece:
                    break
                self._pieces.append(piece)
                self.size += len(piece)
                self._heard(len(piece))
        except urllib3.exceptions.HTTPError:
            if encoded:
                self.restart()
            raise

    def content(self) -> bytes:
        return b"".join(self._pieces)


class _BusyError(requests.RequestException):
    """A status that may pass. ``wait`` is what the server asks for, in seconds."""

    def __init__(self, status: int, wait: float) -> None:
        super().__init__(f"status {status}")
        self.wait = wait


def connect(address: str) -> HttpBackend:
    """The backend for an address."""
    return HttpBackend(address)


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
        with requests.post(
            shown, auth=auth, data=content, headers={"Content-Type": "application/json"}, timeout=TIMEOUT
        ) as answer:
            _judge(answer, shown)

    _retry(once, shown, pauses, log.info)


def split_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """A URL without ``user:password@``, which must reach no log and no plan, and what it held.

    Raises:
        UsageError: it is no URL.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise UsageError(f"That is not a URL that can be fetched: {error}.") from None
    if parts.username is None:
        return url, None
    host = parts.netloc.rpartition("@")[2]
    auth = (urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or ""))
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), auth


def _judge(answer: requests.Response, shown: str) -> None:
    """Raise what a status means; return for success."""
    if shown.startswith("https:") and not all(one.url.startswith("https:") for one in (*answer.history, answer)):
        raise UnreachableError(f"{shown} was redirected to an address that is not encrypted, and refused.")
    status = answer.status_code
    if status in (404, 410):
        raise MissingFileError(f"{shown} is missing (status {status}).")
    if status == 416:
        raise DamagedError(f"{shown} is truncated: it ends before the range asked for (status 416).")
    if status in _PASSING or (status >= 500 and status not in _FINAL):
        raise _BusyError(status, _asked_wait(answer.headers.get("Retry-After", "")))
    if status in (401, 407):
        what = "user:password@ in the address" if status == 401 else "HTTPS_PROXY with user:password@"
        raise UnreachableError(f"{shown} was refused with status {status}.", hint=f"Give the credentials: {what}.")
    if status >= 300:
        raise UnreachableError(f"{shown} was refused with status {status}.")


def _content_range(answer: requests.Response, shown: str) -> tuple[int, int | None]:
    """Where a 206 answer begins and how long the whole file is (RFC 9110 §14.4); None when the server does not say."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None or answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DeviceError(f"{shown}: the server does not say which range it answers.", hint="Serve plain files.")
    return int(found[1]), None if found[3] == "*" else int(found[3])


def _asked_wait(text: str) -> float:
    """``Retry-After`` in seconds from now: a number of them, or a date (RFC 9110 §10.2.3)."""
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return (email.utils.parsedate_to_datetime(text).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except ValueError:
        return 0.0


def _retry(once: Callable[[], T], what: str, pauses: tuple[float, ...], tell: Tell, body: _Body | None = None) -> T:
    """Try, pause, try again; UnreachableError when all tries failed. A try that brought bytes starts them anew."""
    tries, began, best = iter(pauses), time.monotonic(), 0
    for _ in range(_REQUESTS_LIMIT):
        try:
            return once()
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            _refuse_final(error, what)
            if body is not None and body.size > best:
                tries, began, best = iter((0.0, *pauses)), time.monotonic(), body.size
            pause = next(tries, None)
            wait = (pause or 0.0) * random.uniform(1 - _JITTER, 1 + _JITTER)
            if isinstance(error, _BusyError):
                wait = max(wait, min(error.wait, _WAIT_LIMIT))
            if pause is None or time.monotonic() - began + wait > _PATIENCE:
                raise _unreachable(what, error) from None
            tell(f"{what}: {_reason(error)}; trying again in {wait:.1f} s")
            time.sleep(wait)
            if is_stopping():
                # Whoever ends the program waits for its threads.
                raise _unreachable(what, error) from None
    raise UnreachableError(f"{what} cannot be read: {_REQUESTS_LIMIT} requests brought {best} bytes.")


def _unreachable(what: str, error: Exception) -> UnreachableError:
    return UnreachableError(
        f"{what} cannot be reached: {_reason(error)}.",
        hint="Is the server running, is the network up, is the address right?",
    )


def _refuse_final(error: Exception, what: str) -> None:
    """Raise for what no further try would change."""
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        raise UnreachableError(
            f"{what} cannot be trusted: {_reason(error)}.",
            hint="Name the certificate of your own authority in REQUESTS_CA_BUNDLE, and look at this machine's clock.",
        ) from None
    if isinstance(error, requests.TooManyRedirects):
        raise UnreachableError(f"{what} cannot be reached: the server sends its visitors in a circle.") from None
    if isinstance(error, ValueError) and not isinstance(error, urllib3.exceptions.HTTPError):
        raise UsageError(f"{what} is not a URL that can be fetched.") from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what is behind it: requests and urllib3 wrap it several layers deep."""
    cause: object = error
    for _ in range(20):
        if not isinstance(cause, BaseException):
            return
        yield cause
        inner = cause.__cause__ or cause.__context__ or (cause.args and cause.args[0])
        reason = getattr(cause, "reason", None)
        cause = reason if isinstance(reason, BaseException) else inner


def _reason(error: Exception) -> str:
    """The cause in a few words."""
    *_, cause = _causes(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(cause) or type(cause).__name__
