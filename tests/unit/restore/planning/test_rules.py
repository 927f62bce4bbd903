import pytest

from core.errors import UsageError
from restore.planning.rules import PartitionRule, Rule, parse_rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("3=grow", PartitionRule(partition=3, rule=Rule.GROW)),
        ("5=drop", PartitionRule(partition=5, rule=Rule.DROP)),
        ("2=shrink:20G", PartitionRule(partition=2, rule=Rule.SHRINK, size=20 * 1024**3)),
        ("2=grow:512 MiB", PartitionRule(partition=2, rule=Rule.GROW, size=512 * 1024**2)),
        ("disk1:128=keep", PartitionRule(partition=128, rule=Rule.KEEP, disk="disk1")),
        ("vg-0/root.old=grow", PartitionRule(volume="vg-0/root.old", rule=Rule.GROW)),
    ],
)
def test_what_people_write(text: str, rule: PartitionRule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grow", "is not a rule for a partition"),
        ("3=eat", "eat is not a rule"),
        ("0=grow", "partitions count from 1"),
        ("3=shrink:much", "is not a size"),
        ("3=keep:20G", "size goes with the rules grow and shrink, not with keep"),
        ("3=grow:", "is not a rule for a partition"),
        ("vg/root=eat", "eat is not a rule for a logical volume"),
        ("vg/root=shrink", "a logical volume takes the rule grow"),
        ("vg/root/a=grow", "a logical volume is named group/volume"),
        ("vg/=grow", "a logical volume is named group/volume"),
    ],
)
def test_what_is_no_rule_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_rule(text)
