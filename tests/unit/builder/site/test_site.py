"""The site layer: what is read and refused before anything is built, and what the live system gets."""

import datetime
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from builder.cache import open_cache
from builder.medium import build_iso
from builder.recipe.file import parse_recipe, read_recipe
from builder.recipe.recipe import Compression, Recipe
from builder.site.files import Site, SiteFile, read_site_files
from builder.site.locales import folder_name
from builder.site.site import build_site, complete_site
from core.errors import UsageError
from core.events import Event, ignore
from core.process import Result
from core.units import MIB
from tests.runners import ScriptedRunner

DAY = datetime.timedelta(days=1)
#: Sections of xkb-data's rules/evdev.lst, as that package has them.
_LISTING = """! model
  pc105           Generic 105-key PC
! layout
  de              German
  us              English (US)
! variant
  nodeadkeys      de: German (no dead keys)
  intl            us: English (US, intl., with dead keys)
! option
  grp             Switching to another layout
"""


def _recipe(folder: Path, text: str) -> Recipe:
    (folder / "site.toml").write_text(text)
    return read_recipe(folder / "site.toml")


def _public(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


@pytest.fixture(scope="module")
def key() -> str:
    return _public(ed25519.Ed25519PrivateKey.generate()) + " admin@site"


def _certificate(until: datetime.datetime) -> x509.Certificate:
    owner = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Site CA")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(owner.public_key())
    built = built.serial_number(1).not_valid_before(until - 400 * DAY).not_valid_after(until)
    return built.sign(owner, hashes.SHA256())


def _authority(until: datetime.datetime, *, usage: bool) -> x509.Certificate:
    owner = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Site CA")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(owner.public_key())
    built = built.serial_number(1).not_valid_before(until - 400 * DAY).not_valid_after(until)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if usage:
        signing = dict.fromkeys(("key_cert_sign", "crl_sign"), True)
        others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        none = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
        built = built.add_extension(x509.KeyUsage(**signing, **none), critical=True)
    return built.sign(owner, hashes.SHA256())


def _by_path(site: Site) -> dict[str, SiteFile]:
    return {file.path: file for file in site.files}


def test_a_recipe_that_says_nothing_of_a_site_has_no_layer(tmp_path: Path) -> None:
    runner = ScriptedRunner(lambda argv: "")
    with open_cache(tmp_path / "cache") as cache:
        site = complete_site(Recipe(), read_site_files(Recipe()), ("deb x",), cache, runner, ignore)
        assert build_site(site, tmp_path / "base", Compression.FAST, cache, runner, ignore) == ()
    assert runner.calls == []


def test_keys_open_ssh_and_without_keys_nothing_listens(tmp_path: Path, key: str) -> None:
    (tmp_path / "keys").write_text(f'# mine\n\n{key}\nfrom="10.0.0.0/8" {key}\n')
    site = read_site_files(_recipe(tmp_path, f'[ssh]\nkeys = ["{key}", "keys"]\n'))
    lines = _by_path(site)["root/.ssh/authorized_keys"].content.decode().splitlines()
    assert lines == [key, key, f'from="10.0.0.0/8" {key}']
    assert _by_path(site)["root/.ssh/authorized_keys"].mode == 0o600
    assert [link.path for link in site.links] == ["etc/systemd/system/multi-user.target.wants/ssh.service"]
    assert read_site_files(Recipe()).links == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"missing"', "cannot be read"),
        ('"empty"', "there is no key"),
        ('"private"', "is a private key"),
        ('"bad"', "line 2 is not a public SSH key"),
        ('"ssh-ed25519 AAAA"', "not a public SSH key"),
        ('"ssh-dss AAAAB3NzaC1kc3MAAACBAO"', "not a public SSH key"),
        ('"binary"', "is not text"),
        ('"huge"', "huge has more than"),
        ('""', "empty name"),
    ],
)
def test_keys_that_are_none(tmp_path: Path, key: str, text: str, said: str) -> None:
    (tmp_path / "empty").write_text("# none\n")
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    (tmp_path / "bad").write_text(f"{key}\nhello\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    # The keys behind the limit would be left out in silence.
    (tmp_path / "huge").write_text(f"{key}\n" * (2 * MIB // len(key)))
    with pytest.raises(UsageError, match=said):
        read_site_files(_recipe(tmp_path, f"[ssh]\nkeys = [{text}]\n"))


def test_certificates_as_pem_der_and_bundle(tmp_path: Path) -> None:
    until = datetime.datetime.now(datetime.UTC) + DAY
    one, two = _certificate(until), _certificate(until)
    pem = serialization.Encoding.PEM
    (tmp_path / "bundle.pem").write_bytes(b"# text\n" + one.public_bytes(pem) + two.public_bytes(pem))
    (tmp_path / "one.crt").write_bytes(one.public_bytes(serialization.Encoding.DER))
    site = read_site_files(_recipe(tmp_path, 'ca_certificates = ["bundle.pem", "one.crt"]'))
    assert x509.load_pem_x509_certificates(site.certificates) == [one, two, one]
    # systemd's services, logins over SSH and shells: each has a file of its own.
    holders = [path for path, file in _by_path(site).items() if b"REQUESTS_CA_BUNDLE=" in file.content]
    assert sorted(path.split("/")[1] for path in holders) == ["environment", "profile.d", "systemd"]


def test_what_python_will_not_trust_and_what_a_thief_could_read_is_said(tmp_path: Path) -> None:
    until = datetime.datetime.now(datetime.UTC) + DAY
    for name, usage in (("weak.pem", False), ("sound.pem", True)):
        (tmp_path / name).write_bytes(_authority(until, usage=usage).public_bytes(serialization.Encoding.PEM))
    assert read_site_files(_recipe(tmp_path, 'ca_certificates = ["sound.pem"]')).warnings == ()
    text = 'carry_secrets = true\nca_certificates = ["weak.pem"]\n[[repository]]\naddress = "https://u:hunter2@b/r"\n'
    said: list[Event] = []
    site = read_site_files(_recipe(tmp_path, text))
    with open_cache(tmp_path / "cache") as cache:
        complete_site(Recipe(), site, ("deb x",), cache, ScriptedRunner(lambda argv: ""), said.append)
    carried, weak = (event.message for event in said if event.warning)
    assert "repository[0].address" in carried and "hunter2" not in carried
    assert "CN=Site CA has no key usage" in weak


def test_certificates_that_are_none(tmp_path: Path) -> None:
    pem = serialization.Encoding.PEM
    old = _certificate(datetime.datetime.now(datetime.UTC) - DAY).public_bytes(pem)
    broken = old.replace(b"MII", b"AAA", 1)
    cases = {
        "missing": (None, "cannot be read"),
        "text": (b"hello", "is not a certificate"),
        "broken": (broken, "is not a certificate"),
        "old": (old, "CN=Site CA .* expired on"),
        "both": (old + b"-----BEGIN PRIVATE KEY-----", "private key"),
    }
    for name, (content, said) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=said):
            read_site_files(_recipe(tmp_path, f'ca_certificates = ["{name}"]'))


def test_hooks_keep_their_place_and_their_mode(tmp_path: Path) -> None:
    hook = tmp_path / "site-hooks" / "before-restore" / "10-check"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o700)
    site = read_site_files(_recipe(tmp_path, 'hooks = "site-hooks"'))
    found = _by_path(site)["etc/liferaft/hooks/before-restore/10-check"]
    assert (found.mode, found.content) == (0o755, b"#!/bin/sh\n")


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        ("before-restore/10", 0o644, "not executable"),
        ("before-restor/10", 0o755, "would never run"),
        ("10", 0o755, "would never run"),
        ("before-restore/deep/10", 0o755, "would never run"),
        ("", 0, "there is no hook"),
    ],
)
def test_hooks_that_would_not_run(tmp_path: Path, name: str, mode: int, said: str) -> None:
    (tmp_path / "hooks").mkdir()
    if name:
        path = tmp_path / "hooks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(mode)
    with pytest.raises(UsageError, match=said):
        read_site_files(_recipe(tmp_path, 'hooks = "hooks"'))
    with pytest.raises(UsageError, match="does not exist"):
        read_site_files(_recipe(tmp_path, 'hooks = "nowhere"'))


