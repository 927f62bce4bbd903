"""S3: a repository in a bucket of an object store. The only module that imports obstore.

Objects are only ever created whole, listed, read by ranges and removed; what is replaced is the
catalogue alone. The library signs and retries; here its answers become liferaft's words. It does
not make buckets, and cannot list the uploads that were cut off (docs/backends.md).
"""

import contextlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from core.errors import DamagedError, DeviceError, LiferaftError, UnreachableError, UsageError
from core.units import KIB, MIB
from images.store.backend import OUR_PARTIAL, PARTIAL, FileStart, Heard, MissingFileError, NewFile, deaf
from images.store.s3_address import S3Address, parse_address

if TYPE_CHECKING:
    # The library has these for type checkers only.
    from obstore import GetOptions, GetResult, ObjectMeta, WritableFile
    from obstore.store import ClientConfig, RetryConfig, S3Config

#: Bytes of one part of an upload, and how many travel at once: that and the records that wait is all the memory used.
#: An object of 1 GiB has 128 parts; S3 allows 10000, of 5 MiB and more.
_PART = 8 * MIB
_PARTS_UNDER_WAY = 4
#: Bytes that come in one piece; of what is longer, every piece is a sign of life.
_PIECE = 256 * KIB
_WRITES_WAITING = 4
#: A request that is not answered whole in that time counts as lost. A part then needs a line of 1.5 Mbit/s.
_TIMEOUT = timedelta(seconds=180)
#: Signatures hold for 15 minutes and are not renewed between tries; the library's authors advise less than 5.
_RETRY: "RetryConfig" = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=290),
    "backoff": {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=15), "base": 2},
}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CERTIFICATES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_METADATA = re.compile(r" \S+/latest/(api/token|meta-data)")

_HINTS = {
    "RequestTimeTooSkewed": "This machine's clock is wrong: set it, then try again.",
    "ExpiredToken": "The session token has expired: get a new one.",
    "InvalidAccessKeyId": "The server does not know AWS_ACCESS_KEY_ID. Is it meant for this server?",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID.",
    "AccessDenied": "The credentials do not allow it. docs/backends.md lists the rights that are needed.",
}
_REGION_HINT = "The bucket is in another region: set AWS_REGION."
_REGION_CODES = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")


def connect(address: str) -> "S3Backend":
    """The backend for an address, with the credentials of the environment where it holds none."""
    return S3Backend(parse_address(address), retry=_RETRY)


