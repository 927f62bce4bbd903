"""Where a path of a mounted system leads for the programs that run in it.

Our own open() would follow an absolute symbolic link of the restored system into the rescue system. Nothing is opened
here, and what does not exist yet is no fault.
"""

from pathlib import Path

#: Links that are followed, as the kernel follows at most (path_resolution(7)).
_LINKS = 40


def folder_within(root: Path, name: str) -> Path | None:
    """The folder ``name`` of the system at ``root``, symbolic links followed as with a changed root.

    Args:
        name: a path in the system, with or without its leading slash.

    Returns:
        a path at or below ``root``; None when its links go round in circles.
    """
    waiting = [part for part in reversed(name.split("/")) if part not in ("", ".")]
    found: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del found[-1:]
            continue
        path = root.joinpath(*found, part)
        if not path.is_symlink():
            found.append(part)
            continue
        links += 1
        if links > _LINKS:
            return None
        target = str(path.readlink())
        if target.startswith("/"):
            found.clear()
        waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return root.joinpath(*found)
