"""liferaft in this process, through its own ``main``: what it said on each stream, and its exit code."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rescue.cli.main import main


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


class Command:
    """Calls liferaft with words. Nobody is at the keyboard."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> Said:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["liferaft", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, said.out, said.err)
