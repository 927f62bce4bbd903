"""The forget job: recovery points that are not wanted any more."""

from collections.abc import Sequence

import msgspec

from core.errors import UsageError
from core.events import Sink
from images.store.access import Access
from images.store.connect import open_repository
from images.store.forget import ForgetResult, GroupBy, forget, judge_by_policy, judge_named
from images.store.locks import LockKind, locked
from images.store.retention import Policy
from images.store.writer import writable


def forget_points(
    location: str,
    points: Sequence[str],
    policy: Policy,
    *,
    grouping: tuple[GroupBy, ...],
    may_empty: bool,
    dry_run: bool,
    sink: Sink,
    access: Access | None = None,
) -> ForgetResult:
    """Remove named recovery points, or those a policy does not keep.

    Args:
        points: as a person names them; empty for the policy.
        may_empty: whether the policy may remove the last one of a group.

    Raises:
        UsageError: neither names nor rules, or both; or a name matches none or several.
        LockedError: somebody prunes.
    """
    if bool(points) is not policy.empty:
        raise UsageError(
            "Name recovery points, or give rules of what to keep." if policy.empty else "Names and rules do not mix.",
            hint="liferaft forget ID… or liferaft forget --keep-daily 7 …",
        )
    repository = open_repository(location, access)
    with locked(writable(repository.backend), LockKind.SHARED, "forget", sink=sink) as lock:
        if points:
            result = judge_named(repository, tuple(repository.resolve(point) for point in points))
        else:
            result = judge_by_policy(repository, policy, grouping, may_empty=may_empty)
        if dry_run:
            return result
        forget(repository, result.removed, lock)
    return msgspec.structs.replace(result, dry_run=False)
