"""The network part of a recipe: which card gets which address, and what is stacked on the cards.

Facts and their checks; the files of systemd-networkd and wpa_supplicant are written by ``site_network``.
"""

import ipaddress
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import TypeAlias

import msgspec

from core.errors import UsageError

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPInterface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
#: The kernel's rule for names (net/core/dev.c, dev_valid_name): at most 15 bytes, no slash, colon or white space.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_PATTERN = re.compile(r"[A-Za-z0-9_*?\[\]!][A-Za-z0-9_.*?\[\]!-]{0,31}")
_DOMAIN = re.compile(r"~?[A-Za-z0-9][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*\.?")
#: IEEE 802.1Q: 12 bits, of which 0 and 4095 are reserved.
_VLAN_IDS = range(1, 4095)
#: RFC 791 and the kernel's field; RFC 8200 asks for 1280 where there is IPv6.
_MTUS = range(68, 65536)
_SSID_BYTES = 32
#: IEEE 802.11i: a passphrase has 8 to 63 printable ASCII characters, a raw key is 64 hexadecimal digits.
_PASSPHRASE = re.compile(r"[ -~]{8,63}|[0-9A-Fa-f]{64}")


class Dhcp(StrEnum):
    """Which addresses are asked for; ``auto``: both when the recipe gives none, otherwise none."""

    AUTO = "auto"
    YES = "yes"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    NO = "no"


class BondMode(StrEnum):
    """How a bond uses its members, by systemd-networkd's names."""

    ACTIVE_BACKUP = "active-backup"
    LACP = "802.3ad"
    BALANCE_RR = "balance-rr"
    BALANCE_XOR = "balance-xor"
    BROADCAST = "broadcast"
    BALANCE_TLB = "balance-tlb"
    BALANCE_ALB = "balance-alb"


class Addresses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What cards, VLANs and bonds have in common.

    Attributes:
        dhcp: which addresses are asked for.
        addresses: fixed ones with their prefix length, ``192.0.2.10/24`` or ``2001:db8::10/64``.
        gateways: default routes, one of each family at most.
        dns: name servers. search: domains that short names are looked up in.
        mtu: bytes of the largest packet; 0 leaves the card's own.
    """

    dhcp: Dhcp = Dhcp.AUTO
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    mtu: int = 0

    @property
    def asks(self) -> Dhcp:
        """``dhcp`` with ``auto`` decided."""
        if self.dhcp is not Dhcp.AUTO:
            return self.dhcp
        return Dhcp.NO if self.addresses else Dhcp.YES


class Interface(Addresses, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network card, known by its MAC address or by its name (``*`` and ``?`` allowed)."""

    match: str


