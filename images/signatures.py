"""What libblkid makes of a volume: the only module that imports ``blkid``.

Names only. Which bytes are in use is answered by ``images.filesystems``.
"""

import blkid
import msgspec


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What libblkid found.

    Attributes:
        name: its name of the filesystem or container (``ntfs``, ``crypto_LUKS``); empty when ``ambiguous``.
        uuid, label: empty when it has none.
        ambiguous: several signatures that exclude each other, or a volume libblkid cannot read.
    """

    name: str = ""
    uuid: str = ""
    label: str = ""
    ambiguous: bool = False


def probe(descriptor: int, offset: int, size: int) -> Signature | None:
    """The signature in ``size`` bytes at ``offset`` of an open file or device; None when there is none.

    libblkid opens the file behind ``descriptor`` again, read-only, through ``/proc``.
    """
    prober = blkid.Probe()
    try:
        prober.set_device(f"/proc/self/fd/{descriptor}", offset=offset, size=size)
        prober.enable_superblocks(True)
        prober.set_superblocks_flags(blkid.SUBLKS_TYPE | blkid.SUBLKS_UUID | blkid.SUBLKS_LABEL)
        if not prober.do_safeprobe():
            return None
    except (RuntimeError, OSError):
        return Signature(ambiguous=True)
    return Signature(name=_text(prober, "TYPE"), uuid=_text(prober, "UUID"), label=_text(prober, "LABEL"))


def _text(prober: blkid.Probe, name: str) -> str:
    """What libblkid found under a name; empty when it found nothing.

    Old labels are bytes of some code page: what is no text is replaced. (The binding's ``items()`` fails on them.)
    """
    try:
        return bytes(prober[name]).decode(errors="replace")
    except KeyError:
        return ""
