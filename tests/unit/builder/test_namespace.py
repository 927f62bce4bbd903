"""Root without root: the reasons why not are named one by one, and the words are tried before they are used."""

import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.namespace import root_prefix
from core.errors import ProcessError
from core.process import Result


class _Kernel:
    """Lets namespaces be made, or says why not."""

    def __init__(self, said: str = "") -> None:
        self.tried: list[str] = []
        self._said = said

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        self.tried = list(argv)
        if self._said:
            raise ProcessError(tuple(argv), 1, self._said)
        return Result(0, "", "")


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("builder.namespace.find_tool", lambda name: f"/usr/bin/{name}")
    name = pwd.getpwuid(os.getuid()).pw_name
    (tmp_path / "subuid").write_text(f"other:100000:65536\n{name}:165536:65536\n")
    (tmp_path / "subgid").write_text(f"{os.getuid()}:165536:65536\n")
    return tmp_path


def test_the_words_are_tried_before_they_are_given(etc: Path) -> None:
    kernel = _Kernel()
    words, reason = root_prefix(kernel, etc=etc)
    assert not reason and kernel.tried == [*words, "true"] and words[0] == "unshare"


@pytest.mark.parametrize("content", ["", "nobody-else:1:65536\n", "{name}:100000:1000\n", "{name}:100000\n", "garbage"])
def test_too_few_ids_are_named(etc: Path, content: str) -> None:
    (etc / "subgid").write_text(content.format(name=pwd.getpwuid(os.getuid()).pw_name))
    words, reason = root_prefix(_Kernel(), etc=etc)
    assert words == () and "/etc/subgid grants" in reason


def test_a_kernel_that_refuses_is_quoted(etc: Path) -> None:
    words, reason = root_prefix(_Kernel("unshare: unshare failed: Operation not permitted\n"), etc=etc)
    assert words == () and "unshare failed: Operation not permitted" in reason


def test_a_missing_tool_is_named_with_its_package(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.namespace.find_tool", lambda name: None if name == "newuidmap" else name)
    assert "package uidmap" in root_prefix(_Kernel(), etc=etc)[1]