class S3Backend:
    """A repository in a bucket. Reads and writes; safe from several threads.

    Args:
        retry: tries and pauses.
    """

    lists = True
    distant = True

    def __init__(self, address: S3Address, *, retry: "RetryConfig" = _RETRY) -> None:
        self._address = address
        self.heard: Heard = deaf
        config: S3Config = {"disable_bulk_delete": True}
        if address.endpoint:
            config["endpoint"] = config["aws_endpoint_url_s3"] = address.endpoint
        if address.key:
            config["access_key_id"], config["secret_access_key"] = address.key, address.secret
        endpoint = address.endpoint or next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
        client: ClientConfig = {"timeout": _TIMEOUT, "connect_timeout": timedelta(seconds=10)}
        if endpoint.startswith("http://"):
            client["allow_http"] = True
        certificates = next((os.environ[name] for name in _CERTIFICATES if os.environ.get(name)), "")
        if certificates:
            client["root_certificate"] = _certificates(Path(certificates))
        try:
            self._store = S3Store(
                address.bucket,
                prefix=address.prefix or None,
                config=config,
                client_options=client,
                retry_config=retry,
            )
        except (BaseError, ValueError) as error:
            raise UsageError(f"{self.location}: the settings for S3 are wrong: {_summary(error)}.") from None

    @property
    def location(self) -> str:
        return self._address.shown

    def read(self, name: str, limit: int) -> bytes:
        with self._translated(name):
            answer = obstore.get(self._store, name)
            size = answer.meta["size"]
            if size > limit:
                raise DeviceError(f"{self._shown(name)} is larger than the {limit} bytes it may have.")
            data = self._collected(answer)
        if len(data) != size:
            raise DeviceError(f"{self._shown(name)}: {len(data)} bytes came, expected {size}.")
        return data

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        with self._translated(name):
            if length <= _PIECE:
                data = obstore.get_range(self._store, name, start=offset, length=length).to_bytes()
            else:
                options: GetOptions = {"range": (offset, offset + length)}
                data = self._collected(obstore.get(self._store, name, options=options))
        if len(data) != length:
            raise DamagedError(
                f"{self._shown(name)} is truncated: it ends at {offset + len(data)}, expected {offset + length}."
            )
        return data

    def read_start(self, name: str, length: int) -> FileStart:
        with self._translated(name):
            answer = obstore.get(self._store, name, options={"range": (0, length)})
            size = answer.meta["size"]
            data = self._collected(answer)
        if len(data) != min(length, size):
            raise DeviceError(f"{self._shown(name)}: {len(data)} bytes came, expected {min(length, size)}.")
        return FileStart(data, size)

    def size(self, name: str) -> int:
        with self._translated(name):
            try:
                return obstore.head(self._store, name)["size"]
            except (PermissionDeniedError, UnauthenticatedError):
                # An answer to HEAD has no body, and so no reason. This one has.
                obstore.get_range(self._store, name, start=0, length=1)
                raise

    def list(self, folder: str) -> tuple[str, ...]:
        return tuple(name for name in self._names(folder) if not name.endswith(PARTIAL))

    def sizes(self, folder: str) -> dict[str, int]:
        with self._translated(folder):
            return {
                found["path"]: found["size"]
                for page in obstore.list(self._store, folder, chunk_size=1000)
                for found in self._page(page)
                if not found["path"].endswith(PARTIAL)
            }

    def exists(self, name: str) -> bool:
        with contextlib.suppress(MissingFileError):
            self.size(name)
            return True
        return False

    def foreign(self) -> str:
        return next((name for name in self._names("") if not name.endswith(PARTIAL)), "")

    def write(self, name: str, content: bytes) -> None:
        with self._translated(name):
            obstore.put(self._store, name, content, chunk_size=_PART, max_concurrency=_PARTS_UNDER_WAY)

    def write_new(self, name: str, content: bytes) -> bool:
        """As :meth:`images.store.backend.Writer.write_new`, through a conditional PUT (``If-None-Match: *``).

        A server that does not know the condition leaves a window between looking and writing; one that ignores it
        or refuses it is used nevertheless.
        """
        while not self.exists(name):
            try:
                with self._translated(name):
                    obstore.put(self._store, name, content, mode="create")
                return True
            except _RefusedConditionError:
                self.write(name, content)
                return True
            except _ExistsError:
                # It is ours when the answer to an earlier try was lost on its way. When it is gone again, so is whoever
                # was first.
                with contextlib.suppress(MissingFileError):
                    return self.read(name, len(content) + MIB) == content
        return False

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[NewFile]:
        writer = obstore.open_writer(self._store, name, buffer_size=_PART, max_concurrency=_PARTS_UNDER_WAY)
        upload = _Upload(writer, lambda error: self._translate(error, name))
        try:
            yield upload
            upload.finish()
        except BaseException:
            upload.abort()
            raise
        size = self.size(name)
        if size != upload.tell():
            raise DeviceError(f"{self._shown(name)} has {size} bytes after the upload of {upload.tell()}.")

    def remove(self, name: str) -> None:
        with contextlib.suppress(MissingFileError), self._translated(name):
            obstore.delete(self._store, name)

    def leftovers(self) -> tuple[str, ...]:
        with self._translated(""):
            pages = obstore.list(self._store, chunk_size=1000)
            return tuple(
                sorted(
                    found["path"]
                    for page in pages
                    for found in self._page(page)
                    if OUR_PARTIAL.fullmatch(found["path"])
                )
            )

    def _collected(self, answer: "GetResult") -> bytes:
        """The whole body, heard as it comes."""
        pieces = []
        for piece in answer.stream(min_chunk_size=_PIECE):
            self.heard(len(piece))
            pieces.append(piece)
        return b"".join(pieces)

    def _page(self, page: "Sequence[ObjectMeta]") -> "Sequence[ObjectMeta]":
        """A page of a list, heard."""
        self.heard(0)
        return page

    def _names(self, folder: str) -> "tuple[str, ...]":
        with self._translated(folder):
            found = obstore.list_with_delimiter(self._store, folder or None)
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        # A console keeps an empty object for a folder, which comes back without a name.
        return tuple(sorted(filter(None, (path.rpartition("/")[2] for path in paths if path != folder))))

    def _shown(self, name: str) -> str:
        return f"{self.location}/{name}"

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """One request: an answer is heard, and the library's errors become liferaft's words."""
        try:
            yield
            self.heard(0)
        except (BaseError, OSError) as error:
            raise self._translate(error, name) from None

    def _translate(self, error: Exception, name: str) -> LiferaftError:
        status, code, shown = _status(error), _code(error), self._shown(name)
        if isinstance(error, AlreadyExistsError):
            return _ExistsError(f"{shown} exists already.")
        if status == 501:
            return _RefusedConditionError(f"{shown}: the server does not do that: {_summary(error)}.")
        if _METADATA.search(str(error).partition("\n")[0]):
            # Without any, the library asks for those of a machine in Amazon's cloud.
            return UnreachableError(
                f"{shown} cannot be reached: there are no credentials.",
                hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket.",
            )
        if code == "NoSuchBucket":
            return UnreachableError(
                f"{self.location}: there is no bucket {self._address.bucket}.",
                hint="Is the name right, and the server? Make the bucket first: liferaft makes none.",
            )
        if isinstance(error, FileNotFoundError) or status == 404:
            return MissingFileError(f"{shown} is missing.")
        if status == 416:
            return DamagedError(f"{shown} is truncated: it ends before the range asked for (status 416).")
        if "Received redirect without LOCATION" in str(error) or status == 301 or code in _REGION_CODES:
            return UnreachableError(f"{shown} was refused: the server points elsewhere.", hint=_REGION_HINT)
        if status in (401, 403):
            hint = _HINTS.get(code, "Are the credentials right? They come from AWS_ACCESS_KEY_ID and its companions.")
            return UnreachableError(f"{shown} was refused: {_summary(error)}.", hint=hint)
        if status and status < 500:
            return DeviceError(f"{shown}: the server refused the request: {_summary(error)}.")
        return UnreachableError(
            f"{shown} cannot be reached: {_summary(error)}.",
            hint="Is the server running, is the network up, is the address right?",
        )


