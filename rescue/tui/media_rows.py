"""Choosing a rescue medium: rows for those that are attached, and one for a path to be typed."""

from collections.abc import Mapping

from rescue.tui.widgets.picker import Row

#: Key of the row for what is not attached.
TYPE_PATH = "type"
ASK_PATH = "(F2: a shell, to mount a disk or to look)"


def media_rows(media: Mapping[str, str], other: str) -> list[Row]:
    """Rows whose keys are nodes.

    Args:
        media: nodes and names of what is attached.
        other: what else there is to type the path of, as in ``An ISO file``.
    """
    return [*(Row(node, (name,)) for node, name in media.items()), Row(TYPE_PATH, (f"{other}: type its path",))]
