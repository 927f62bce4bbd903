"""Where the boot lab keeps what it makes, and which programs it needs.

Logs and screens of failures go to ``out/boot``; source systems, which take minutes to make, go to
``$XDG_CACHE_HOME/liferaft/tests`` (``~/.cache/liferaft/tests``) under a key made of what they are made from.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from core.process import find_tool

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent
OUT = TREE / "out" / "boot"
DEFAULT_ISO = TREE / "out" / "liferaft-amd64.iso"

#: Program → Debian package that has it.
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "nginx": "nginx-light",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "fsck.vfat": "dosfstools",
    "sfdisk": "fdisk",
    "partx": "util-linux",
    "losetup": "mount",
    "setcap": "libcap2-bin",
}
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
#: The same with Secure Boot, and variables with Microsoft's keys enrolled and enforced.
OVMF_SECURE_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
OVMF_SECURE_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")


def cache() -> Path:
    """The folder of cached source systems."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "liferaft" / "tests"


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The cached folder of that name; ``make`` fills a new one where there is none. It appears whole or not at all."""
    folder = cache() / name
    if not folder.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache(), prefix=".making-") as making:
            made = Path(making) / "system"
            made.mkdir()
            make(made)
            try:
                made.rename(folder)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:  # another run made it meanwhile: either is as good
                    raise
    return folder


def missing(tools: Iterable[str] = TOOLS) -> list[str]:
    """What the lab needs and this machine lacks, as sentences; empty when all is there."""
    lacks = [
        f"the program {tool} is not installed (Debian package {TOOLS[tool]})" for tool in tools if not find_tool(tool)
    ]
    if not OVMF_CODE.exists() or not OVMF_VARS.exists():
        lacks.append(f"{OVMF_CODE} is not installed (Debian package ovmf)")
    if os.geteuid() != 0:
        lacks.append("the boot lab mounts filesystems and needs root")
    return lacks
