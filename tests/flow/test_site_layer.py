"""The site layer with the real tools: packed, listed and unpacked by squashfs-tools."""

import subprocess
from pathlib import Path

import pytest

from builder.cache import Cache, open_cache
from builder.recipe.file import parse_recipe, read_recipe
from builder.recipe.recipe import Compression
from builder.site.files import Site, read_site_files
from builder.site.site import build_site, complete_site
from core.errors import UnreachableError, UsageError
from core.events import ignore
from core.process import SystemRunner, find_tool

pytestmark = pytest.mark.skipif(find_tool("mksquashfs") is None, reason="squashfs-tools is not installed")


def test_a_mirror_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    """With the real apt, in a folder that is no archive."""
    recipe = parse_recipe('packages = ["rsync"]', name="site.toml")
    line = "deb file:/nowhere trixie main"
    with open_cache(tmp_path / "cache") as cache, pytest.raises(UnreachableError, match="could not be fetched"):
        complete_site(recipe, Site(), (line,), cache, SystemRunner(), ignore)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir() and path.name.startswith("lists")]


def _base(folder: Path) -> Path:
    """A squashfs with what the layer asks of a base."""
    tree = folder / "base"
    (tree / "etc/ssl/certs").mkdir(parents=True)
    (tree / "usr/share/zoneinfo/Europe").mkdir(parents=True)
    (tree / "usr/share/zoneinfo/Europe/Berlin").write_text("TZif2")
    (tree / "etc/ssl/certs/ca-certificates.crt").write_text("-----BEGIN CERTIFICATE-----\nbase\n")
    subprocess.run(["mksquashfs", tree, folder / "base.squashfs", "-quiet", "-no-progress"], check=True)
    return folder / "base.squashfs"


def _build(site: Site, folder: Path, cache: Cache) -> tuple[str, ...]:
    """Lines of ``unsquashfs -lls`` of the layer; the tree is unpacked beside it."""
    (layer,) = build_site(site, folder / "base.squashfs", Compression.FAST, cache, SystemRunner(), ignore)
    done = subprocess.run(["unsquashfs", "-q", "-lln", layer.squashfs], check=True, capture_output=True, text=True)
    subprocess.run(
        ["unsquashfs", "-q", "-n", "-f", "-d", folder / "out", layer.squashfs], check=True, capture_output=True
    )
    return tuple(done.stdout.splitlines())


def test_the_layer_holds_it_all_with_modes_of_its_own(tmp_path: Path) -> None:
    _base(tmp_path)
    for argv in (
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "id"],
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "k", "-out", "ca.pem", "-subj", "/CN=x"],
    ):
        subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
    text = 'time_zone = "Europe/Berlin"\nca_certificates = ["ca.pem"]\n[ssh]\nkeys = ["id.pub"]\n'
    (tmp_path / "site.toml").write_text(text)
    site = read_site_files(read_recipe(tmp_path / "site.toml"))
    with open_cache(tmp_path / "cache") as cache:
        listed = _build(site, tmp_path, cache)
        (again,) = build_site(site, tmp_path / "base.squashfs", Compression.FAST, cache, SystemRunner(), ignore)
    assert again.reused
    modes = {line.split()[-1].removeprefix("squashfs-root"): line.split()[:2] for line in listed if "->" not in line}
    assert modes["/root/.ssh"] == ["drwx------", "0/0"] and modes["/root"] == ["drwx------", "0/0"]
    assert modes["/root/.ssh/authorized_keys"] == ["-rw-------", "0/0"]
    assert modes["/etc"] == ["drwxr-xr-x", "0/0"]
    bundle = (tmp_path / "out/etc/ssl/certs/ca-certificates.crt").read_text()
    assert bundle.startswith("-----BEGIN CERTIFICATE-----\nbase\n") and bundle.count("BEGIN CERTIFICATE") == 2
    assert str((tmp_path / "out/etc/localtime").readlink()) == "/usr/share/zoneinfo/Europe/Berlin"


def test_a_zone_that_the_base_lacks_is_refused(tmp_path: Path) -> None:
    _base(tmp_path)
    with open_cache(tmp_path / "cache") as cache, pytest.raises(UsageError, match="has no Asia/Tokyo"):
        _build(Site(time_zone="Asia/Tokyo"), tmp_path, cache)
