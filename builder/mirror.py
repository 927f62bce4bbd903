"""Where packages come from: the Debian mirror that this machine's apt is configured with."""

import re

import msgspec

from core.process import Runner, find_tool

_RELEASE_FILE = re.compile(r"^'(?P<uri>\S+)/dists/(?P<suite>[^/']+(?:/[^/']+)?)/InRelease'")
_DEBIAN_SUITES = ("bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "oldstable")
#: Debian's own names, for a host whose apt knows no Debian mirror.
_OFFICIAL = "http://deb.debian.org/debian"
_OFFICIAL_SECURITY = "http://deb.debian.org/debian-security"


class Mirror(msgspec.Struct, frozen=True):
    """Base URIs of the archive and of its security updates; ``security`` is empty when the host uses none."""

    archive: str
    security: str

    def sources(self, release: str) -> tuple[str, ...]:
        """Lines of a sources.list for ``release``, updates included."""
        lines = [f"deb {self.archive} {release} main", f"deb {self.archive} {release}-updates main"]
        if self.security:
            lines.append(f"deb {self.security} {release}-security main")
        return tuple(lines)


def find_mirror(runner: Runner) -> Mirror:
    """Ask apt which archive it would update from; Debian's own address when the host is not Debian."""
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
