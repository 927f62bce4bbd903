"""A runner that starts nothing: it answers from a script and remembers what was asked."""

from collections.abc import Callable, Mapping, Sequence

from core.process import Result


class ScriptedRunner:
    """Answers each command with what ``answer`` says.

    Attributes:
        calls: every argv, in order.
        inputs: what was fed to standard input, by the index of the call.
    """

    def __init__(self, answer: Callable[[tuple[str, ...]], Result | str]) -> None:
        self._answer = answer
        self.calls: list[tuple[str, ...]] = []
        self.inputs: dict[int, str] = {}

    def run(
        self,
        argv: Sequence[str],
        *,
        success: frozenset[int] = frozenset({0}),
        timeout: float = 600.0,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        secrets: Sequence[str] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        if stdin is not None:
            self.inputs[len(self.calls)] = stdin
        self.calls.append(tuple(argv))
        answer = self._answer(tuple(argv))
        result = answer if isinstance(answer, Result) else Result(0, answer, "")
        assert result.returncode in success, f"{argv} would have failed with {result.returncode}"
        return result