def test_place_and_offers(tmp_path: Path) -> None:
    site = read_site_files(
        _recipe(
            tmp_path,
            'time_zone = "Europe/Berlin"\nlocale = "de_DE.UTF-8"\nkeymap = "de"\n[network]\nothers = false\n'
            '[[repository]]\nname = "Vault"\naddress = "s3://vault/r"\n',
        )
    )
    links = {link.path: link.target for link in site.links}
    assert links["etc/localtime"] == "/usr/share/zoneinfo/Europe/Berlin" and site.time_zone == "Europe/Berlin"
    assert links["etc/systemd/network/80-wired.network"] == "/dev/null"
    keymap = "liferaft-keymap.service"
    assert links[f"etc/systemd/system/sysinit.target.wants/{keymap}"] == f"/usr/lib/systemd/system/{keymap}"
    files = _by_path(site)
    assert files["etc/locale.conf"].content == b"LANG=de_DE.UTF-8\n"
    assert b'"s3://vault/r"' in files["etc/liferaft/site.json"].content


def _debian(known: dict[str, str]) -> Callable[[tuple[str, ...]], Result | str]:
    """What apt, dpkg-deb and ckbcomp would answer: ``known`` is package to section."""

    def answer(argv: tuple[str, ...]) -> Result | str:
        if argv[0] == "apt-cache" and "show" in argv:
            asked = argv[argv.index("--no-all-versions") + 1 :]
            text = "".join(f"Package: {name}\nSection: {known[name]}\n\n" for name in asked if name in known)
            return Result(0 if text else 100, text, "")
        if argv[0] == "apt-cache":
            return "\n".join(name for name in known if name.startswith(argv[-1]))
        if argv[:1] == ("dpkg-deb",):
            rules = Path(argv[-1]) / "usr/share/X11/xkb/rules"
            rules.mkdir(parents=True, exist_ok=True)
            (rules / "evdev.lst").write_text(_LISTING)
            locale = Path(argv[-1]) / "usr/lib/locale/de_DE.utf8"
            locale.mkdir(parents=True, exist_ok=True)
            (locale / "LC_TIME").write_text("time")
        if argv[0] == "perl":
            return "keymaps 0-127\nkeycode 1 = Escape\n"
        return ""

    return answer


