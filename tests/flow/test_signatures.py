"""Signed recovery points: made and checked by liferaft and by OpenSSL; missing, foreign and altered ones refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from core.errors import DamagedError, ExitCode, RefusedError, UsageError
from core.events import ignore
from core.process import SystemRunner
from images.store.access import Access
from images.store.passphrase import Passphrase
from rescue.jobs.access import access_from, read_signer, read_trusted
from rescue.jobs.capture import capture_disks
from rescue.jobs.keys import init_repository, make_signing_key
from rescue.jobs.points import list_points, list_with_damage, show_point
from tests.flow.disks import TOOLS, need, run
from tests.flow.sealed import WORDS, secret_disk
from tests.flow.servers import serving

PASSPHRASE = Passphrase(WORDS)
#: docs/image-format.md §10.
CONTEXT = b"liferaft recovery point\0"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of alice and mallory; an encrypted repository with a point of each, and one that is not signed."""
    need(*TOOLS, "tune2fs")
    folder = tmp_path_factory.mktemp("signed")
    for name in ("alice", "mallory"):
        make_signing_key(folder / f"{name}.pem", folder / f"{name}.pub.pem")
    disk = secret_disk(folder / "source")
    repository = str(folder / "repo")
    init_repository(repository, passphrase=PASSPHRASE)
    for name in ("alice", "mallory", ""):
        sign = read_signer(folder / f"{name}.pem") if name else None
        access = access_from(PASSPHRASE)
        capture_disks(
            [disk], repository, name=name or "nobody", runner=SystemRunner(), sink=ignore, access=access, sign=sign
        )
    return folder


@pytest.fixture
def repo(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "repo", tmp_path / "repo"))


def trusting(place: Path, *names: str) -> Access:
    return access_from(PASSPHRASE, trusted=read_trusted([place / f"{name}.pub.pem" for name in names]))


def ids(place: Path, repository: Path) -> dict[str, str]:
    return {point.name: point.id for point in list_points(str(repository), trusting(place))}


def test_only_the_points_of_who_is_trusted_are_read(place: Path) -> None:
    points, problems = list_with_damage(str(place / "repo"), trusting(place, "alice"))
    assert [point.name for point in points] == ["alice"]
    assert len(problems) == 2
    assert any("is not signed, and a signature is required" in problem for problem in problems)
    assert any("not by a key that is trusted" in problem for problem in problems)
    assert [p.name for p in list_points(str(place / "repo"), trusting(place, "alice", "mallory"))] == [
        "alice",
        "mallory",
    ]
    assert len(list_points(str(place / "repo"), trusting(place))) == 3, "nothing is required when nobody is named"


@pytest.mark.parametrize(("point", "said"), [("nobody", "is not signed"), ("mallory", "is signed by")])
def test_naming_the_point_does_not_help(place: Path, point: str, said: str) -> None:
    identifier = ids(place, place / "repo")[point]
    with pytest.raises(RefusedError, match=said) as caught:
        show_point(str(place / "repo"), identifier, trusting(place, "alice"))
    assert caught.value.code == ExitCode.REFUSED


def test_a_signature_of_another_point_is_no_signature(place: Path, repo: Path) -> None:
    known = ids(place, repo)
    shutil.copy(repo / "manifests" / f"{known['alice']}.sig", repo / "manifests" / f"{known['nobody']}.sig")
    with pytest.raises(DamagedError, match=r"\.sig: the signature by .* does not match"):
        show_point(str(repo), known["nobody"], trusting(place, "alice"))


@pytest.mark.parametrize("what", ["signature", "key", "cut", "version"])
def test_an_altered_signature_is_refused_and_named(place: Path, repo: Path, what: str) -> None:
    point = ids(place, repo)["alice"]
    path = repo / "manifests" / f"{point}.sig"
    document = json.loads(path.read_bytes())
    if what in ("signature", "key"):
        old = document["signatures"][0][what]
        document["signatures"][0][what] = ("0" if old[0] != "0" else "1") + old[1:]
    document["version"] = 2 if what == "version" else 1
    text = json.dumps(document)
    path.write_text(text[:-40] if what == "cut" else text)
    with pytest.raises((DamagedError, RefusedError), match=point[:12]):
        show_point(str(repo), point, trusting(place, "alice"))


def test_over_http(place: Path) -> None:
    known = ids(place, place / "repo")
    with serving(place / "repo") as server:
        # The catalogue lists all three, and is not signed.
        points, problems = list_with_damage(server.url, trusting(place, "alice"))
        assert [point.name for point in points] == ["alice"] and len(problems) == 2
        assert show_point(server.url, known["alice"], trusting(place, "alice"))[1].name == "alice"
        with pytest.raises(RefusedError, match="is not signed"):
            show_point(server.url, known["nobody"], trusting(place, "alice"))


