"""What makes a machine itself, beside its disks: machine-id, SSH host keys, and what is random once per machine.

Symbolic links of the restored system are followed below its own root only: they never lead into the rescue system.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from core.errors import LiferaftError
from restore.boot.within import folder_within

#: Seeds and keys that a system makes again when they are missing (systemd-random-seed(8), systemd-creds(1),
#: NetworkManager(8), systemd-boot(7)).
FORGOTTEN = (
    "var/lib/systemd/random-seed",
    "var/lib/NetworkManager/secret_key",
    "boot/efi/loader/random-seed",
)
#: The key of encrypted credentials: made again as well, but what it had encrypted is then lost.
_SECRET = "var/lib/systemd/credential.secret"
#: Where credentials lie that it may have encrypted, and the units that may carry some (systemd.exec(5)).
_CREDENTIALS = ("etc/credstore.encrypted", "usr/lib/credstore.encrypted", "boot/efi/loader/credentials")
_UNITS = ("etc/systemd/system", "etc/systemd/network", "etc/systemd/user")
_IN_UNITS = (b"LoadCredentialEncrypted=", b"SetCredentialEncrypted=")
_LARGEST_UNIT = 1 << 20
_SSH, _HOST_KEYS = "etc/ssh", "ssh_host_*_key*"


def renew_machine_id(root: Path, new: str) -> bool:
    """Write the new id where the old one was; False when the system keeps none, or has the new one already."""
    path = _file(root, "etc/machine-id")
    if path is None:
        return False
    old = path.read_text(errors="replace").strip()
    bus = _file(root, "var/lib/dbus/machine-id")
    if bus is not None:
        bus.write_text(f"{new}\n")
    if old != new:
        path.write_text(f"{new}\n")
    return old != new


def forget_seeds(root: Path) -> tuple[tuple[str, ...], str]:
    """Remove what is random once per machine and made again at the next start.

    Returns:
        their paths, and a warning; empty for none. The key of credentials stays where something needs it: services
        that do not start are worse than two machines with one key, and the warning says so.
    """
    gone = []
    needed = _credentials(root)
    for name in (*FORGOTTEN, *(() if needed else (_SECRET,))):
        path = _file(root, name)
        if path is not None:
            path.unlink()
            gone.append(f"/{name}")
    if not needed or _file(root, _SECRET) is None:
        return tuple(gone), ""
    return tuple(gone), (
        f"/{_SECRET} is the same as on the source, because {needed} may need it: encrypt these credentials anew on the "
        "restored machine (systemd-creds), then remove it"
    )


def _credentials(root: Path) -> str:
    """The first thing found that holds, or names, an encrypted credential; empty for none."""
    for name in _CREDENTIALS:
        folder = folder_within(root, name)
        if folder is not None and folder.is_dir() and any(folder.iterdir()):
            return f"/{name}"
    for name in _UNITS:
        folder = folder_within(root, name)
        for path in sorted(folder.rglob("*")) if folder is not None else ():
            if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST_UNIT:
                continue
            content = path.read_bytes()
            if any(word in content for word in _IN_UNITS):
                return f"/{path.relative_to(root)}"
    return ""


def renew_host_keys(root: Path, inside: Callable[[tuple[str, ...]], str]) -> tuple[tuple[str, ...], str]:
    """Make the SSH host keys of a system again, with its own ssh-keygen.

    Args:
        inside: runs a program in the system, changed root and all.

    Returns:
        names of the new keys, and a warning; empty for none. Without new keys the old ones stay away: a daemon
        that does not start is better than two machines with one key, and the warning says so.
    """
    folder = folder_within(root, _SSH)
    old = sorted(folder.glob(_HOST_KEYS)) if folder is not None else []
    before = {path.name: path.read_bytes() for path in old if path.suffix == ".pub"}
    if folder is None or not old:
        return (), ""
    for path in old:
        path.unlink()
    failure = ""
    try:
        inside(("ssh-keygen", "-A"))
    except LiferaftError as error:
        failure = error.message
    made = sorted(folder.glob(_HOST_KEYS))
    same = [path.name for path in made if before.get(path.name) == path.read_bytes()]
    with contextlib.suppress(OSError):
        for path in made:
            if path.name in same:
                path.unlink()
    names = tuple(path.name for path in made if path.suffix != ".pub" and path.name not in same)
    if not names:
        return (), f"no SSH host keys could be made ({failure or 'ssh-keygen made none'}): run ssh-keygen -A there"
    return names, ""


def _file(root: Path, name: str) -> Path | None:
    """The ordinary file of that name in the system; None when there is none, or a link in its place."""
    above, _, last = name.rpartition("/")
    folder = folder_within(root, above)
    path = folder / last if folder is not None else root
    return path if path.is_file() and not path.is_symlink() else None
