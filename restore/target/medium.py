"""The rescue medium on a disk, read from the disk itself.

The probe believes what udev noted (lsblk). Where no udev ran, or it has not looked yet, nothing is noted, and the
guard of DESIGN §3.3 must not depend on that.
"""

import os

from images.probe import MEDIUM_LABEL

#: ECMA-119, 8.4: the primary volume descriptor lies in the 17th sector of 2048 bytes; behind its type, at 1, stands
#: ``CD001``, and at 40, in 32 bytes, the volume identifier.
_DESCRIPTOR_AT = 16 * 2048
_MAGIC_AT, _MAGIC = 1, b"CD001"
_LABEL_AT, _LABEL_SIZE = 40, 32


def carries_medium(node: str) -> bool:
    """Whether the device begins as a rescue medium of ours does; False where it cannot be read."""
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        sector = os.pread(descriptor, 2048, _DESCRIPTOR_AT)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    label = sector[_LABEL_AT : _LABEL_AT + _LABEL_SIZE]
    return sector[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC and label.startswith(MEDIUM_LABEL.encode())
