"""Documents that say the least they can, for tests to which most of what they say does not matter."""

import datetime

import msgspec

from builder.document import MediumDocument
from images.model.machine import Firmware, Machine, SecureBoot

_MACHINE = Machine(
    firmware=Firmware.UEFI,
    secure_boot=SecureBoot.DISABLED,
    architecture="x86_64",
    ram=1 << 30,
    product="",
    disks=(),
    nics=(),
    modaliases=(),
)
_MEDIUM = MediumDocument(
    liferaft="liferaft test",
    built=datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC),
    release="trixie",
    architecture="amd64",
    medium_id="0123456789abcdef0123456789abcdef",
    kernel="6.12.99-test",
    layers=("base",),
    initrds=(),
    ram=1,
    ram_copied=2,
    files=(),
)


def sample_machine(**facts: object) -> Machine:
    """A PC with UEFI and nothing else but ``facts``, fields of :class:`Machine`."""
    return msgspec.structs.replace(_MACHINE, **facts)


def sample_medium(**facts: object) -> MediumDocument:
    """A medium with one layer and no files but for ``facts``, fields of :class:`MediumDocument`."""
    return msgspec.structs.replace(_MEDIUM, **facts)
