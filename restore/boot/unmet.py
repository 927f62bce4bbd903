"""Telling what a restored system waits for: as a warning, unless it is on another disk of this machine.

Which lines these are is said by ``awaited.py``; nothing of the system is changed.
"""

from collections.abc import Collection
from pathlib import Path

from core.errors import LiferaftError
from core.process import Runner
from images.fstab import Tag
from restore.boot.awaited import Known, Unmet, unmet
from restore.boot.told import Told
from restore.boot.within import folder_within

#: findfs(8): found, and not.
_ANSWERS = frozenset({0, 1})


def tell_unmet(root: Path, known: Known, needed: Collection[str], runner: Runner, told: Told) -> None:
    """Tell of each line of the system's fstab and crypttab that waits for what was not restored.

    Args:
        root: the mounted system.
        needed: places of its fstab of which more is told elsewhere.
    """
    for line in unmet(_text(root, "etc/fstab"), _text(root, "etc/crypttab"), known):
        if line.place and line.place in needed:
            continue
        node = _node_here(line, runner)
        if node:
            what = f"line {line.number} of {line.file} {line.does} ({line.spec})"
            told.did(f"{what}: it is on {node}, which was not restored; leave that disk in the machine")
        else:
            told.warn(line.text())


def _text(root: Path, name: str) -> str:
    path = folder_within(root, name)
    return path.read_text(errors="replace") if path is not None and path.is_file() else ""


def _node_here(line: Unmet, runner: Runner) -> str:
    """The device of this machine that has the name; empty when none has."""
    tag, value = line.name
    if tag is Tag.DEVICE:
        return value if Path(value).exists() else ""
    try:
        return runner.run(["findfs", f"{tag}={value}"], success=_ANSWERS, timeout=120).stdout.strip()
    except LiferaftError:
        # A disk that does not answer, say: it is not for this question that a boot repair ends.
        return ""
