"""The address of a bucket: its parts, and what of it may be shown. It knows no library and asks no server."""

import re

import msgspec

from core.errors import UsageError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_FORM = "s3://bucket/folder, or s3+https://host:port/bucket/folder for a server of your own"


class S3Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a repository is.

    Attributes:
        shown: the address as it was given, without credentials: all that logs and plans may have.
        endpoint: URL of the server; empty for AWS or what the environment says.
        key, secret: from the address; empty for those of the environment.
    """

    shown: str
    endpoint: str
    bucket: str
    prefix: str
    key: str = ""
    secret: str = ""


def parse_address(address: str) -> S3Address:
    """The parts of ``s3://[key:secret@]bucket/prefix`` or ``s3+http[s]://[key:secret@]host[:port]/bucket/prefix``.

    Raises:
        UsageError: it is not of that form. The message does not repeat it: there may be a secret in it.
    """
    scheme, _, rest = address.partition("://")
    authority, _, path = rest.partition("/")
    login, _, host = authority.rpartition("@")
    key, _, secret = login.partition(":")
    own_server = scheme in ("s3+http", "s3+https")
    if not own_server:
        path = f"{host}/{path}"
    bucket, _, prefix = path.strip("/").partition("/")
    prefix = prefix.strip("/")
    if own_server and not _HOST.fullmatch(host):
        raise UsageError("The S3 address has no valid host.", hint=f"Give {_FORM}; write / in a secret as %2F.")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError("The S3 address has no valid bucket.", hint=f"Give {_FORM}; write / in a secret as %2F.")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise UsageError("The S3 address has an empty part, . or .. in its folder.", hint=f"Give {_FORM}.")
    place = f"{host}/{bucket}" if own_server else bucket
    return S3Address(
        shown=f"{scheme}://{place}/{prefix}".rstrip("/"),
        endpoint=f"{scheme.removeprefix('s3+')}://{host}" if own_server else "",
        bucket=bucket,
        prefix=prefix,
        key=_unquoted(key),
        secret=_unquoted(secret),
    )


def _unquoted(text: str) -> str:
    return re.sub(r"%([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), text)
