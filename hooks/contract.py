"""The contract under which a site's own programs run at named stages.

A hook is an executable file in ``FOLDER/<stage>/``. It gets one JSON document on standard input
(:class:`HookContext`), and says what it did on standard output. Exit code 0 is success. At a
``before-…`` stage any other code stops the work before anything is written; at an ``after-…`` stage
it becomes a warning, because the work itself is done.
"""

from enum import StrEnum

import msgspec


class HookStage(StrEnum):
    """When a hook runs. The name is also the folder's."""

    BEFORE_CAPTURE = "before-capture"
    AFTER_CAPTURE = "after-capture"
    BEFORE_RESTORE = "before-restore"
    AFTER_RESTORE = "after-restore"

    @property
    def may_refuse(self) -> bool:
        """Whether a failing hook stops the work."""
        return self.value.startswith("before-")


class HookContext(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a hook is told.

    Attributes:
        stage: which one.
        repository: where the images lie.
        recovery_point: its id; empty before a capture.
        disks: device nodes or files that are read (capture) or written (restore).
    """

    version: int = 1
    stage: HookStage
    repository: str
    recovery_point: str = ""
    disks: tuple[str, ...] = ()
