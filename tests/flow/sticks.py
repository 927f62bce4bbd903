"""Small rescue media and sticks for tests: an ISO of a few MiB with a true document, and sticks that fail."""

import random
from pathlib import Path

from builder.boot import mark_name
from builder.document import MEDIUM_DOCUMENT, describe_files
from builder.iso import BootImages, write_iso
from core.documents import encode_readable
from core.process import SystemRunner
from core.units import MIB
from tests.flow.disks import run
from tests.samples import sample_medium

_ID = "0123456789abcdef0123456789abcdef"


def small_iso(folder: Path, *, seed: int = 1, mebibytes: int = 4) -> Path:
    """A hybrid ISO with noise instead of a system, and an EFI image that mkfs.fat made."""
    folder.mkdir(parents=True)
    noise = random.Random(seed)
    files: dict[str, Path] = {}
    contents = {
        "live/base.squashfs": noise.randbytes(mebibytes * MIB),
        "live/vmlinuz": noise.randbytes(5000),
        "liferaft/packages.txt": b"linux 1\n",
        f".disk/{mark_name(_ID)}": _ID.encode(),
    }
    for number, (name, content) in enumerate(contents.items()):
        files[name] = folder / f"file{number}"
        files[name].write_bytes(content)
    document = sample_medium(medium_id=_ID, files=describe_files(files))
    files[MEDIUM_DOCUMENT] = folder / "medium.json"
    files[MEDIUM_DOCUMENT].write_text(encode_readable(document))
    (folder / "code.img").write_bytes(noise.randbytes(440).ljust(512, b"\0"))
    (folder / "bios.img").write_bytes(noise.randbytes(8192))
    run("mkfs.fat", "-C", "-n", "LIFERAFT", folder / "efi.img", "1024")
    iso = folder / "rescue.iso"
    write_iso(files, BootImages(folder / "code.img", folder / "bios.img", folder / "efi.img"), iso, SystemRunner())
    return iso


class PowerCutError(Exception):
    """The stick was pulled out."""


class MemoryStick:
    """A stick in memory, that may lie about its size or be pulled out.

    Args:
        true: bytes that it really has; 0: as many as it says.
        wraps: what lies behind the true end comes round to the start; otherwise it is thrown away.
        cut: writes after which it is pulled out, the last one half done; -1 for never.
        torn: bytes of the last one that are done, when it is not half of it.
    """

    def __init__(
        self, size: int, *, true: int = 0, wraps: bool = False, cut: int = -1, torn: int = -1, content: bytes = b""
    ) -> None:
        self.node = "/dev/memory"
        self.size = size
        self.writes = 0
        self._true = true or size
        self._wraps = wraps
        self._cut = cut
        self._torn = torn
        self.content = bytearray(content or bytes(self._true))

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        assert offset >= 0 and offset + len(data) <= self.size, (offset, len(data))
        assert offset % 512 == 0 and len(data) % 512 == 0, (offset, len(data))
        pulled = self.writes == self._cut
        if pulled:
            data = bytes(data)[: self._torn if self._torn >= 0 else len(data) // 1024 * 512]
        self.writes += 1
        for at in range(offset, offset + len(data), 4096):
            piece = bytes(data[at - offset : at - offset + 4096])
            place = self._place(at)
            if place is not None:
                self.content[place : place + len(piece)] = piece
        if pulled:
            raise PowerCutError

    def write_zeros(self, offset: int, length: int) -> None:
        self.write_at(offset, bytes(length))

    def read_at(self, offset: int, length: int) -> memoryview:
        assert offset >= 0 and offset + length <= self.size
        found = bytearray()
        for at in range(offset, offset + length, 4096):
            place, part = self._place(at), min(4096, offset + length - at)
            found += bytes(part) if place is None else self.content[place : place + part]
        return memoryview(found)

    def flush(self) -> None:
        """Nothing is kept back."""

    def _place(self, at: int) -> int | None:
        if at < self._true:
            return at
        return at % self._true if self._wraps else None
