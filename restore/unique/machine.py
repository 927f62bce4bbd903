"""What makes a machine itself, beside its disks: machine-id, SSH host keys, and what is random once per machine."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from core.errors import LiferaftError

#: Seeds and keys that a system makes again when they are missing (systemd-random-seed(8), systemd-creds(1),
#: NetworkManager(8), systemd-boot(7)).
FORGOTTEN = (
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/NetworkManager/secret_key",
    "boot/efi/loader/random-seed",
)
_HOST_KEYS = "etc/ssh/ssh_host_*_key*"


def renew_machine_id(root: Path, new: str) -> str:
    """Write the new id where the old one was. Returns the old one; empty when the system had none."""
    path = root / "etc/machine-id"
    if not path.is_file() or path.is_symlink():
        return ""
    old = path.read_text(errors="replace").strip()
    if old == new:
        return ""
    path.write_text(f"{new}\n")
    bus = root / "var/lib/dbus/machine-id"
    if bus.is_file() and not bus.is_symlink():
        bus.write_text(f"{new}\n")
    return old


def forget_seeds(root: Path) -> tuple[str, ...]:
    """Remove what is random once per machine and made again at the next start. Gives their paths."""
    gone = []
    for name in FORGOTTEN:
        path = root / name
        if path.is_file() and not path.is_symlink():
            path.unlink()
            gone.append(f"/{name}")
    return tuple(gone)


def renew_host_keys(root: Path, inside: Callable[[tuple[str, ...]], str]) -> tuple[tuple[str, ...], str]:
    """Make the SSH host keys of a system again, with its own ssh-keygen.

    Args:
        inside: runs a program in the system, changed root and all.

    Returns:
        names of the new keys, and a warning; empty for none. Without new keys the old ones stay away: a daemon
        that does not start is better than two machines with one key, and the warning says so.
    """
    old = sorted(root.glob(_HOST_KEYS))
    before = {path.name: path.read_bytes() for path in old if path.suffix == ".pub"}
    if not old:
        return (), ""
    for path in old:
        path.unlink()
    failure = ""
    try:
        inside(("ssh-keygen", "-A"))
    except LiferaftError as error:
        failure = error.message
    made = sorted(root.glob(_HOST_KEYS))
    same = [path.name for path in made if before.get(path.name) == path.read_bytes()]
    with contextlib.suppress(OSError):
        for path in made:
            if path.name in same:
                path.unlink()
    names = tuple(path.name for path in made if path.suffix != ".pub" and path.name not in same)
    if not names:
        return (), f"no SSH host keys could be made ({failure or 'ssh-keygen made none'}): run ssh-keygen -A there"
    return names, ""
