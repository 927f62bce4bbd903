"""Saving a machine's document where somebody can carry it off: what `liferaft probe --json` prints, as a file.

Preflight on another computer takes it, and a recipe's ``firmware.machines``.
"""

import datetime
import re

from core.documents import encode_readable
from core.errors import DeviceError
from core.files import write_atomically
from core.process import Runner
from images.model.machine import Machine
from rescue.jobs.support_places import SupportPlace, opened_place

#: Characters of the product's name in that of a file.
_PRODUCT_LENGTH = 40


def save_machine(place: SupportPlace, machine: Machine, runner: Runner, now: datetime.datetime) -> str:
    """Write the document there, in place of an older one of the same machine; returns the name of the file.

    Raises:
        ProcessError: the stick cannot be mounted or made writable, or not be let go. DeviceError: it cannot be written.
    """
    name = document_name(machine, now)
    with opened_place(place, "machine", runner) as folder:
        try:
            write_atomically(folder / name, encode_readable(machine).encode())
        except OSError as error:
            raise DeviceError(f"{folder / name} cannot be written: {error.strerror}.") from None
    return name


def document_name(machine: Machine, now: datetime.datetime) -> str:
    """``liferaft-machine-optiplex-7060-525400123456.json``: machines of one model differ by a card's address, and those
    without a card by the time."""
    product = re.sub(r"[^a-z0-9]+", "-", machine.product.lower()).strip("-")[:_PRODUCT_LENGTH].strip("-")
    # What has no driver is a bridge or a bond: their addresses are made up.
    cards = [re.sub(r"[^0-9a-f]", "", nic.mac.lower()) for nic in machine.nics if nic.driver]
    words = ("liferaft-machine", product, next(filter(None, cards), f"{now:%Y%m%dT%H%M%SZ}"))
    return "-".join(word for word in words if word) + ".json"
