"""Building and injecting: work that is done with warnings has an exit code of its own, and the result names them."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from builder.inject.inject import InjectReport
from builder.medium import BuildReport
from core.errors import ExitCode
from core.events import Event, Stage
from rescue.cli.main import main

_BUILT = BuildReport(path="x.iso", size=1, sha256="", components=(), packages=1, ram=1, ram_copied=1, seconds=1.0)
_INJECTED = InjectReport(path="x.iso", size=1, sha256="", netboot="", layer="", added=(), early=(), seconds=1.0)

#: command, the engine below the job, what it gives back, words
COMMANDS = [
    ("build", "rescue.jobs.build.build_iso", _BUILT, ("-o", "x.iso")),
    ("inject", "rescue.jobs.inject.inject", _INJECTED, ("old.iso", "-o", "x.iso", "--firmware", "fw.bin")),
]


def _engine(report: msgspec.Struct, warnings: tuple[str, ...]) -> Callable[..., msgspec.Struct]:
    def work(*words: object, **options: object) -> msgspec.Struct:
        [sink] = [word for word in words if callable(word)]
        for text in warnings:
            sink(Event(stage=Stage.BUILD, message=text, warning=True))
            sink(Event(stage=Stage.BUILD, message="nothing to know later"))
        return report

    return work


@pytest.mark.parametrize(("command", "engine", "report", "words"), COMMANDS)
@pytest.mark.parametrize("warnings", [(), ("No mirror answers.", "Not signed.", "Not signed.")])
def test_warnings_are_in_the_exit_code_and_in_the_result(
    command: str,
    engine: str,
    report: msgspec.Struct,
    words: tuple[str, ...],
    warnings: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(engine, _engine(report, warnings))
    # The old medium is not there.
    monkeypatch.setattr("rescue.jobs.inject._keeps_secret", lambda medium: False)
    for as_json in (True, False):
        monkeypatch.setattr("sys.argv", ["liferaft", command, *words, *(["--json"] if as_json else [])])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == (ExitCode.WARNINGS if warnings else ExitCode.DONE)
        said = capsys.readouterr()
        if as_json:
            assert json.loads(said.out)["warnings"] == list(dict.fromkeys(warnings))
        else:
            assert [line for line in said.out.splitlines() if line.startswith("warning: ")] == [
                f"warning: {text}" for text in dict.fromkeys(warnings)
            ]
        assert said.err.count("warning: ") == len(warnings)
