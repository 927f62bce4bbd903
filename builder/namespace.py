"""Root inside a user namespace: how a user builds a medium without being root.

In a namespace with the user's subordinate ids, the user is root over files of its own that belong to other ids outside;
nothing of the machine is open to it that was closed before. See user_namespaces(7), newuidmap(1), unshare(1).
"""

import os
import pwd
from pathlib import Path

from core.errors import ProcessError
from core.process import Runner, find_tool

#: Ids that a Debian system uses: 65534 is nobody's.
_NEEDED = 65536


def root_prefix(runner: Runner, *, etc: Path = Path("/etc")) -> tuple[tuple[str, ...], str]:
    """The words to put before a command so that it runs as root of a namespace.

    Returns:
        the words, and an empty string; or no words and the reason why it does not work here.
    """
    name = pwd.getpwuid(os.getuid()).pw_name
    for tool, package in (("unshare", "util-linux"), ("newuidmap", "uidmap"), ("newgidmap", "uidmap")):
        if find_tool(tool) is None:
            return (), f"{tool} is not installed (package {package})"
    for kind in ("subuid", "subgid"):
        if _granted(etc / kind, name) < _NEEDED:
            return (), f"/etc/{kind} grants {name} no {_NEEDED} ids"
    words = ("unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--")
    try:
        runner.run([*words, "true"], timeout=20)
    except ProcessError as error:
        last = error.output.strip().splitlines()[-1:] or [error.message]
        return (), f"this kernel does not let {name} make user namespaces ({last[0]})"
    return words, ""


def _granted(path: Path, name: str) -> int:
    """The largest range that a file of subordinate ids (subuid(5)) gives to a user, by name or number."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return 0
    fields = [line.split(":") for line in lines]
    who = (name, str(os.getuid()))
    return max((int(row[2]) for row in fields if len(row) == 3 and row[0] in who and row[2].isdecimal()), default=0)