class _ExistsError(DeviceError):
    """A conditional PUT found that there is such an object."""


class _RefusedConditionError(DeviceError):
    """The server does not know conditional PUTs, and says so."""


class _Upload:
    """A file on its way. A thread hands the writes over, so that an interruption never meets one half done."""

    def __init__(self, writer: "WritableFile", translate: Callable[[Exception], LiferaftError]) -> None:
        self._writer = writer
        self._translate = translate
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._under_way: deque[Future[None]] = deque()
        self._failure: BaseException | None = None
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        while len(self._under_way) >= _WRITES_WAITING:
            self._under_way[0].result()
            self._under_way.popleft()
        if self._failure is not None:
            raise self._failure
        self._under_way.append(self._pool.submit(self._send, bytes(data)))

    def tell(self) -> int:
        # The one thread takes them in order: when this is done, they all are.
        with contextlib.suppress(RuntimeError):
            self._pool.submit(int).result()
        return self._size

    def finish(self) -> None:
        """Wait for the last part; from then on the object is there."""
        self.tell()
        if self._failure is not None:
            raise self._failure
        try:
            self._writer.close()
        except (BaseError, OSError) as error:
            raise self._translate(error) from None
        self._pool.shutdown()

    def abort(self) -> None:
        """Let the server forget what it has, as far as it still answers."""
        self._pool.shutdown(cancel_futures=True)
        with contextlib.suppress(BaseError, OSError):
            self._writer.__exit__(DeviceError, DeviceError("abandoned"), None)

    def _send(self, data: bytes) -> None:
        if self._failure is not None:
            return
        try:
            self._writer.write(data)
        except (BaseError, OSError) as error:
            self._failure = self._translate(error)
        except BaseException as error:
            # Nothing may follow a write that is not known to be whole.
            self._failure = error
            raise
        else:
            self._size += len(data)


def _certificates(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} (AWS_CA_BUNDLE) cannot be read: {error.strerror}.") from None


def _status(error: Exception) -> int:
    """The HTTP status that the library's text names; 0 for none."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else 0


def _code(error: Exception) -> str:
    found = re.search(r"<Code>([A-Za-z0-9.]{1,80})</Code>", str(error))
    return found[1] if found else ""


def _summary(error: Exception) -> str:
    """The cause in a few words. The library's own text has the whole request and pages of internals."""
    text, _, inside = str(error).partition("\n\nDebug source")
    message = re.search(r"<Message>([^<]{1,300})", text)
    if _code(error):
        return ": ".join(part.strip().rstrip(".") for part in (_code(error), message[1] if message else "") if part)
    cause = re.findall(r'(?:message|error): "([^"\\]{1,200})"', inside)
    if cause:
        return str(cause[-1]).lower()
    if "TimedOut" in inside or "Timeout" in inside:
        return "no answer in time"
    if _status(error):
        return f"status {_status(error)}"
    return text.rpartition(" - ")[2].strip().rstrip(".")[:300] or type(error).__name__
