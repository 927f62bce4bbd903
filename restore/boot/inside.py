"""Running a system's own programs in it: changed root, and an environment that is ours and not the rescue system's."""

from collections.abc import Sequence
from pathlib import Path

from core.errors import ProcessError
from core.process import Runner

_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_OFFLINE": "1",
}


def run_inside(
    root: Path, words: Sequence[str], runner: Runner, *, timeout: float = 300.0, stdin: str | None = None
) -> str:
    """What the program prints.

    Args:
        root: a system as :func:`restore.boot.mounts.mounted_system` mounts it.

    Raises:
        ProcessError: it failed; named as if it had been started without the changed root.
    """
    try:
        return runner.run(["chroot", str(root), *words], timeout=timeout, env=_ENVIRONMENT, stdin=stdin).stdout
    except ProcessError as error:
        raise ProcessError((words[0], *error.argv[3:]), error.returncode, error.output) from None
