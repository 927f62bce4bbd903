"""Growing a restored filesystem to the size of its partition, through the filesystem's own tools."""

from core.errors import ProcessError, RefusedError
from core.process import Runner
from images.model.layout import FilesystemKind
from restore.fit import GROWABLE

#: e2fsck: 0 clean, 1 something was mended.
_CHECKED = frozenset({0, 1})

TOOLS = ("e2fsck", "resize2fs")


def grow_filesystem(node: str, kind: FilesystemKind, runner: Runner) -> bool:
    """Grow the filesystem on ``node`` to fill it.

    Returns:
        whether e2fsck mended something before.

    Raises:
        RefusedError: the kind cannot be grown.
        ProcessError: the tool failed; the filesystem is as it was restored, or as the tool left it.
    """
    if kind not in GROWABLE:
        raise RefusedError(f"A {kind} filesystem cannot be grown by this version.")
    # resize2fs insists on a check since the last mount; "preen" mends only what is safe without a question.
    checked = runner.run(["e2fsck", "-f", "-p", node], success=_CHECKED, timeout=24 * 3600)
    try:
        runner.run(["resize2fs", node], timeout=24 * 3600)
    except ProcessError as error:
        raise ProcessError(
            error.argv,
            error.returncode,
            error.output,
            hint="The data is restored and verified; only the growing failed. Grow it later with resize2fs.",
        ) from None
    return checked.returncode != 0
