"""A layer: a part of the live system that lies above those before it, and what it adds to the initrd."""

from pathlib import Path

import msgspec


class Layer(msgspec.Struct, frozen=True):
    """A squashfs that live-boot stacks, and files for the initrd where the layer has some.

    Attributes:
        name: on the medium it is ``live/NAME.squashfs``.
        squashfs: the packed tree.
        initrd: a cpio archive that the boot loader gives to the kernel behind the initrds before it
            (``live/NAME.img``), or None.
        reused: it came from the cache.
        python: the list of Python packages in it (``name``, tab, ``version``), for the layer that has them.
    """

    name: str
    squashfs: Path
    initrd: Path | None = None
    reused: bool = False
    python: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Path on the medium to the file that goes there."""
        found = {f"live/{self.name}.squashfs": self.squashfs}
        if self.initrd is not None:
            found[f"live/{self.name}.img"] = self.initrd
        if self.python is not None:
            found["liferaft/python.txt"] = self.python
        return found
