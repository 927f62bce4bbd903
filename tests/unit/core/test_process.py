import pytest

from core.errors import MissingToolError, ProcessError
from core.process import SystemRunner


def test_output_and_named_success_codes() -> None:
    runner = SystemRunner()
    assert runner.run(["sh", "-c", "echo out; exit 3"], success=frozenset({3})).stdout == "out\n"
    with pytest.raises(ProcessError) as caught:
        runner.run(["sh", "-c", "echo why >&2; exit 4"])
    assert caught.value.returncode == 4
    assert "why" in caught.value.message


def test_a_missing_program_is_named() -> None:
    with pytest.raises(MissingToolError, match="no-such-program"):
        SystemRunner().run(["no-such-program"])


def test_time_runs_out_and_the_group_is_killed() -> None:
    with pytest.raises(ProcessError, match="signal 9"):
        SystemRunner().run(["sh", "-c", "sleep 60 & wait"], timeout=0.3)
    with pytest.raises(ProcessError, match="signal 9"):
        SystemRunner().run(["sleep", "60"], timeout=0.3, on_line=lambda line: None)


def test_secrets_do_not_reach_the_error() -> None:
    with pytest.raises(ProcessError) as caught:
        SystemRunner().run(["sh", "-c", "echo hunter2; exit 1"], secrets=["hunter2"])
    assert "hunter2" not in caught.value.message + caught.value.output + " ".join(caught.value.argv)


def test_lines_come_one_by_one() -> None:
    lines: list[str] = []
    SystemRunner().run(["sh", "-c", "echo a; echo b >&2"], on_line=lines.append)
    assert lines == ["a", "b"]


def test_standard_input_is_closed_or_fed() -> None:
    assert SystemRunner().run(["cat"]).stdout == ""
    assert SystemRunner().run(["cat"], stdin="fed").stdout == "fed"
