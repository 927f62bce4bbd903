"""Rules for partitions in a job document, and on the command line."""

import pytest
from click.testing import CliRunner

from core.documents import decode_written
from core.errors import UsageError
from rescue.cli.main import cli
from rescue.jobs.unattended import Job
from restore.planning.rules import PartitionRule, Rule, TableChoice

JOB = '{"repository": "/r", "target": {"only": true}, %s}'


def _job(words: str) -> Job:
    return decode_written((JOB % words).encode(), Job, name="job.json")


def test_a_job_says_what_becomes_of_partitions() -> None:
    job = _job('"rules": [{"partition": 2, "rule": "shrink", "size": 1048576}, {"partition": 5, "rule": "drop"}]')
    assert job.rules == (
        PartitionRule(partition=2, rule=Rule.SHRINK, size=1048576),
        PartitionRule(partition=5, rule=Rule.DROP),
    )
    assert _job('"table": "gpt", "grow_all": true').table is TableChoice.GPT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('"rules": [{"partition": 2, "rule": "eat"}]', "eat"),
        ('"rules": [{"partition": 0, "rule": "grow"}]', "partitions count from 1"),
        ('"rules": [{"partition": 1, "rule": "keep", "size": 5}]', "size goes with the rules grow and shrink"),
        ('"rules": [{"partition": 1, "rule": "keep", "sise": 5}]', "sise"),
        ('"rules": [{"rule": "grow"}]', "partitions count from 1"),
        ('"rules": [{"volume": "vg/root", "partition": 1, "rule": "grow"}]', "for a partition or for a volume"),
        ('"rules": [{"volume": "vg/root", "rule": "grow", "size": 5}]', "without a size"),
        ('"grow": true, "grow_all": true', "say different things"),
        ('"scratch": "work"', "a whole path"),
    ],
)
def test_what_a_job_cannot_mean_is_refused(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _job(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rule", "three=grow"), "is not a rule for a partition"),
        (("--grow", "--grow-all"), "say different things"),
    ],
)
def test_the_command_line_says_what_is_wrong(words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(cli, ["plan", "latest", "--repo", "/nowhere", "--target", "/nowhere", *words])
    assert isinstance(done.exception, UsageError)
    assert said in done.exception.message
