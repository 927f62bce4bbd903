"""Where packages come from: the recipe's archive or the one that this machine's apt is configured with, and in which
state it is.

The state is what ``InRelease`` of each suite says: its date and digest. It decides what is built anew and which time
the medium carries, so that equal states give equal media. Whether the lists are signed by Debian is checked by whoever
installs from them (mmdebstrap, ``debian``).
"""

import datetime
import email.utils
import hashlib
import re
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

import msgspec

from builder.architecture import Architecture, key_part
from builder.cache import Cache, key_of
from core.documents import decode_stored, encode
from core.errors import DamagedError, ProcessError, UnreachableError, UsageError
from core.events import Event, Sink, Stage
from core.process import Runner, find_tool

_RELEASE_FILE = re.compile(r"^'(?P<uri>\S+)/dists/(?P<suite>[^/']+(?:/[^/']+)?)/InRelease'")
_DEBIAN_SUITES = ("bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "oldstable")
#: Debian's own names, for a host whose apt knows no Debian mirror.
_OFFICIAL = "http://deb.debian.org/debian"
_OFFICIAL_SECURITY = "http://deb.debian.org/debian-security"
#: Every state of the archive since 2005: snapshot.debian.org's "Usage".
_SNAPSHOTS = "http://snapshot.debian.org/archive/debian"
_APT_HELPER = "/usr/lib/apt/apt-helper"
_DATE = re.compile(r"^Date: (.{1,64})$", re.MULTILINE)
_LARGEST = 16 << 20
_USER = re.compile(r"(://)[^/\s?#]*@")


class PackageSource(msgspec.Struct, frozen=True):
    """A suite of an archive in one state: when it was published, and the SHA-256 of its InRelease.

    ``uri`` is without the user and the password or token that it is asked with: this goes on the medium."""

    uri: str
    suite: str
    published: datetime.datetime
    sha256: str


class Mirror(msgspec.Struct, frozen=True):
    """Base URIs of the archive and of its security updates; ``security`` is empty when there is none. ``dated`` is an
    old state on purpose: its lists may be past their time. ``backports``: the release's backports count too.
    ``architecture``: whose packages are taken."""

    archive: str
    security: str
    dated: bool = False
    backports: bool = False
    architecture: Architecture = Architecture.AMD64

    def suites(self, release: str) -> tuple[tuple[str, str], ...]:
        """URI and suite of everything for ``release``; the release itself comes first."""
        found = [(self.archive, release), (self.archive, f"{release}-updates")]
        if self.security:
            found.append((self.security, f"{release}-security"))
        if self.backports:
            found.append((self.archive, f"{release}-backports"))
        return tuple(found)

    def sources(self, release: str) -> tuple[str, ...]:
        """Lines of a sources.list for ``release``, updates included; they name an architecture other than amd64."""
        words = [f"arch={name}" for name in key_part(self.architecture)]
        words += ["check-valid-until=no"] if self.dated else []
        options = f"[{' '.join(words)}] " if words else ""
        return tuple(f"deb {options}{uri} {suite} main" for uri, suite in self.suites(release))


def find_mirror(runner: Runner, wanted: str = "", snapshot: str = "") -> Mirror:
    """The archive to build from.

    Args:
        wanted: a recipe's own; else the one that apt would update from, or Debian's own address when the host is no
            Debian.
        snapshot: a state of the archive (``20261101T000000Z``); of snapshot.debian.org, or of ``wanted`` when that is
            laid out as snapshot.debian.org is.
    """
    if snapshot:
        archive = wanted.rstrip("/") or _SNAPSHOTS
        return Mirror(f"{archive}/{snapshot}", f"{archive}-security/{snapshot}", dated=True)
    if wanted:
        archive = wanted.rstrip("/")
        return Mirror(archive, f"{archive}-security" if archive.endswith("/debian") else "")
    if find_tool("apt-get") is None:
        return Mirror(_OFFICIAL, _OFFICIAL_SECURITY)
    return parse_mirror(runner.run(["apt-get", "update", "--print-uris"], timeout=60).stdout)


def parse_mirror(uris: str) -> Mirror:
    """The mirror in what ``apt-get update --print-uris`` prints.

    A third party may serve a suite of the same name; the archive is the one that serves its ``-updates`` too,
    or else the first.
    """
    found = [match.group("uri", "suite") for line in uris.splitlines() if (match := _RELEASE_FILE.match(line))]
    plain = [uri for uri, suite in found if suite in _DEBIAN_SUITES]
    updated = [uri for uri, suite in found if suite.endswith("-updates") and uri in plain]
    security = [uri for uri, suite in found if suite.endswith(("-security", "/updates"))]
    if not plain:
        return Mirror(_OFFICIAL, _OFFICIAL_SECURITY)
    return Mirror((updated or plain)[0], security[0] if security else "")


def read_state(
    mirror: Mirror, release: str, cache: Cache, runner: Runner, sink: Sink, *, offline: bool = False
) -> tuple[PackageSource, ...]:
    """In which state the archive is now; when it cannot be asked, in which it was the last time, with a warning.

    Args:
        offline: do not ask.

    Raises:
        UnreachableError: it does not answer (or must not be asked), and never was.
        DamagedError: what it answers is no InRelease.
    """
    suites = mirror.suites(release)
    name = f"state-{key_of(part for pair in suites for part in pair)}.json"
    problem = "it was not asked (--offline)"
    if not offline:
        try:
            with cache.scratch("state") as scratch:
                state = tuple(_fetch(uri, suite, scratch, runner) for uri, suite in suites)
        except ProcessError as error:
            said = next((line for line in error.output.splitlines() if line.startswith("E:")), error.message)
            problem = without_user(said)
        else:
            cache.remember(name, encode(state))
            return state
    known = cache.recall(name)
    if known is None:
        raise UnreachableError(
            f"{without_user(mirror.archive)} does not say which packages it has: {problem.removeprefix('E: ')}.",
            hint="Does this machine reach its Debian mirror? The first build needs it.",
        )
    stored = decode_stored(known, tuple[PackageSource, ...], name=name)
    state = tuple(msgspec.structs.replace(source, uri=without_user(source.uri)) for source in stored)
    if not offline:
        when = f"{published(state):%Y-%m-%d}"
        warning = f"{without_user(mirror.archive)} cannot be asked; building from what it had on {when}: {problem}"
        sink(Event(stage=Stage.BUILD, message=warning, warning=True))
    return state


def without_user(uri: str) -> str:
    """An address, or a line of a sources.list, without the user information in it (RFC 3986, 3.2.1)."""
    return _USER.sub(r"\1", uri)


def published(state: Iterable[PackageSource]) -> datetime.datetime:
    """When the newest suite was published."""
    return max(source.published for source in state)


def parse_release(content: bytes, uri: str, suite: str) -> PackageSource:
    """An InRelease file.

    Raises:
        DamagedError: it has no date.
    """
    match = _DATE.search(content.decode(errors="replace"))
    try:
        when = email.utils.parsedate_to_datetime(match[1] if match else "")
    except ValueError:
        place = f"{without_user(uri)}/dists/{suite}/InRelease"
        raise DamagedError(
            f"{place}, field Date: expected a time, found {match[1] if match else 'none'}.",
            hint="Does a proxy or a login page answer in the archive's place?",
        ) from None
    return PackageSource(without_user(uri), suite, when.astimezone(datetime.UTC), hashlib.sha256(content).hexdigest())


def _fetch(uri: str, suite: str, folder: Path, runner: Runner) -> PackageSource:
    """apt's own downloader: it knows the proxies that apt is configured with."""
    address, target = f"{without_user(uri)}/dists/{suite}/InRelease", folder / suite.replace("/", "_")
    runner.run([_APT_HELPER, *_login_words(uri, folder), "download-file", address, str(target)], timeout=120)
    if not target.is_file() or target.stat().st_size > _LARGEST:
        raise DamagedError(f"{address}: expected a file of at most {_LARGEST} bytes, found none.")
    return parse_release(target.read_bytes(), uri, suite)


def _login_words(uri: str, folder: Path) -> list[str]:
    """apt's words for the user and password in an address: everybody may read the list of processes, and so they go
    into a file in ``folder`` (apt_auth.conf(5)).

    Raises:
        UsageError: such a file cannot say them.
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.username is None:
        return []
    user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
    if not user or len((user + password).split()) != 1:
        raise UsageError(
            f"{without_user(uri)}: the mirror's user has no name, or there is a space in it or in the password. apt "
            "cannot be told those without everybody on this machine seeing them.",
            hint="apt_auth.conf(5) has no way to write them: choose another password for the mirror.",
        )
    path = folder / "login"
    path.touch(0o600)
    path.write_text(f"machine {without_user(uri)} login {user}" + (f" password {password}\n" if password else "\n"))
    return ["-o", f"Dir::Etc::netrc={path}", "-o", "Dir::Etc::netrcparts=/dev/null"]
