"""Retention: which recovery points a policy keeps, and why. Pure: names and times in, reasons out.

The meaning of the rules is restic's, which many know: for each of the last N hours (days, …) that have a recovery
point, the newest one of it; ``within`` counts back from the newest recovery point, not from now, so that a machine that
is not captured any more does not lose everything; and while a rule has counts left, the oldest is kept, too.
"""

import fnmatch
import re
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from core.errors import UsageError

#: Clocks that differ by so much are not called wrong.
_AHEAD = timedelta(days=1)
#: A count that never ends.
ALL = -1

_PERIOD = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?")


class Period(msgspec.Struct, frozen=True):
    """A span of calendar time."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def before(self, moment: datetime) -> datetime:
        """The moment that lies so far before; on the last day of a month that is shorter."""
        months = moment.year * 12 + moment.month - 1 - self.years * 12 - self.months
        year, month = divmod(months, 12)
        if year < 1:
            return datetime.min.replace(tzinfo=moment.tzinfo)
        day = moment.day
        while True:
            try:
                return moment.replace(year=year, month=month + 1, day=day) - timedelta(days=self.days, hours=self.hours)
            except ValueError:
                day -= 1
            except OverflowError:
                return datetime.min.replace(tzinfo=moment.tzinfo)


def parse_period(text: str) -> Period:
    """``30d``, ``1y6m``, ``2w12h``.

    Raises:
        UsageError: it is not one.
    """
    match = _PERIOD.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        raise UsageError(f"{text!r} is not a period.", hint="Write it as 30d, 12h, 2w or 1y6m (y, m, w, d, h).")
    years, months, weeks, days, hours = (int(part or 0) for part in match.groups())
    if max(years, months, weeks, days, hours) > 100_000:
        raise UsageError(f"{text!r} is too long a period.")
    return Period(years, months, days + 7 * weeks, hours)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What to keep. Counts: 0 is no rule, -1 is all. ``names``: patterns as of the shell."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Period | None = None
    names: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it has no rule."""
        return self == Policy()


class Candidate(msgspec.Struct, frozen=True):
    """A recovery point as far as retention looks at it; ``taken`` has a time zone."""

    id: str
    name: str
    taken: datetime


class Fate(msgspec.Struct, frozen=True):
    """What becomes of a recovery point; kept when there are ``reasons``."""

    id: str
    reasons: tuple[str, ...]


_BUCKETS: tuple[tuple[str, Callable[[datetime], object]], ...] = (
    ("hourly", lambda taken: (taken.year, taken.month, taken.day, taken.hour)),
    ("daily", lambda taken: (taken.year, taken.month, taken.day)),
    ("weekly", lambda taken: taken.isocalendar()[:2]),
    ("monthly", lambda taken: (taken.year, taken.month)),
    ("yearly", lambda taken: taken.year),
)


def apply_policy(policy: Policy, group: list[Candidate], *, now: datetime, may_empty: bool = False) -> list[Fate]:
    """The fate of every recovery point of a group, newest first.

    Args:
        now: recovery points of the future stay. Of two clocks one was wrong, and they would take the places of those
            that are taken from now on.
        may_empty: whether the policy may remove the last one.
    """
    ordered = sorted(group, key=lambda point: (point.taken, point.id), reverse=True)
    future = [point for point in ordered if point.taken - now > _AHEAD]
    past = ordered[len(future) :]
    early = [Fate(point.id, ("in the future, by a wrong clock",)) for point in future]
    return early + _judge(policy, past, may_empty=may_empty)


def _judge(policy: Policy, ordered: list[Candidate], *, may_empty: bool) -> list[Fate]:
    reasons: list[list[str]] = [[] for _ in ordered]
    _keep_names(policy, ordered, reasons)
    if policy.within is not None and ordered:
        bound = policy.within.before(ordered[0].taken)
        for number, point in enumerate(ordered):
            if point.taken > bound:
                reasons[number].append("within the period")
    _keep_buckets("last", policy.last, list(range(len(ordered))), reasons)
    for name, bucket in _BUCKETS:
        _keep_buckets(name, getattr(policy, name), [bucket(point.taken) for point in ordered], reasons)
    if ordered and not may_empty and not any(reasons):
        reasons[0].append("the only one left of its group")
    return [Fate(point.id, tuple(why)) for point, why in zip(ordered, reasons, strict=True)]


def _keep_names(policy: Policy, ordered: list[Candidate], reasons: list[list[str]]) -> None:
    for number, point in enumerate(ordered):
        for pattern in policy.names:
            if fnmatch.fnmatchcase(point.name, pattern):
                reasons[number].append(f"named {pattern}")


def _keep_buckets(rule: str, count: int, buckets: list[object] | list[int], reasons: list[list[str]]) -> None:
    """Keep the newest of each bucket while there are counts left, and with them the oldest of all."""
    last: object = None
    for number, bucket in enumerate(buckets):
        if not count:
            return
        fresh = number == 0 or bucket != last
        if fresh or number == len(buckets) - 1:
            reasons[number].append(rule if fresh else f"oldest {rule}")
            count -= count > 0
        last = bucket
