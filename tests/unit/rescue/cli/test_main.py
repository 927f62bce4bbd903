"""What the command line says at its end."""

import pytest

from rescue.cli.main import main


def interrupted(*words: object, **options: object) -> object:
    raise KeyboardInterrupt


def test_an_interrupt_says_that_nothing_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 130 as README says, and what to do next."""
    monkeypatch.setattr("rescue.cli.unlock.unlock_repository", interrupted)
    monkeypatch.setattr("sys.argv", ["liferaft", "unlock", "--repo", "r"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert "run the same command again" in capsys.readouterr().err
