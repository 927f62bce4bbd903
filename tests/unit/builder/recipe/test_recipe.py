"""The recipe: what is accepted, and what a person is told about the rest."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard, get_args

import msgspec
import pytest

from builder.recipe.check import secrets_of
from builder.recipe.file import default_recipe, parse_recipe, read_recipe
from builder.recipe.recipe import Compression, Recipe
from core.errors import ExitCode, UsageError


def test_the_embedded_recipe_is_the_default() -> None:
    assert default_recipe() == Recipe()


def test_a_whole_recipe() -> None:
    recipe = parse_recipe(
        """
        release = "trixie"
        hostname = "ark"
        packages = ["rsync", "g++"]
        kernel_parameters = ["liferaft.job=http://10.0.0.1/job.json", "ip=dhcp"]
        compression = "fast"
        [job]
        repository = "http://10.0.0.1/repo"
        target = { serial = "X1" }
        """,
        name="ark.toml",
    )
    assert recipe.packages == ("rsync", "g++")
    assert recipe.compression is Compression.FAST
    assert recipe.job == {"repository": "http://10.0.0.1/repo", "target": {"serial": "X1"}}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("pakages = []", "'pakages'", "'packages'"),
        ("[jobs]\nx = 1", "'jobs'", "'job'"),
        ("zzz = 1", "'zzz'", "docs/recipe.md"),
        ("packages = 'rsync'", "array", "docs/recipe.md"),
        ("packages = ['Rsync; rm']", "'Rsync; rm'", ""),
        ("release = 'bullseye'", "bullseye", "docs/recipe.md"),
        ("release = 'bullseye'", "bullseye", "It may be trixie."),
        ("hostname = 'a b'", "'a b'", "a to z"),
        ("kernel_parameters = ['a b']", "'a b'", "one string"),
        ("kernel_parameters = ['a;reboot']", "'a;reboot'", "one string"),
        ("compression = 'huge'", "huge", "It may be fast, small."),
        ("= 1", "not valid TOML", "docs/recipe.md"),
        ("snapshot = '2026-11-01'", "'2026-11-01'", "20261101T000000Z"),
        ("snapshot = '20261301T000000Z'", "'20261301T000000Z'", "20261101T000000Z"),
        ("mirror = 'deb.debian.org'", "mirror", "http://deb.debian.org/debian"),
        ("mirror = 'http://[::1/debian'", "mirror", ""),
        ("time_zone = 'Europe/Berlinn'", "'Europe/Berlinn'", "Is Europe/Berlin meant"),
        ("time_zone = '../etc/passwd'", "no time zone", ""),
        ("keymap = 'de nodeadkeys'", "'de nodeadkeys'", "de(nodeadkeys)"),
        ("locale = 'de_DE.ISO-8859-1'", "UTF-8 locale", "de_DE.UTF-8"),
        ("[kernel]\nflavor = 'cloud'", "'flavor' in kernel", "'flavour'"),
        ("[kernel]\nflavour = 'rt'", "rt", "It may be stock, cloud, backports."),
        (
            "[[network.bond]]\nmembers = ['a', 'b']\nmode = 'lacp'",
            "'lacp'",
            "It may be active-backup, 802.3ad, balance-rr, balance-xor, broadcast, balance-tlb, balance-alb.",
        ),
        ("[[network.interface]]\nmatch = 'e*'\ndhcp = 'on'", "'on'", "It may be auto, yes, ipv4, ipv6, no."),
        ("[kernel]\ndkms = ['A b']", "'A b' in kernel.dkms", ""),
        ("[firmware]\npackages = ['-x']", "'-x' in firmware.packages", ""),
        ("[firmware]\nfiles = ['']", "firmware.files has an empty name", ""),
        ("[windows]\ndrivers = ['a', 'a']", "windows.drivers names a twice", ""),
        ("[ssh]\nkey = ['a']", "'key' in ssh", "'keys'"),
        ('[menu]\ntitle = "it\'s"', "boot menu cannot show", "apostrophe"),
        ("[menu]\ntext = ['a', 'b', 'c', 'd', 'e', 'f', 'g']", "room for 6", ""),
        ("[menu]\ncolor = 'white'", "letters/background", "light-gray"),
        ("[menu]\nhighlight = 'black/white'", "menu.highlight", "light-gray"),
        ("[menu]\ntimeout = -1", "0 to 3600", ""),
        ("[[repository]]\naddress = 'server/folder'", "'server/folder'", "http(s)://"),
        ("[[repository]]\naddress = 'ftp://server/folder'", "'ftp://server/folder'", "s3://"),
        ("[[repository]]\nadress = 'x'", "'adress' in repository[0]", "'address'"),
    ],
)
def test_refused(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, name="site.toml")
    assert message in caught.value.message
    assert "site.toml" in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.code is ExitCode.USAGE


def test_files_that_are_not_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not text"):
        read_recipe(tmp_path / "binary.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * (1 << 20) + b"##")
    with pytest.raises(UsageError, match=r"more than 1\.00 MiB"):
        read_recipe(tmp_path / "huge.toml")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[repository]]\naddress = 'https://u:hunter2@b/r'", "repository[0].address"),
        ("[job]\nrepository = 'https://u:hunter2@b/r'", "job.repository"),
        ("[job]\nrepository = '/r'\nreport_url = 'https://u:hunter2@b/r'", "job.report_url"),
        ("[job]\nrepository = '/r'\npassphrase_file = 'https://u:hunter2@b/p'", "job.passphrase_file"),
        ("[job]\nrepository = '/r'\nluks_passphrase_file = 'https://u:hunter2@b/p'", "job.luks_passphrase_file"),
        # A token stands where a user would.
        ("[job]\nrepository = 'https://hunter2@b/r'", "job.repository"),
        ("[[repository]]\naddress = 'https://hunter2@b/r'", "repository[0].address"),
        ("[[network.wifi]]\nssid = 'x'\npassphrase = 'hunter2hunter2'", "network.wifi[0].passphrase"),
    ],
)
def test_secrets_stay_off_the_medium_unless_the_recipe_says_so(text: str, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, name="site.toml")
    assert place in caught.value.message and "carry_secrets" in caught.value.hint
    assert "hunter2" not in caught.value.message + caught.value.hint
    assert parse_recipe("carry_secrets = true\n" + text, name="site.toml").carry_secrets


def test_the_password_of_a_mirror_is_no_secret_of_the_medium() -> None:
    """It is asked with and taken out of all that goes on the medium: test_mirror, test_rootfs."""
    recipe = parse_recipe("mirror = 'https://u:hunter2@b/debian'", name="site.toml")
    assert not recipe.carry_secrets and secrets_of(recipe) == ()


def test_paths_begin_at_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(
        "hooks = 'h'\nca_certificates = ['c/a.pem', '/etc/b.pem']\n[kernel]\nmodules = ['m']\n"
        "[firmware]\nfiles = ['f']\nmachines = ['machine.json']\n[windows]\ndrivers = ['w']\n"
        "[ssh]\nkeys = ['id.pub', 'ssh-ed25519 AAAA me']\n"
    )
    recipe = read_recipe(tmp_path / "site.toml")
    assert recipe.hooks == f"{tmp_path}/h" and recipe.ca_certificates == (f"{tmp_path}/c/a.pem", "/etc/b.pem")
    assert recipe.kernel.modules == (f"{tmp_path}/m",) and recipe.firmware.files == (f"{tmp_path}/f",)
    assert recipe.firmware.machines == (f"{tmp_path}/machine.json",) and recipe.windows.drivers == (f"{tmp_path}/w",)
    assert recipe.ssh.keys == (f"{tmp_path}/id.pub", "ssh-ed25519 AAAA me")


def test_wifi_brings_its_drivers_tools_and_firmware() -> None:
    wireless = parse_recipe("[firmware]\npackages = ['firmware-misc-nonfree']\n[[network.wifi]]\nssid = 'x'", name="s")
    pattern = "/usr/lib/modules/*/kernel/drivers/net/wireless/*"
    assert wireless.keeps(pattern) and not Recipe().keeps(pattern)
    assert not wireless.keeps("/usr/lib/modules/*/kernel/sound/*")
    assert "wireless-regdb" in wireless.base_packages(()) and Recipe().base_packages(("less",)) == ("less",)
    assert wireless.firmware_packages[0] == "firmware-misc-nonfree" and "firmware-iwlwifi" in wireless.firmware_packages


@pytest.mark.parametrize(
    ("architecture", "flavour", "package"),
    [
        ("amd64", "stock", "linux-image-amd64"),
        ("amd64", "cloud", "linux-image-cloud-amd64"),
        ("amd64", "backports", "linux-image-amd64/trixie-backports"),
        ("arm64", "stock", "linux-image-arm64"),
        ("arm64", "cloud", "linux-image-cloud-arm64"),
    ],
)
def test_the_kernel_is_one_of_debians(architecture: str, flavour: str, package: str) -> None:
    """Names of Debian's packages; with a suite as apt-get(8) takes it, "install"."""
    recipe = parse_recipe(
        f"architecture = '{architecture}'\npackages = ['rsync']\n[kernel]\nflavour = '{flavour}'", name="s"
    )
    assert recipe.base_packages(("linux-image-amd64", "less")) == (package, "less", "rsync")


def test_every_field_is_in_the_documentation() -> None:
    """Of each table of docs/recipe.md the first cell names fields; together they are all that a recipe has."""
    text = (Path(__file__).parents[4] / "docs" / "recipe.md").read_text()
    told = {
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    assert told == set(_field_names(Recipe))


def _field_names(kind: type[msgspec.Struct], place: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        name = f"{place}{field.encode_name}"
        inner = next((one for one in (field.type, *get_args(field.type)) if _is_struct(one)), None)
        if inner is None:
            yield name
        else:
            yield from _field_names(inner, f"{name}.")


def _is_struct(kind: object) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
