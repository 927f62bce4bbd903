"""A mirror's password, with apt's and mmdebstrap's own programs: the mirror hears it, other users do not see it."""

import base64
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from builder.archive.mirror import Mirror, read_state
from builder.cache import open_cache
from builder.rootfs import install
from core.events import ignore
from core.process import SystemRunner
from tests.flow.disks import need, run

#: As a person writes them in an address (RFC 3986, 3.2.1 and 2.1), and what they mean.
_USER, _PASSWORD = "us%40er", "%23p%2Fw%3A%22d"
_MEANT = 'us@er:#p/w:"d'


class _Mirror(http.server.BaseHTTPRequestHandler):
    """Answers whoever knows the password, and notes the words of all processes meanwhile."""

    words: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        _Mirror.words.append(_all_words())
        known = self.headers.get("Authorization") == f"Basic {base64.b64encode(_MEANT.encode()).decode()}"
        content = b"Codename: trixie\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n" if known else b""
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *words: object) -> None:
        """Nothing."""


def _all_words() -> str:
    """The command lines of all processes (proc_pid_cmdline(5))."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


@pytest.fixture
def address() -> Iterator[str]:
    """A mirror with a password, as an address with that password."""
    _Mirror.words.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Mirror) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{_USER}:{_PASSWORD}@127.0.0.1:{server.server_port}/debian"
        finally:
            server.shutdown()
            thread.join()


def _betrays(words: str) -> bool:
    return any(secret in words for secret in (_PASSWORD, _MEANT.partition(":")[2]))


def test_apt_logs_in_and_nobody_sees_with_what(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/usr/lib/apt/apt-helper").exists():
        need("apt-helper")
    # apt may be told of a proxy that does not reach this machine's own addresses.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with open_cache(tmp_path / "cache") as cache:
        state = read_state(Mirror(address, ""), "trixie", cache, SystemRunner(), ignore)
    assert [source.suite for source in state] == ["trixie", "trixie-updates"]
    assert len(_Mirror.words) >= 2 and all("download-file" in words for words in _Mirror.words)
    assert not any(_betrays(words) for words in _Mirror.words)
    # The caller's own words would be found.
    assert _betrays(f"apt-helper download-file {address}")
    for path in (tmp_path / "cache").rglob("*"):
        assert path.is_dir() or not _betrays(path.read_text()), path


def test_mmdebstrap_has_the_mirrors_in_its_system_and_not_in_its_words(tmp_path: Path) -> None:
    """The same list, byte for byte, as it makes of lines that are words of its command: the base's key stays."""
    need("mmdebstrap")
    lines = [
        f"deb http://{_USER}:{_PASSWORD}@mirror.example/debian trixie main",
        "deb [check-valid-until=no] http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security trixie-security main",
    ]
    # Nothing is fetched and nothing installed; the system's folder is made as for a real one.
    argv = ["mmdebstrap", "--mode=chrootless", "--variant=custom", "--skip=update,cleanup,check"]
    argv += [f"--setup-hook=cat /proc/[0-9]*/cmdline >{tmp_path}/seen 2>{tmp_path}/errors || true"]
    run(*argv, "trixie", tmp_path / "words", *lines)
    seen_then = (tmp_path / "seen").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    install([*argv, "trixie", str(tmp_path / "fed")], lines, SystemRunner(), lambda line: None)
    seen_now = (tmp_path / "seen").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    assert _betrays(seen_then) and "mmdebstrap" in seen_now and not _betrays(seen_now)
    made = [(tmp_path / name / "etc/apt/sources.list").read_bytes() for name in ("words", "fed")]
    assert made[0] == made[1] and all(line.encode() in made[0] for line in lines)
    assert os.listdir(tmp_path / "fed/etc/apt/sources.list.d") == []
    for name in ("words", "fed"):
        shutil.rmtree(tmp_path / name)
