"""Everything above the base, built twice in two folders with two caches, is equal bit for bit.

The base comes from the cache: building it twice costs five minutes and is `make reproducible`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder.cache import default_cache

pytestmark = pytest.mark.thorough

#: What is not built again here: Debian itself, its firmware, and the compiler's own system.
_TAKEN = ("base-", "toolchain-", "lists-", "resolved-", "state-", "loaders-", "firmware.")


def _build(folder: Path) -> Path:
    cache = folder / "cache"
    cache.mkdir(parents=True)
    for path in default_cache().iterdir():
        if path.name.startswith(_TAKEN) and path.suffix not in (".partial", ".lock"):
            # Bytes are shared where that is possible; what is written into the compiler's system is not.
            if path.name.startswith("toolchain-"):
                shutil.copytree(path, cache / path.name, symlinks=True)
            elif path.is_dir():
                shutil.copytree(path, cache / path.name, symlinks=True, copy_function=os.link)
            else:
                shutil.copy2(path, cache / path.name)
    argv = [sys.executable, "-c", "from rescue.cli.main import main; main()", "build", "--offline"]
    said = subprocess.run(
        [*argv, "--cache", str(cache), "-o", str(folder / "medium.iso")], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert "Installing Python packages" in said.stderr and "Installing Debian" not in said.stderr
    return folder / "medium.iso"


def test_two_builds_above_the_base_are_equal(tmp_path: Path) -> None:
    one, two = _build(tmp_path / "one"), _build(tmp_path / "other" / "two")
    assert subprocess.run(["cmp", one, two], capture_output=True, text=True).stdout == ""
