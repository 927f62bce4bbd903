"""The network of a recipe: what is refused, and the files that networkd and wpa_supplicant are given.

Expected lines are those of systemd.network(5), systemd.netdev(5) and wpa_supplicant.conf(5).
"""

import configparser
import json

import pytest

from builder.recipe.file import parse_recipe
from builder.recipe.network import Network
from builder.site.network import WPA_CONFIG, network_files
from core.errors import UsageError

MAC = "52:54:00:12:34:56"


def _network(text: str) -> Network:
    return parse_recipe(text, name="site.toml").network


def _section(files: dict[str, str], name: str, section: str) -> dict[str, list[str]]:
    """Keys of a section of the file that ends with ``name``."""
    (text,) = [text for path, text in files.items() if path.endswith(name)]
    found: dict[str, list[str]] = {}
    inside = ""
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip("[]")
        elif line and inside == section:
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[network.interface]]\nmatch = "eno1"\naddresses = ["192.0.2.1"]', "without its prefix length"),
        ('[[network.interface]]\nmatch = "eno1"\naddresses = ["192.0.2.256/24"]', "is not an address"),
        ('[[network.interface]]\nmatch = "eno1"\naddresses = ["192.0.2.0/24"]', "the network itself"),
        ('[[network.interface]]\nmatch = "eno1"\naddresses = ["192.0.2.255/24"]', "broadcast"),
        ('[[network.interface]]\nmatch = "eno1"\naddresses = ["224.0.0.1/24"]', "no card can have"),
        ('[[network.interface]]\nmatch = "eno1"\naddresses = ["::1/64"]', "no card can have"),
        (
            '[[network.interface]]\nmatch = "eno1"\naddresses = ["192.0.2.9/24"]\ngateways = ["192.0.3.1"]',
            "in none of the networks",
        ),
        (
            '[[network.interface]]\nmatch = "eno1"\naddresses = ["192.0.2.9/24"]\ngateways = ["192.0.2.9"]',
            "own address",
        ),
        (
            '[[network.interface]]\nmatch = "eno1"\naddresses = ["192.0.2.9/24"]\ngateways = ["2001:db8::1"]',
            "no IPv6 address",
        ),
        (
            '[[network.interface]]\nmatch = "eno1"\ngateways = ["192.0.2.1", "192.0.2.2"]',
            "more than one IPv4 gateway",
        ),
        ('[[network.interface]]\nmatch = "eno1"\ndns = ["dns.example"]', "not an IP address"),
        ('[[network.interface]]\nmatch = "eno1"\nsearch = ["a b"]', "not the name of a domain"),
        ('[[network.interface]]\nmatch = "eno1"\nsearch = ["a..b"]', "not the name of a domain"),
        # Long enough that trying every split of it would never end.
        (f'[[network.interface]]\nmatch = "eno1"\nsearch = ["{"a" * 60}_"]', "not the name of a domain"),
        ('[[network.interface]]\nmatch = "eno1"\nmtu = 67', "68 to 65535"),
        ('[[network.interface]]\nmatch = "eno1"\ndhcp = "maybe"', "maybe"),
        ('[[network.interface]]\nmatch = "a/b"', "neither a MAC address nor the name"),
        ('[[network.interface]]\nmatch = "01:00:5e:00:00:01"', "no single card has"),
        ('[[network.interface]]\nmatch = "00:00:00:00:00:00"', "no single card has"),
        ('[[network.interface]]\nmatch = "eno1"\n[[network.interface]]\nmatch = "eno1"', "has already"),
        ('[[network.interface]]\nmatch = "eno1"\n[[network.bond]]\nmembers = ["eno1"]', "has already"),
        ("[[network.bond]]\nmembers = []", "has no members"),
        ('[[network.bond]]\nmembers = ["a"]\nname = "a-name-that-is-too-long"', "not a device's name"),
        ('[[network.bond]]\nmembers = ["a"]\nmode = "fast"', "fast"),
        ('[[network.interface]]\nmatch = "a"\n[[network.vlan]]\nid = 4095\non = "a"', "1 to 4094"),
        ('[[network.interface]]\nmatch = "a"\n[[network.vlan]]\nid = 0\non = "a"', "1 to 4094"),
        ('[[network.vlan]]\nid = 7\non = "eno1"', "match of no interface"),
        (
            '[[network.interface]]\nmatch = "a"\n[[network.bond]]\nmembers = ["b"]\n'
            '[[network.vlan]]\nid = 7\non = "a"\n[[network.vlan]]\nid = 7\non = "bond0"',
            "both called vlan7",
        ),
        (
            '[[network.interface]]\nmatch = "a"\n'
            '[[network.vlan]]\nid = 7\non = "a"\n[[network.vlan]]\nid = 7\non = "a"\nname = "x"',
            "repeats id 7",
        ),
        ('[[network.wifi]]\nssid = ""', "expected 1 to 32"),
        (f'[[network.wifi]]\nssid = "{"ü" * 17}"', "34 bytes"),
        ('carry_secrets = true\n[[network.wifi]]\nssid = "a"\npassphrase = "short"', "8 to 63"),
        ('[[network.wifi]]\nssid = "a"\npassphrase = "long enough"', "holds a secret"),
        ('[network]\ncountry = "de"', "two capital letters"),
        ('[[network.interface]]\nmatch = "a"\nadresses = []', "'adresses' in network.interface[0]"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        _network(text)
    assert said in caught.value.message and "site.toml" in caught.value.message
    assert "short" not in caught.value.message and "long enough" not in caught.value.message


def test_a_static_card_with_a_vlan() -> None:
    files = network_files(
        _network(
            f'[[network.interface]]\nmatch = "{MAC.upper()}"\naddresses = ["192.0.2.10/24", "2001:db8::a/64"]\n'
            'gateways = ["192.0.2.1", "fe80::1"]\ndns = ["192.0.2.53"]\n'
            'search = ["a.example", "b.example"]\nmtu = 9000\n'
            f'[[network.vlan]]\nid = 7\non = "{MAC.upper()}"\ndhcp = "ipv4"\n'
        )
    )
    card = "-card-0.network"
    assert _section(files, card, "Match") == {"PermanentMACAddress": [MAC]}
    assert _section(files, card, "Link") == {"MTUBytes": ["9000"]}
    network = _section(files, card, "Network")
    assert network["Address"] == ["192.0.2.10/24", "2001:db8::a/64"]
    assert network["DHCP"] == ["no"] and network["IPv6AcceptRA"] == ["no"] and "LinkLocalAddressing" not in network
    assert network["DNS"] == ["192.0.2.53"] and network["Domains"] == ["a.example b.example"]
    assert network["VLAN"] == ["vlan7"]
    assert _section(files, card, "Route") == {"Gateway": ["192.0.2.1", "fe80::1"]}
    assert _section(files, "vlan7.netdev", "NetDev") == {"Name": ["vlan7"], "Kind": ["vlan"]}
    assert _section(files, "vlan7.netdev", "VLAN") == {"Id": ["7"]}
    assert _section(files, "vlan7.network", "Network")["DHCP"] == ["ipv4"]


def test_a_bond_and_what_is_stacked_on_it() -> None:
    files = network_files(
        _network(
            f'[[network.bond]]\nmembers = ["{MAC}", "eno2"]\nmode = "802.3ad"\ndhcp = "no"\n'
            '[[network.vlan]]\nid = 4094\non = "bond0"\nname = "far"\naddresses = ["198.51.100.1/31"]\n'
        )
    )
    assert _section(files, "10-bond0.netdev", "Bond")["Mode"] == ["802.3ad"]
    assert _section(files, "20-bond0-0.network", "Match") == {"PermanentMACAddress": [MAC]}
    assert _section(files, "30-bond0-1.network", "Match") == {"Name": ["eno2"]}
    assert _section(files, "30-bond0-1.network", "Network") == {"Bond": ["bond0"]}
    bond = _section(files, "10-bond0.network", "Network")
    assert bond["VLAN"] == ["far"] and bond["LinkLocalAddressing"] == ["no"]
    assert _section(files, "10-far.network", "Network")["Address"] == ["198.51.100.1/31"]


def test_what_is_named_exactly_comes_before_patterns_and_before_the_mediums_own() -> None:
    files = network_files(
        _network("".join(f'[[network.interface]]\nmatch = "{name}"\n' for name in ("en*", "eno1", MAC)))
    )
    order = sorted(files)
    assert ["PermanentMAC" in files[order[0]], "Name=eno1" in files[order[1]], "Name=en*" in files[order[2]]] == [
        True
    ] * 3
    assert all(path < "etc/systemd/network/80-wired.network" for path in order)
    assert all(_section(files, path, "Network")["DHCP"] == ["yes"] for path in order)


def test_a_gateway_outside_is_for_addresses_that_stand_alone() -> None:
    files = network_files(
        _network('[[network.interface]]\nmatch = "a"\naddresses = ["192.0.2.9/32"]\ngateways = ["198.51.100.1"]\n')
    )
    assert _section(files, "card-0.network", "Route") == {"Gateway": ["198.51.100.1"], "GatewayOnLink": ["yes"]}


def test_wifi_is_what_wpa_supplicant_reads() -> None:
    hidden, raw = "say 'hi' #1 there", "ab" * 32
    files = network_files(
        _network(
            'carry_secrets = true\n[network]\ncountry = "DE"\n'
            f'[[network.wifi]]\nssid = "Büro"\npassphrase = {json.dumps(hidden)}\nhidden = true\n'
            f'[[network.wifi]]\nssid = "raw"\npassphrase = "{raw}"\n[[network.wifi]]\nssid = "open"\n'
        )
    )
    first, second, third = files[WPA_CONFIG].split("network={")[1:]
    assert "ssid=" + "Büro".encode().hex() in first and "scan_ssid=1" in first and f'psk="{hidden}"' in first
    assert "SAE" in first and "ieee80211w=1" in first
    assert f"psk={raw}\n" in second and "SAE" not in second
    assert "key_mgmt=NONE" in third and "psk" not in third
    # wpa_supplicant.conf(5), sae_pwe: 2 is both ways, 0 (hunting and pecking alone) the default.
    assert "\nsae_pwe=2\n" in files[WPA_CONFIG].partition("network=")[0]
    assert "country=DE" in files[WPA_CONFIG]
    assert _section(files, "40-wifi.network", "Match") == {"Type": ["wlan"]}


def test_a_quote_in_a_passphrase_cannot_be_read_as_the_end_of_it() -> None:
    """wpa_supplicant 2.10 takes the file of psk="a"b#c defgh" for one with a comment, and refuses all of it."""
    recipe = 'carry_secrets = true\n[[network.wifi]]\nssid = "Büro"\npassphrase = \'a"b#c defgh\'\n'
    lines = network_files(_network(recipe))[WPA_CONFIG].split()
    # As wpa_passphrase(8) answers for this SSID and passphrase; and its bytes, as wpa_supplicant.conf(5) takes them.
    assert "psk=77ede4fce20d60c361d7637bf79eae319d708fed8b03d79b4b4fd2f67144f64b" in lines
    assert "sae_password=6122622363206465666768" in lines


def test_files_are_sections_of_keys() -> None:
    """Whatever is written parses as what systemd calls its syntax, which is that of .ini files."""
    files = network_files(_network('[[network.bond]]\nmembers = ["a", "b"]\n[[network.vlan]]\nid = 1\non = "bond0"\n'))
    for text in files.values():
        parser = configparser.ConfigParser(strict=False)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(text)
        assert parser.sections()[0] in ("Match", "NetDev")
