"""Addresses: which backend they mean, and what is loaded for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import MissingToolError, UsageError
from images.store.backend import LocalBackend
from images.store.connect import BACKENDS, connect
from images.store.http import HttpBackend
from images.store.s3 import S3Backend

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("/a/b", "/a/b"),
        ("file:///a/b%20c", "/a/b c"),
        ("file:/a/b", "/a/b"),
        ("/a/http://b", "/a/http:/b"),
        ("./s3:b", f"{Path.cwd()}/s3:b"),
    ],
)
def test_folders(address: str, folder: str) -> None:
    backend = connect(address)
    assert isinstance(backend, LocalBackend)
    assert str(backend.folder) == folder


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("http://h/r", HttpBackend),
        ("https://h/r", HttpBackend),
        ("s3://bucket/r", S3Backend),
        ("s3+http://h:9/bucket/r", S3Backend),
        ("s3+https://h/bucket", S3Backend),
    ],
)
def test_servers(address: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    backend = connect(address)
    assert isinstance(backend, kind)
    assert backend.location == address
    assert backend.distant


@pytest.mark.parametrize("address", ["ftp://h/r", "gs://bucket/r", "s3:bucket/r", "http:/h/r"])
def test_addresses_that_nobody_answers(address: str) -> None:
    with pytest.raises(UsageError, match="is not a repository address"):
        connect(address)


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "s3", "nosuchlibrary")
    with pytest.raises(MissingToolError, match="Python package nosuchlibrary"):
        connect("s3://bucket/r")


def test_a_folder_loads_no_network(tmp_path: Path) -> None:
    """Every import counts on a machine that boots from a CD."""
    program = (
        "import sys\nfrom images.store.connect import connect\n"
        f"connect({str(tmp_path)!r}).list('x')\nprint(sorted({{'requests', 'obstore'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
