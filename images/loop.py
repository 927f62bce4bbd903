"""A loop device (losetup(8)) over a file, a device or a part of one, for the length of a block."""

from contextlib import AbstractContextManager

from core.process import Runner
from core.stopping import lasting

_TIMEOUT = 60.0


def loop_device(path: str, runner: Runner, *options: str) -> AbstractContextManager[str]:
    """The node of a loop device over ``path``, detached with the block.

    Args:
        options: losetup's, such as ``--offset=512``.

    Raises:
        ProcessError, MissingToolError: losetup failed: the kernel has none to give, say.
    """
    return lasting(
        lambda: runner.run(["losetup", "--find", "--show", *options, path], timeout=_TIMEOUT).stdout.strip(),
        lambda node: runner.run(["losetup", "--detach", node], timeout=_TIMEOUT),
    )
