"""Files of every kind that a restore could get wrong, put into a source system.

The same files every time (a seeded generator), so that a failure can be met again.
"""

import os
import random
from pathlib import Path

from core.process import Runner
from core.units import KIB, MIB

#: Bytes of the one big file; together with the small ones a capture has something to do.
BIG = 160 * MIB


def plant(root: Path, runner: Runner) -> None:
    """Make the files under ``root``/srv/files."""
    base = root / "srv" / "files"
    base.mkdir(parents=True)
    chance = random.Random(20260101)
    _many(base / "many", chance)
    _big(base, chance)
    _names(base / "names")
    _links(base / "links")
    _sparse(base / "sparse", chance)
    _attributes(base / "attributes", runner)


def _many(folder: Path, chance: random.Random) -> None:
    for branch in range(40):
        place = folder / f"{branch:02d}" / "deeper"
        place.mkdir(parents=True)
        for number in range(50):
            (place / f"file-{number:03d}.txt").write_bytes(chance.randbytes(chance.randrange(0, 24 * KIB)))
    crowd = folder / "crowd"
    crowd.mkdir()
    for number in range(3000):
        (crowd / f"entry-{number:05d}").write_bytes(b"%d\n" % number)


def _big(base: Path, chance: random.Random) -> None:
    words = [chance.randbytes(chance.randrange(2, 12)).hex().encode() for _ in range(500)]
    with (base / "big").open("wb") as stream:
        for part in range(BIG // MIB):
            if part % 2:
                stream.write(chance.randbytes(MIB))
            else:
                text = b" ".join(chance.choices(words, k=MIB // 8))
                stream.write(text[:MIB].ljust(MIB, b"."))


def _names(folder: Path) -> None:
    folder.mkdir()
    names = (
        "Grüße-δοκιμή-試験-🛟",
        "e\u0301 decomposed",
        "\u00e9 composed",
        "space  and\ttab",
        "new\nline",
        "-dash",
        "q'\"q",
    )
    for name in (*names, "x" * 255):
        (folder / name).write_text(name)
    os.close(os.open(os.fsencode(folder) + b"/not-utf8-\xff\xfe", os.O_CREAT | os.O_WRONLY, 0o600))
    deep = folder
    for level in range(30):
        deep = deep / f"level-{level}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("bottom")
    (folder / "empty-folder").mkdir()


def _links(folder: Path) -> None:
    folder.mkdir()
    (folder / "target").write_text("target")
    for number in range(5):
        (folder / f"hard-{number}").hardlink_to(folder / "target")
    (folder / "relative").symlink_to("target")
    (folder / "absolute").symlink_to("/srv/files/links/target")
    (folder / "dangling").symlink_to("nowhere/at all")
    (folder / "long").symlink_to("x/" * 400)  # too long for the inode itself: has a block of its own


def _sparse(folder: Path, chance: random.Random) -> None:
    folder.mkdir()
    with (folder / "holes").open("wb") as stream:
        for offset in (0, 3 * MIB + 17, 700 * MIB, 1500 * MIB):
            stream.seek(offset)
            stream.write(chance.randbytes(9000))
        stream.truncate(2048 * MIB)
    with (folder / "reserved").open("wb") as stream:  # allocated, never written: unwritten extents
        os.posix_fallocate(stream.fileno(), 0, 20 * MIB)
        stream.write(b"only the first bytes")


def _attributes(folder: Path, runner: Runner) -> None:
    folder.mkdir()
    for name, mode in (("setuid", 0o4755), ("sticky", 0o1644), ("nobody", 0o000)):
        path = folder / name
        path.write_text(name)
        path.chmod(mode)
    os.chown(folder / "nobody", 12345, 54321)
    tagged = folder / "tagged"
    tagged.write_text("tagged")
    os.setxattr(tagged, "user.liferaft", b"value \x00 with a zero")
    os.setxattr(tagged, "user.large", bytes(range(256)) * 8)
    program = folder / "capable"
    program.write_text("#!/bin/sh\n")
    runner.run(["setcap", "cap_net_raw+ep", str(program)])
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "device", 0o600 | 0o020000, os.makedev(1, 3))
    os.utime(tagged, ns=(1_000_000_000_123_456_789, 999_999_999_987_654_321))
