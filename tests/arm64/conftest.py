"""What the arm64 ring needs: the emulator, its firmware, and the medium of ``make iso-arm64``."""

from pathlib import Path

import pytest

from core.process import find_tool
from tests.arm64.machine import CODE, SECURE_VARIABLES
from tests.boot.conftest import ending, runner, whole_or_not_at_all
from tests.boot.place import TREE

__all__ = ["ending", "iso", "runner", "tools"]

ISO = TREE / "out" / "liferaft-arm64.iso"
_TOOLS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "nginx": "nginx-light",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "sfdisk": "fdisk",
}


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    lacks = [f"{tool} is not installed (package {package})" for tool, package in _TOOLS.items() if not find_tool(tool)]
    lacks += [
        f"{path} is not there (package qemu-efi-aarch64)" for path in (CODE, SECURE_VARIABLES) if not path.exists()
    ]
    whole_or_not_at_all("arm64", lacks)


@pytest.fixture(scope="session")
def iso() -> Path:
    assert ISO.is_file(), f"{ISO} is not there: make iso-arm64"
    return ISO
