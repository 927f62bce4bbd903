"""A recipe's network as files of systemd-networkd (systemd.network(5), systemd.netdev(5)) and wpa_supplicant.

Text only. The numbers in the names put what the recipe names before the live system's ``80-wired.network``, which asks
for an address on every other card.
"""

import hashlib
from collections.abc import Iterable

from builder.recipe.network import Addresses, Bond, BondMode, Dhcp, Interface, Network, Vlan, Wifi, is_mac

FOLDER = "etc/systemd/network"
WPA_CONFIG = "etc/wpa_supplicant/liferaft.conf"
#: How often a bond looks whether its members have a link (the kernel's advice, Documentation/networking/bonding.rst).
_LINK_CHECK = "100ms"


def network_files(network: Network) -> dict[str, str]:
    """Path in the live system to text."""
    files: dict[str, str] = {}
    for bond in network.bonds:
        files[f"{FOLDER}/10-{bond.name}.netdev"] = _bond_device(bond)
        files[f"{FOLDER}/10-{bond.name}.network"] = _network(f"Name={bond.name}", bond, _on(network, bond.name))
        for number, member in enumerate(bond.members):
            text = _section("Match", _match(member)) + _section("Network", f"Bond={bond.name}")
            files[f"{FOLDER}/{_rank(member)}-{bond.name}-{number}.network"] = text
    for vlan in network.vlans:
        device = _section("NetDev", f"Name={vlan.device}", "Kind=vlan") + _section("VLAN", f"Id={vlan.id}")
        files[f"{FOLDER}/10-{vlan.device}.netdev"] = device
        files[f"{FOLDER}/10-{vlan.device}.network"] = _network(f"Name={vlan.device}", vlan, ())
    for number, card in enumerate(network.interfaces):
        files[f"{FOLDER}/{_rank(card.match)}-card-{number}.network"] = _card(network, card)
    if network.wifi:
        files[f"{FOLDER}/40-wifi.network"] = _network("Type=wlan", Addresses(), ())
        files[WPA_CONFIG] = wpa_config(network)
    return files


def wpa_config(network: Network) -> str:
    """wpa_supplicant.conf(5) for all wireless networks of a recipe; it holds their passphrases."""
    # WPA3 by hash-to-element where the access point knows it: those on 6 GHz, and some others, take nothing else. By
    # itself wpa_supplicant 2.10 would only do it on 6 GHz.
    lines = ["ctrl_interface=DIR=/run/wpa_supplicant", "sae_pwe=2"]
    if network.country:
        lines.append(f"country={network.country}")
    for wifi in network.wifi:
        lines += ["network={", *(f"\t{line}" for line in _join(wifi)), "}"]
    return "\n".join(lines) + "\n"


def _join(wifi: Wifi) -> Iterable[str]:
    # As hexadecimal digits, an SSID may hold any byte.
    yield f"ssid={wifi.ssid.encode().hex()}"
    if wifi.hidden:
        yield "scan_ssid=1"
    if not wifi.passphrase:
        yield "key_mgmt=NONE"
    elif len(wifi.passphrase) == 64:
        yield "key_mgmt=WPA-PSK WPA-PSK-SHA256"
        yield f"psk={wifi.passphrase}"
    else:
        # WPA3 asks for protected management frames; WPA2 takes them where both sides can.
        yield "key_mgmt=WPA-PSK WPA-PSK-SHA256 SAE"
        yield "ieee80211w=1"
        yield from _secret(wifi)


def _secret(wifi: Wifi) -> Iterable[str]:
    if '"' not in wifi.passphrase:
        yield f'psk="{wifi.passphrase}"'
        return
    # Behind a second quote wpa_supplicant takes a # for a comment (wpa_config_get_line in its config_file.c), and knows
    # no other way to write a quote. So WPA2's key (IEEE 802.11, "PSK mapping"), and for WPA3 the passphrase as digits.
    key = hashlib.pbkdf2_hmac("sha1", wifi.passphrase.encode(), wifi.ssid.encode(), 4096, 32)
    yield f"psk={key.hex()}"
    yield f"sae_password={wifi.passphrase.encode().hex()}"


def _rank(match: str) -> str:
    """A card known by its MAC address comes before names, names before patterns."""
    if is_mac(match):
        return "20"
    return "31" if set(match) & set("*?[") else "30"


def _match(match: str) -> str:
    # The address that the card was built with: VLANs and bonds borrow the other.
    return f"PermanentMACAddress={match.lower()}" if is_mac(match) else f"Name={match}"


def _on(network: Network, below: str) -> tuple[Vlan, ...]:
    return tuple(vlan for vlan in network.vlans if vlan.on == below)


def _card(network: Network, card: Interface) -> str:
    return _network(_match(card.match), card, _on(network, card.match))


def _network(match: str, part: Addresses, vlans: tuple[Vlan, ...]) -> str:
    asks = part.asks
    lines = [f"DHCP={asks}", "LLMNR=no", "MulticastDNS=no"]
    if asks in (Dhcp.NO, Dhcp.IPV4):
        lines.append("IPv6AcceptRA=no")
    if asks is Dhcp.NO and not part.addresses:
        # Only its VLANs are used.
        lines.append("LinkLocalAddressing=no")
    lines += [f"Address={address}" for address in part.addresses]
    lines += [f"DNS={server}" for server in part.dns]
    if part.search:
        lines.append(f"Domains={' '.join(part.search)}")
    lines += [f"VLAN={vlan.device}" for vlan in vlans]
    text = _section("Match", match)
    if part.mtu:
        text += _section("Link", f"MTUBytes={part.mtu}")
    text += _section("Network", *lines)
    alone = any(address.endswith(("/32", "/128")) for address in part.addresses)
    for gateway in part.gateways:
        text += _section("Route", f"Gateway={gateway}", *(("GatewayOnLink=yes",) if alone else ()))
    if asks in (Dhcp.YES, Dhcp.IPV4):
        text += _section("DHCPv4", "ClientIdentifier=mac", "UseDomains=yes")
    return text


def _bond_device(bond: Bond) -> str:
    lines = [f"Mode={bond.mode}", f"MIIMonitorSec={_LINK_CHECK}"]
    if bond.mode is BondMode.LACP:
        lines.append("TransmitHashPolicy=layer3+4")
    return _section("NetDev", f"Name={bond.name}", "Kind=bond") + _section("Bond", *lines)


def _section(name: str, *lines: str) -> str:
    return "\n".join((f"[{name}]", *lines)) + "\n\n"