def test_openssl_reads_the_keys_and_checks_the_signature(place: Path, tmp_path: Path) -> None:
    need("openssl")
    public = place / "alice.pub.pem"
    assert run("openssl", "pkey", "-in", place / "alice.pem", "-pubout") == public.read_text()
    assert (place / "alice.pem").stat().st_mode & 0o777 == 0o600
    point = ids(place, place / "repo")["alice"]
    manifest = place / "repo" / "manifests" / f"{point}.json"
    assert blake3(manifest.read_bytes()).hexdigest() == point
    signature = json.loads(manifest.with_suffix(".sig").read_bytes())["signatures"][0]["signature"]
    (tmp_path / "signature").write_bytes(bytes.fromhex(signature))
    (tmp_path / "text").write_bytes(CONTEXT + bytes.fromhex(point))
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin"]
    run(*verify, "-in", tmp_path / "text", "-sigfile", tmp_path / "signature")
    (tmp_path / "text").write_bytes(CONTEXT + bytes(32))
    run(*verify, "-in", tmp_path / "text", "-sigfile", tmp_path / "signature", success=(1,))


def test_a_key_that_openssl_made_signs(place: Path, repo: Path, tmp_path: Path) -> None:
    need("openssl")
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "site.pem")
    run("openssl", "pkey", "-in", tmp_path / "site.pem", "-pubout", "-out", tmp_path / "site.pub.pem")
    disk = place / "source" / "secretdisk.img"
    sign = read_signer(tmp_path / "site.pem")
    access = access_from(PASSPHRASE)
    capture_disks([disk], str(repo), name="site", runner=SystemRunner(), sink=ignore, access=access, sign=sign)
    trusted = access_from(PASSPHRASE, trusted=read_trusted([tmp_path / "site.pub.pem"]))
    assert show_point(str(repo), "site", trusted)[1].name == "site"
    run("openssl", "genpkey", "-algorithm", "x25519", "-out", tmp_path / "other.pem")
    with pytest.raises(UsageError, match="not an Ed25519 private key"):
        read_signer(tmp_path / "other.pem")
    with pytest.raises(UsageError, match="not an Ed25519 public key"):
        read_trusted([tmp_path / "site.pem"])


def test_a_key_is_never_overwritten(place: Path, tmp_path: Path) -> None:
    (tmp_path / "old.pub.pem").write_text("mine")
    for private, public in (("new.pem", "old.pub.pem"), ("old.pub.pem", "new.pub.pem"), ("same.pem", "same.pem")):
        with pytest.raises(UsageError, match="is there already"):
            make_signing_key(tmp_path / private, tmp_path / public)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old.pub.pem": "mine"}


def liferaft(*words: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", "from rescue.cli.main import main; main()", "--debug", *map(str, words)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert WORDS not in done.stdout + done.stderr
    return done


def test_the_command_line(place: Path, tmp_path: Path) -> None:
    """Every command of the road with --debug: the passphrase in no output, no plan, no report."""
    (tmp_path / "pass").write_text(f"{WORDS}\n")
    (tmp_path / "pass").chmod(0o600)
    disk = place / "source" / "secretdisk.img"
    secret = ("--passphrase-file", "pass")
    alice = ("--require-signature", place / "alice.pub.pem")
    mallory = ("--require-signature", place / "mallory.pub.pem")
    liferaft("init", "repo", "--encrypt", *secret, cwd=tmp_path)
    signed = ("--sign-key", place / "alice.pem", "--name", "monday")
    liferaft("capture", disk, "--repo", "repo", *secret, *signed, cwd=tmp_path)
    assert "monday" in liferaft("snapshots", "--repo", "repo", *secret, *alice, cwd=tmp_path).stdout
    assert "smallest target" in liferaft("show", "latest", "--repo", "repo", *secret, *alice, cwd=tmp_path).stdout
    for asked in ("monday", "latest"):
        refused = liferaft("show", asked, "--repo", "repo", *secret, *mallory, cwd=tmp_path, code=3)
        assert f"No recovery point {asked} among those that may be read" in refused.stderr
    with (tmp_path / "target.img").open("wb") as stream:
        stream.truncate(disk.stat().st_size)
    road = ("latest", "--repo", "repo", "--target", "target.img", *secret)
    planned = liferaft("plan", *road, *alice, "-o", "plan.json", cwd=tmp_path)
    digest = planned.stderr.split("--confirm ")[1].split()[0]
    assert WORDS not in (tmp_path / "plan.json").read_text()
    confirmed = ("restore", "--plan", "plan.json", "--confirm", digest)
    assert (tmp_path / "target.img").read_bytes().count(0) == disk.stat().st_size
    liferaft(*confirmed, cwd=tmp_path, code=3)
    liferaft(*confirmed, *secret, *mallory, cwd=tmp_path, code=3)
    assert (tmp_path / "target.img").read_bytes().count(0) == disk.stat().st_size, "refused means: nothing was written"
    liferaft(*confirmed, *secret, *alice, "--json", cwd=tmp_path)
    assert b"quiet partition".decode().encode("utf-16-le") in (tmp_path / "target.img").read_bytes()
    liferaft("init", "plain", *secret, cwd=tmp_path, code=2)
    liferaft("snapshots", "--repo", "repo", "--passphrase-file", "missing", cwd=tmp_path, code=2)
    assert "--passphrase-file" in liferaft("snapshots", "--repo", "repo", cwd=tmp_path, code=3).stderr
