"""Retention: the meaning of the rules, with the outcomes worked out by hand from restic's documentation
("Removing snapshots according to a policy")."""

from datetime import UTC, datetime, timedelta

import pytest

from core.errors import UsageError
from images.store.retention import ALL, Candidate, Fate, Period, Policy, apply_policy, parse_period

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def point(text: str, name: str = "n") -> Candidate:
    return Candidate(text, name, datetime.fromisoformat(text).replace(tzinfo=UTC))


def kept(policy: Policy, *times: str, **options: bool) -> list[str]:
    fates = apply_policy(policy, [point(text) for text in times], now=NOW, **options)
    assert [fate.id for fate in fates] == sorted(times, reverse=True)
    return [fate.id for fate in fates if fate.reasons]


#: The example of restic's manual: a Sunday each week, 2014-09 to 2014-11.
SUNDAYS = [(datetime(2014, 9, 7) + timedelta(weeks=week)).strftime("%Y-%m-%d") for week in range(12)]


def test_the_sundays_of_restic_s_manual() -> None:
    assert kept(Policy(daily=4), *SUNDAYS) == ["2014-11-23", "2014-11-16", "2014-11-09", "2014-11-02"]


def test_last_keeps_the_newest() -> None:
    assert kept(Policy(last=2), "2026-01-01", "2026-01-03", "2026-01-02") == ["2026-01-03", "2026-01-02"]


def test_the_newest_of_each_day_that_has_one() -> None:
    """Days without a recovery point do not use up the count."""
    times = ["2026-11-20T23:00", "2026-11-20T08:00", "2026-11-10T10:00", "2026-11-10T09:00", "2026-11-01T10:00"]
    assert kept(Policy(daily=2), *times) == ["2026-11-20T23:00", "2026-11-10T10:00"]


def test_the_oldest_stays_while_counts_are_left() -> None:
    """Two recovery points of one day, seven days wanted: the older one is the only history there is."""
    times = ["2026-11-20T23:00", "2026-11-20T08:00"]
    fates = apply_policy(Policy(daily=7), [point(text) for text in times], now=NOW)
    assert fates == [Fate(times[0], ("daily",)), Fate(times[1], ("oldest daily",))]
    assert kept(Policy(daily=1), *times) == [times[0]]


def test_weeks_are_iso_weeks() -> None:
    """2026-01-01 is a Thursday of week 1, as is 2025-12-29; 2025-12-28 is a Sunday of week 52."""
    times = ["2026-01-01", "2025-12-29", "2025-12-28", "2025-12-21"]
    assert kept(Policy(weekly=2), *times) == ["2026-01-01", "2025-12-28"]


def test_months_years_and_all() -> None:
    times = ["2026-11-20", "2026-11-01", "2026-10-31", "2025-10-31", "2024-01-01"]
    assert kept(Policy(monthly=2), *times) == ["2026-11-20", "2026-10-31"]
    assert kept(Policy(yearly=2), *times) == ["2026-11-20", "2025-10-31"]
    assert kept(Policy(yearly=ALL), *times) == ["2026-11-20", "2025-10-31", "2024-01-01"]


def test_hours() -> None:
    times = ["2026-11-20T10:59", "2026-11-20T10:00", "2026-11-20T09:59"]
    assert kept(Policy(hourly=2), *times) == ["2026-11-20T10:59", "2026-11-20T09:59"]


def test_rules_add_up() -> None:
    times = ["2026-11-20", "2026-11-19", "2026-11-01", "2026-09-01"]
    assert kept(Policy(last=1, monthly=2), *times) == ["2026-11-20", "2026-09-01"]


def test_within_counts_from_the_newest_not_from_now() -> None:
    times = ["2020-03-31", "2020-03-02", "2020-02-29", "2020-01-01"]
    assert kept(Policy(within=Period(days=30)), *times) == ["2020-03-31", "2020-03-02"]
    # 2020-03-31 minus one month is the last day of February, and "within" does not hold that very moment.
    assert kept(Policy(within=Period(months=1)), *times) == ["2020-03-31", "2020-03-02"]


def test_a_wrong_clock_does_not_make_all_others_old() -> None:
    times = ["2099-01-01", "2026-11-20", "2026-11-01"]
    assert kept(Policy(within=Period(days=7)), *times) == ["2099-01-01", "2026-11-20"]


def test_a_wrong_clock_takes_nobody_s_place() -> None:
    """What was taken in the future by its clock would be the newest for years, and each new one would go at once."""
    times = ["2099-01-01", "2026-11-20", "2026-11-19"]
    for policy in (Policy(last=1), Policy(daily=1), Policy(yearly=1)):
        assert kept(policy, *times) == ["2099-01-01", "2026-11-20"]
    # When it is this machine whose clock is behind, nothing goes.
    fates = apply_policy(Policy(last=1), [point(time) for time in times], now=datetime(2000, 1, 1, tzinfo=UTC))
    assert all(fate.reasons for fate in fates)


def test_names_are_pinned() -> None:
    group = [point("2026-11-20"), point("2026-01-01", "before upgrade"), point("2026-01-02", "daily")]
    fates = apply_policy(Policy(last=1, names=("before*",)), group, now=NOW)
    assert [(fate.id, fate.reasons) for fate in fates] == [
        ("2026-11-20", ("last",)),
        ("2026-01-02", ()),
        ("2026-01-01", ("named before*",)),
    ]


def test_the_last_one_of_a_group_stays() -> None:
    assert kept(Policy(names=("x",)), "2026-01-01", "2026-01-02") == ["2026-01-02"]
    assert kept(Policy(names=("x",)), "2026-01-01", "2026-01-02", may_empty=True) == []
    assert apply_policy(Policy(last=1), [], now=NOW) == []


@pytest.mark.parametrize(
    "text, period",
    [
        ("30d", Period(days=30)),
        ("12h", Period(hours=12)),
        ("2w", Period(days=14)),
        ("1y6m", Period(years=1, months=6)),
        ("1y2m3w4d5h", Period(1, 2, 25, 5)),
    ],
)
def test_periods(text: str, period: Period) -> None:
    assert parse_period(text) == period


@pytest.mark.parametrize("text", ["", "d", "30", "5 days", "-3d", "3d2w", "9" * 30 + "d"])
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(UsageError):
        parse_period(text)


def test_a_period_before_time_began() -> None:
    assert Period(years=5000).before(NOW).year == 1
    assert Period(days=4_000_000).before(NOW).year == 1