class _Downloads(ScriptedRunner):
    """apt-get download writes where it stands."""

    def run(self, argv, **options):  # type: ignore[no-untyped-def]
        if "download" in argv:
            for name in argv[list(argv).index("download") + 1 :]:
                (Path(options["cwd"]) / f"{name}_1_all.deb").write_text("")
        return super().run(argv, **options)


_KNOWN = {
    "rsync": "net",
    "firmware-iwlwifi": "non-free-firmware/kernel",
    "console-setup": "utils",
    "xkb-data": "x11",
    "locales-all": "localization",
}


def _complete(tmp_path: Path, text: str) -> Site:
    recipe = parse_recipe(text, name="site.toml")
    runner = _Downloads(_debian(_KNOWN))
    with open_cache(tmp_path / "cache") as cache:
        return complete_site(recipe, read_site_files(recipe), ("deb http://d trixie main",), cache, runner, ignore)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('packages = ["rsyncc"]', "no package rsyncc", "Is rsync meant"),
        ('packages = ["firmware-iwlwifi"]', "not in Debian's main part", "[firmware]"),
        ('[firmware]\npackages = ["nothing"]', "firmware.packages: Debian has no package nothing", "Nothing"),
        ('[kernel]\ndkms = ["none-dkms"]', "kernel.dkms: Debian has no package none-dkms", "Nothing"),
        ('keymap = "dee"', "no keyboard layout 'dee'", "Is de meant"),
        ('keymap = "de(nodeadkey)"', "no variant 'nodeadkey'", "de(nodeadkeys)"),
        ('keymap = "us(nodeadkeys)"', "layout us has no variant", "Nothing"),
        ('locale = "de_DX.UTF-8"', "no locale de_DX.UTF-8", "de_DE.UTF-8"),
    ],
)
def test_what_debian_does_not_have_is_said_before_anything_is_built(
    tmp_path: Path, text: str, said: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        _complete(tmp_path, text)
    assert said in caught.value.message and hint in caught.value.hint


def test_keymap_and_locale_are_files_of_the_layer(tmp_path: Path) -> None:
    site = _complete(
        tmp_path,
        'packages = ["rsync"]\nkeymap = "de(nodeadkeys)"\nlocale = "de_DE"\n'
        '[firmware]\npackages = ["firmware-iwlwifi"]',
    )
    files = _by_path(site)
    assert gzip.decompress(files["usr/share/liferaft/keymap.kmap.gz"].content).startswith(b"keymaps 0-127")
    assert files["usr/lib/locale/de_DE.utf8/LC_TIME"].content == b"time"


def test_names_of_locales() -> None:
    assert folder_name("de_DE.UTF-8") == folder_name("de_DE") == "de_DE.utf8"
    assert folder_name("sr_RS.UTF-8@latin") == folder_name("sr_RS@latin") == "sr_RS.utf8@latin"


def test_bad_site_data_stops_the_build_before_anything_runs(tmp_path: Path) -> None:
    runner = ScriptedRunner(lambda argv: "")
    recipe = _recipe(tmp_path, 'ca_certificates = ["nothing.pem"]')
    out = tmp_path / "x.iso"
    out.write_bytes(b"old")
    with pytest.raises(UsageError, match=r"nothing\.pem cannot be read"):
        build_iso(recipe, out, tmp_path / "cache", tmp_path, runner, ignore)
    assert runner.calls == [] and out.read_bytes() == b"old" and not (tmp_path / "cache").exists()
