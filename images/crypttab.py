"""What a system says of its encrypted containers: the lines of its ``/etc/crypttab``. Nothing is opened here.

Format: crypttab(5).
"""

import msgspec

from images.fstab import without_escapes


class CrypttabLine(msgspec.Struct, frozen=True):
    """One container.

    Attributes:
        name: of its mapping. spec: what it lies on, in the line's own words, without escapes.
        key: the path of its key, empty for a passphrase.
        number: of the line in the file, from 1.
    """

    name: str
    spec: str
    key: str = ""
    options: tuple[str, ...] = ()
    number: int = 0

    @property
    def node(self) -> str:
        """The device that it makes."""
        return f"/dev/mapper/{self.name}"


def parse_crypttab(text: str) -> tuple[CrypttabLine, ...]:
    """The lines that name something."""
    words = ((number, line.split()) for number, line in enumerate(text.splitlines(), 1))
    return tuple(
        CrypttabLine(
            without_escapes(line[0]),
            without_escapes(line[1]),
            without_escapes(line[2]) if len(line) > 2 else "",
            tuple(line[3].split(",")) if len(line) > 3 else (),
            number,
        )
        for number, line in words
        if len(line) >= 2 and not line[0].startswith("#")
    )
