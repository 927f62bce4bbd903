"""The recipe: what is accepted, and what a person is told about the rest."""

from pathlib import Path

import pytest

from builder.recipe import Compression, Recipe
from builder.recipe_file import default_recipe, parse_recipe, read_recipe
from core.errors import ExitCode, UsageError


def test_the_embedded_recipe_is_the_default() -> None:
    assert default_recipe() == Recipe()


def test_a_whole_recipe() -> None:
    recipe = parse_recipe(
        """
        release = "trixie"
        hostname = "ark"
        packages = ["rsync", "g++"]
        kernel_parameters = ["liferaft.job=http://10.0.0.1/job.json", "ip=dhcp"]
        compression = "fast"
        [job]
        repository = "http://10.0.0.1/repo"
        target = { serial = "X1" }
        """,
        name="ark.toml",
    )
    assert recipe.packages == ("rsync", "g++")
    assert recipe.compression is Compression.FAST
    assert recipe.job == {"repository": "http://10.0.0.1/repo", "target": {"serial": "X1"}}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("pakages = []", "'pakages'", "'packages'"),
        ("[jobs]\nx = 1", "'jobs'", "'job'"),
        ("zzz = 1", "'zzz'", "docs/recipe.md"),
        ("packages = 'rsync'", "array", "docs/recipe.md"),
        ("packages = ['Rsync; rm']", "'Rsync; rm'", ""),
        ("release = 'bullseye'", "bullseye", "docs/recipe.md"),
        ("hostname = 'a b'", "'a b'", "a to z"),
        ("kernel_parameters = ['a b']", "'a b'", "one string"),
        ("kernel_parameters = ['a;reboot']", "'a;reboot'", "one string"),
        ("compression = 'huge'", "huge", "docs/recipe.md"),
        ("= 1", "not valid TOML", "docs/recipe.md"),
    ],
)
def test_refused(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, name="site.toml")
    assert message in caught.value.message
    assert "site.toml" in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.code is ExitCode.USAGE


def test_files_that_are_not_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not text"):
        read_recipe(tmp_path / "binary.toml")
