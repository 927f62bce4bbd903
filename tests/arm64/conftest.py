"""What the arm64 ring needs: the emulator, its firmware, and the medium of ``make iso-arm64``."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.process import SystemRunner, find_tool
from tests.arm64.machine import CODE, SECURE_VARIABLES
from tests.boot.ending import orderly_end
from tests.boot.place import TREE

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
    """The ring runs whole or not at all; in CI a missing tool is a failure, not a skip."""
    lacks = [f"{tool} is not installed (package {package})" for tool, package in _TOOLS.items() if not find_tool(tool)]
    lacks += [
        f"{path} is not there (package qemu-efi-aarch64)" for path in (CODE, SECURE_VARIABLES) if not path.exists()
    ]
    if not lacks:
        return
    reason = "arm64 ring: " + "; ".join(lacks)
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def ending() -> Iterator[None]:
    with orderly_end():
        yield


@pytest.fixture(scope="session")
def runner() -> SystemRunner:
    return SystemRunner()


@pytest.fixture(scope="session")
def iso() -> Path:
    assert ISO.is_file(), f"{ISO} is not there: make iso-arm64"
    return ISO