class Vlan(Addresses, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tagged VLAN.

    Attributes:
        id: 1 to 4094.
        on: the ``match`` of an interface, or the ``name`` of a bond.
        name: of the device; ``vlan`` and the id when empty.
    """

    id: int
    on: str
    name: str = ""

    @property
    def device(self) -> str:
        """The name that it has in the live system."""
        return self.name or f"vlan{self.id}"


class Bond(Addresses, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several cards used as one; ``members`` are MAC addresses or names."""

    name: str = "bond0"
    members: tuple[str, ...]
    mode: BondMode = BondMode.ACTIVE_BACKUP


class Wifi(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wireless network that every wireless card may join.

    Attributes:
        ssid: its name. hidden: it does not announce itself.
        passphrase: WPA2 or WPA3; empty for an open network. It lies on the medium, so ``carry_secrets`` must be set.
    """

    ssid: str
    passphrase: str = ""
    hidden: bool = False


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it; cards that are not named ask for an address by DHCP unless ``others`` is false.

    Attributes:
        country: two letters (ISO 3166): which channels Wi-Fi may use.
    """

    others: bool = True
    country: str = ""
    interfaces: tuple[Interface, ...] = msgspec.field(default=(), name="interface")
    vlans: tuple[Vlan, ...] = msgspec.field(default=(), name="vlan")
    bonds: tuple[Bond, ...] = msgspec.field(default=(), name="bond")
    wifi: tuple[Wifi, ...] = ()


def is_mac(match: str) -> bool:
    """Whether a ``match`` means a MAC address and not a name."""
    return _MAC.fullmatch(match.lower()) is not None


def check_network(network: Network, name: str) -> None:
    """Refuse what no network can be; ``name`` is what an error calls the recipe.

    Raises:
        UsageError: naming the field and what is wrong with it.
    """
    for place, common in _parts(network):
        _check_addresses(common, f"{name}: {place}")
    _check_cards(network, name)
    _check_devices(network, name)
    _check_wifi(network, name)


def _parts(network: Network) -> Iterator[tuple[str, Addresses]]:
    kinds: tuple[tuple[str, tuple[Addresses, ...]], ...] = (
        ("interface", network.interfaces),
        ("vlan", network.vlans),
        ("bond", network.bonds),
    )
    for kind, parts in kinds:
        for number, part in enumerate(parts):
            yield f"network.{kind}[{number}]", part


def _check_addresses(part: Addresses, place: str) -> None:
    networks = [_interface(text, f"{place}.addresses") for text in part.addresses]
    gateways = [_address(text, f"{place}.gateways") for text in part.gateways]
    for text, gateway in zip(part.gateways, gateways, strict=True):
        if sum(other.version == gateway.version for other in gateways) > 1:
            raise UsageError(
                f"{place}.gateways names more than one IPv{gateway.version} gateway.", hint="A default route has one."
            )
        same = [found for found in networks if found.version == gateway.version]
        if not same and part.asks is Dhcp.NO:
            raise UsageError(f"{place}.gateways has {text}, but there is no IPv{gateway.version} address.")
        if any(gateway == found.ip for found in same):
            raise UsageError(f"{place}.gateways has {text}, which is the machine's own address.")
        if same and not (gateway.is_link_local or any(_reaches(found, gateway) for found in same)):
            raise UsageError(
                f"{place}.gateways has {text}, which lies in none of the networks of its addresses.",
                hint="Look at the prefix length; only addresses with /32 or /128 may have a gateway outside.",
            )
    for text in part.dns:
        _address(text, f"{place}.dns")
    for text in part.search:
        if _DOMAIN.fullmatch(text) is None or len(text) > 253:
            raise UsageError(f"{place}.search has {text!r}, which is not the name of a domain.")
    if part.mtu and part.mtu not in _MTUS:
        raise UsageError(f"{place}.mtu is {part.mtu}; expected {_MTUS.start} to {_MTUS.stop - 1} bytes.")


def _reaches(own: IPInterface, gateway: IPAddress) -> bool:
    return own.network.prefixlen == own.max_prefixlen or gateway in own.network


def _interface(text: str, place: str) -> IPInterface:
    try:
        found = ipaddress.ip_interface(text)
    except ValueError as error:
        raise UsageError(f"{place} has {text!r}, which is not an address: {error}.") from None
    if "/" not in text:
        raise UsageError(f"{place} has {text} without its prefix length.", hint=f"Write it like {text}/24.")
    wide = found.max_prefixlen - found.network.prefixlen > 1
    if found.ip.is_multicast or found.ip.is_loopback or found.ip.is_unspecified:
        raise UsageError(f"{place} has {text}, which no card can have.")
    if wide and found.version == 4 and found.ip in (found.network.network_address, found.network.broadcast_address):
        raise UsageError(f"{place} has {text}, which is the network itself or its broadcast address.")
    return found


def _address(text: str, place: str) -> IPAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"{place} has {text!r}, which is not an IP address.") from None


def _check_cards(network: Network, name: str) -> None:
    taken: dict[str, str] = {}
    cards = [(f"network.interface[{n}].match", part.match) for n, part in enumerate(network.interfaces)]
    cards += [(f"network.bond[{n}].members", match) for n, part in enumerate(network.bonds) for match in part.members]
    for place, match in cards:
        if is_mac(match):
            if int(match[:2], 16) & 1 or set(match) <= {"0", ":"}:
                raise UsageError(f"{name}: {place} has {match}, a MAC address that no single card has.")
        elif _PATTERN.fullmatch(match) is None:
            raise UsageError(
                f"{name}: {place} has {match!r}, which is neither a MAC address nor the name of a card.",
                hint="Write 52:54:00:12:34:56, or a name as `ip link` shows it, such as eno1.",
            )
        if match.lower() in taken:
            raise UsageError(f"{name}: {place} has {match}, which {taken[match.lower()]} has already.")
        taken[match.lower()] = place


def _check_devices(network: Network, name: str) -> None:
    for number, bond in enumerate(network.bonds):
        if not bond.members:
            raise UsageError(f"{name}: network.bond[{number}] has no members.")
    below = {part.match for part in network.interfaces} | {part.name for part in network.bonds}
    named: dict[str, str] = {}
    devices = [(f"network.bond[{n}]", part.name) for n, part in enumerate(network.bonds)]
    devices += [(f"network.vlan[{n}]", part.device) for n, part in enumerate(network.vlans)]
    for place, device in devices:
        if _NAME.fullmatch(device) is None:
            raise UsageError(
                f"{name}: {place}.name is {device!r}, which is not a device's name.",
                hint="At most 15 letters, digits, dots and hyphens.",
            )
        if device in named:
            raise UsageError(f"{name}: {place} and {named[device]} are both called {device}.", hint="Give one a name.")
        named[device] = place
    tagged: set[tuple[str, int]] = set()
    for number, vlan in enumerate(network.vlans):
        place = f"{name}: network.vlan[{number}]"
        if vlan.id not in _VLAN_IDS:
            raise UsageError(f"{place}.id is {vlan.id}; a VLAN's id is 1 to 4094.")
        if vlan.on not in below:
            raise UsageError(
                f"{place}.on is {vlan.on!r}, which is the match of no interface and the name of no bond.",
                hint=f'Add [[network.interface]] with match = "{vlan.on}" (and dhcp = "no" if only the VLAN is used).',
            )
        if (vlan.on, vlan.id) in tagged:
            raise UsageError(f"{place} repeats id {vlan.id} on {vlan.on}.")
        tagged.add((vlan.on, vlan.id))


def _check_wifi(network: Network, name: str) -> None:
    if network.country and re.fullmatch(r"[A-Z]{2}", network.country) is None:
        raise UsageError(f"{name}: network.country is {network.country!r}; expected two capital letters, such as DE.")
    for number, wifi in enumerate(network.wifi):
        place = f"{name}: network.wifi[{number}]"
        if not 1 <= len(wifi.ssid.encode()) <= _SSID_BYTES or "\0" in wifi.ssid:
            raise UsageError(f"{place}.ssid has {len(wifi.ssid.encode())} bytes; expected 1 to {_SSID_BYTES}.")
        # Not a word of it: errors are logged.
        if wifi.passphrase and _PASSPHRASE.fullmatch(wifi.passphrase) is None:
            raise UsageError(
                f"{place}.passphrase is not one: expected 8 to 63 ASCII characters, or 64 hexadecimal digits."
            )
