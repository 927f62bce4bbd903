"""What a run leaves for whoever looks afterwards: the plans it carried out, and the reports or failures, as files.

Only the rescue system has the place (``rescue/live``, tmpfiles.d); its memory is gone when the machine is switched off,
so the support bundle takes them along. On any other machine nothing is kept: the faces save what they are told to.
"""

import contextlib
import datetime
from pathlib import Path

import msgspec

from core.documents import encode_readable
from core.errors import LiferaftError, RefusedError
from core.files import write_new

RECORDS = Path("/var/log/liferaft")
#: Records that are kept; a run makes two, and a job's a third.
_MOST = 200


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a restore ended that did not come to its end: the error's words, ``exit_code`` and the plan's digest."""

    exit_code: int
    plan: str
    error: str
    hint: str = ""
    reasons: tuple[str, ...] = ()


def failure(error: LiferaftError, plan: str) -> Failure:
    """The record of an error. ``plan``: the digest."""
    reasons = error.reasons if isinstance(error, RefusedError) else ()
    return Failure(exit_code=error.code, plan=plan, error=error.message, hint=error.hint, reasons=reasons)


def keep_record(name: str, document: object, *, place: Path = RECORDS) -> Path | None:
    """Keep a document as ``TIME-NAME.json``; None where there is no place for it, or no room.

    Never an error: a restore does not fail because its record could not be kept.
    """
    if not place.is_dir() or sum(1 for _ in place.glob("*.json")) >= _MOST:
        return None
    now = datetime.datetime.now(datetime.UTC)
    with contextlib.suppress(OSError):
        path = place / f"{now:%Y%m%dT%H%M%S.%f}Z-{name}.json"
        if write_new(path, encode_readable(document).encode()):
            return path
    return None
