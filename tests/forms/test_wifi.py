"""A medium with Wi-Fi joins networks: in one boot, an access point of each kind on the other of two simulated radios.

The radios are the kernel's own (Linux, Documentation/networking/mac80211_hwsim): what one sends the other hears,
through the whole of mac80211. The access point is Debian's hostapd in a network namespace of its own, with dnsmasq
beside it. The base is installed anew: minutes, and nothing when the cache has it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.boot.lab import BOOT_TIMEOUT, Guest, guest
from tests.boot.place import OUT
from tests.boot.restoring import Lab

#: A quotation mark ends a word of wpa_supplicant's file, and a # behind one begins a comment.
_PASSPHRASE = 'say "hi" #1 there'
_PLAIN = "correct horse battery"
#: By the networks' names: what the recipe says of them.
_NETWORKS = {
    "Büro": (_PASSPHRASE, True),
    "Büro 3": (_PASSPHRASE, True),
    "new": (_PLAIN, False),
}
# A root shell on the second serial line: systemd-debug-generator(8).
_RECIPE = """
compression = "fast"
kernel_parameters = ["systemd.debug_shell=ttyS1"]
packages = ["dnsmasq-base", "hostapd", "iputils-ping"]
carry_secrets = true
[network]
country = "DE"
""" + "".join(
    f"[[network.wifi]]\nssid = {json.dumps(ssid)}\npassphrase = {json.dumps(passphrase)}\n"
    f"hidden = {json.dumps(hidden)}\n"
    for ssid, (passphrase, hidden) in _NETWORKS.items()
)
#: Addresses of the access point, and those that it gives away.
_POINT, _FIRST, _LAST = "192.0.2.1", "192.0.2.100", "192.0.2.120"
#: The second radio becomes the access point's before the medium's own rule joins networks with it.
_RADIOS = f"""
systemctl mask --runtime -q liferaft-wifi@wlan1.service
modprobe mac80211_hwsim radios=2
udevadm settle
ip netns add point
iw phy phy1 set netns name point
ip -n point addr add {_POINT}/24 dev wlan1
"""
#: Starts both, and leaves them running.
_START = f"""
ip netns exec point hostapd -B -f /run/lab/hostapd.log -P /run/hostapd.pid /run/lab/hostapd.conf
ip netns exec point dnsmasq --port=0 --interface=wlan1 --bind-interfaces --dhcp-range={_FIRST},{_LAST},1h \
  --dhcp-leasefile=/run/leases --pid-file=/run/dnsmasq.pid --log-facility=/run/lab/dnsmasq.log --log-dhcp
"""
_STOP = "kill $(cat /run/hostapd.pid /run/dnsmasq.pid); rm -f /run/leases; ip -n point link set wlan1 down"
#: What the medium's card says when it has joined the network and has an address there, or after two minutes.
_JOINED = """
ssid=$(grep ^ssid= /run/lab/wanted)
for i in $(seq 120); do
  wpa_cli -i wlan0 status >/run/status
  # The address may be left from another network; this one's is in the access point's list.
  grep -qxF "$ssid" /run/status && grep -q ^ip_address= /run/status && [ -s /run/leases ] && break
  sleep 1
done
cat /run/status
"""


@dataclass(frozen=True)
class Security:
    """How a network is guarded.

    Attributes:
        point: hostapd's words for it (hostapd.conf(5)), with an address of its own: each is another access point.
        said: what wpa_supplicant says of it (wpa_cli(8), status).
    """

    point: str
    said: dict[str, str]


_WPA2 = Security("bssid=02:00:00:00:02:01\nwpa_key_mgmt=WPA-PSK\nieee80211w=0\n", {"key_mgmt": "WPA2-PSK"})
#: WPA3 asks for protected management frames (Wi-Fi Alliance, WPA3 Specification, "WPA3-Personal only mode").
_SAE = "wpa_key_mgmt=SAE\nieee80211w=2\nsae_require_mfp=1\n"
_WPA3 = Security(f"bssid=02:00:00:00:02:02\n{_SAE}", {"key_mgmt": "SAE", "pmf": "2", "sae_h2e": "0"})
#: The way to the password element that 6 GHz asks for, and no other (IEEE 802.11, "hash-to-element").
_WPA3_H2E = Security(f"bssid=02:00:00:00:02:03\n{_SAE}sae_pwe=1\n", {"key_mgmt": "SAE", "pmf": "2", "sae_h2e": "1"})


@pytest.fixture(scope="module")
def radios(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, Path]]:
    """The guest, and the folder that it shares with this machine."""
    iso = lab.medium("wifi", _RECIPE)
    shared = tmp_path_factory.mktemp("wifi")
    with guest("wifi", iso, (), shared, lab.runner, whole=True) as running:
        running.check(_RADIOS, BOOT_TIMEOUT)
        yield running, shared
        (OUT / "wifi.journal.log").write_text(running.run("journalctl -b --no-pager -o short-monotonic").output)


def _access_point(ssid: str, security: Security) -> str:
    """hostapd's settings for a network of the recipe."""
    passphrase, hidden = _NETWORKS[ssid]
    return (
        f"interface=wlan1\ndriver=nl80211\nctrl_interface=/run/hostapd\nhw_mode=g\nchannel=1\nieee80211n=1\n"
        f"ssid2={ssid.encode().hex()}\nignore_broadcast_ssid={int(hidden)}\n"
        f"wpa=2\nrsn_pairwise=CCMP\nwpa_passphrase={passphrase}\n{security.point}"
    )


@pytest.mark.parametrize(
    ("ssid", "security"),
    [("Büro", _WPA2), ("Büro 3", _WPA3), ("new", _WPA3_H2E)],
    ids=["WPA2", "WPA3", "WPA3 of 6 GHz"],
)
def test_a_network_of_the_recipe_is_joined(radios: tuple[Guest, Path], ssid: str, security: Security) -> None:
    running, shared = radios
    (shared / "hostapd.conf").write_text(_access_point(ssid, security))
    running.check(_START)
    try:
        # By itself: the medium's own rule, its unit and systemd-networkd.
        name = "".join(chr(byte) if byte < 128 else f"\\x{byte:02x}" for byte in ssid.encode())
        wanted = {"ssid": name, "wpa_state": "COMPLETED", **security.said}
        (shared / "wanted").write_text("".join(f"{key}={value}\n" for key, value in wanted.items()))
        state = dict(line.split("=", 1) for line in running.check(_JOINED).splitlines() if "=" in line)
        assert {key: state.get(key) for key in wanted} == wanted, state
        leased = running.check("cat /run/leases").split()
        assert state["ip_address"] == leased[2] and state["address"] == leased[1], (state, leased)
        assert ", 0% packet loss" in running.check(f"ping -c 3 -W 5 -I wlan0 {_POINT}")
    finally:
        running.run(_STOP)
