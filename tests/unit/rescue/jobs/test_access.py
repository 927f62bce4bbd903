"""Passphrases and keys from files: what is taken, what is refused, and that nothing of a secret is said."""

import os
import threading
from pathlib import Path

import pytest

from core.errors import UsageError
from images.store.passphrase import Passphrase
from rescue.jobs.access import access_from, parse_passphrase, read_passphrase, read_signer, read_trusted


def test_the_end_of_the_line_does_not_belong_to_it() -> None:
    for content in (b"correct horse", b"correct horse\n", b"correct horse\r\n"):
        assert parse_passphrase(content, "f") == Passphrase("correct horse")
    assert parse_passphrase(b" leading and trailing \n", "f") == Passphrase(" leading and trailing ")


@pytest.mark.parametrize("content", [b"", b"\n", b"secret\nsecret\n", b"\xffsecret", b"\nsecret"])
def test_what_is_not_a_passphrase_is_refused_without_showing_it(content: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        parse_passphrase(content, "the file")
    assert "the file" in caught.value.message
    assert "secret" not in f"{caught.value!r} {caught.value.message} {caught.value.hint} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_same_letters_are_the_same_passphrase() -> None:
    # U+00E9, and e with a combining accent: Unicode Standard Annex 15, figure 3 (a macOS keyboard gives the latter).
    assert parse_passphrase("caf\u00e9".encode(), "f") == parse_passphrase("cafe\u0301".encode(), "f")


def test_a_file_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "pass"
    path.write_text("x y z\n")
    for mode, warnings in ((0o600, 0), (0o640, 1), (0o604, 1), (0o400, 0)):
        said: list[str] = []
        path.chmod(mode)
        assert read_passphrase(path, said.append) == Passphrase("x y z")
        assert len(said) == warnings


def test_a_pipe_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o644)
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("from a pipe\n",))
    writer.start()
    said: list[str] = []
    assert read_passphrase(tmp_path / "pipe", said.append) == Passphrase("from a pipe")
    writer.join()
    assert said == []


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(100_000))
    (tmp_path / "text").write_text("no key\n")
    for path, said in ((tmp_path, "cannot be read"), (tmp_path / "no", "cannot be read"), (tmp_path / "large", "KiB")):
        with pytest.raises(UsageError, match=said):
            read_passphrase(path, print)
    with pytest.raises(UsageError, match="not an Ed25519 private key"):
        read_signer(tmp_path / "text")
    with pytest.raises(UsageError, match="not an Ed25519 public key"):
        read_trusted([tmp_path / "text"])


def test_who_is_asked_is_asked_once() -> None:
    asked: list[str] = []

    def ask() -> Passphrase:
        asked.append("")
        return Passphrase("typed")

    access = access_from(None, ask)
    assert access.ask is not None and asked == []
    assert access.ask() == access.ask() == Passphrase("typed")
    assert len(asked) == 1
    assert not access.encrypted_only, "what is asked for only when it is needed says nothing about the repository"


def test_a_passphrase_does_not_show_itself() -> None:
    access = access_from(parse_passphrase(b"correct horse", "f"))
    assert access.ask is not None
    assert "horse" not in f"{access!r} {access.ask!r} {access.ask()!r} {access.ask()}"
    assert access.encrypted_only
