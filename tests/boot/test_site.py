"""A medium with a site's settings, in one boot: its menu, network, keys, place, trust and what the wizard offers.

Everything is asked of the running system's own tools, over SSH with the site's key; that the login works is the first
of the facts.
"""

import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.process import Runner
from tests.boot.machine import Controller, Drive, Firmware, Machine
from tests.boot.place import OUT
from tests.boot.restoring import BOOT_TIMEOUT, Lab

pytestmark = pytest.mark.thorough

_MACS = ("52:54:00:00:09:01", "52:54:00:00:09:02", "52:54:00:00:09:03")
#: The user network behind the first card; its host is .2 (QEMU's manual, "Network options").
_NET, _HOST, _GUEST = "10.0.9.0/24", "10.0.9.2", "10.0.9.15"

_RECIPE = f"""
hostname = "ark"
kernel_parameters = ["systemd.mask=liferaft-tui@tty1.service", "systemd.mask=liferaft-tui@ttyS0.service"]
time_zone = "Europe/Berlin"
keymap = "de(nodeadkeys)"
locale = "de_DE.UTF-8"
ca_certificates = ["ca.pem"]
hooks = "hooks"

[ssh]
keys = ["id.pub"]

[menu]
title = "ACME rescue"
text = ["In trouble, call 555-0100"]
color = "white/blue"

[[repository]]
name = "Backup server"
address = "https://backup.example/repo"

[[network.interface]]
match = "{_MACS[0]}"
addresses = ["{_GUEST}/24", "2001:db8::15/64"]
gateways = ["{_HOST}"]
dns = ["10.0.9.3"]
search = ["example.net"]

[[network.bond]]
name = "team0"
members = ["{_MACS[1]}", "{_MACS[2]}"]
addresses = ["198.51.100.7/24"]

[[network.vlan]]
id = 7
on = "{_MACS[0]}"
addresses = ["192.0.2.10/24"]

[[network.vlan]]
id = 8
on = "team0"
name = "office"
addresses = ["203.0.113.8/28"]
"""


@dataclass(frozen=True)
class Shell:
    """Commands in the guest, over SSH."""

    folder: Path
    port: int

    def run(self, script: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a script as root; the host key is new at every boot, so it is not known."""
        argv = ["ssh", "-i", str(self.folder / "id"), "-p", str(self.port), "-o", "StrictHostKeyChecking=no"]
        argv += ["-o", f"UserKnownHostsFile={self.folder / 'hosts'}", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
        argv += ["-o", "ConnectTimeout=20", "root@127.0.0.1", script]
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    def say(self, script: str) -> str:
        """What a script that must succeed printed."""
        done = self.run(script)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def wait(self, seconds: float) -> None:
        """Until the server answers."""
        end = time.monotonic() + seconds
        while (done := self.run("true")).returncode != 0:
            assert time.monotonic() < end, f"no login over SSH: {done.stderr}"
            time.sleep(1)


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("site")
    _make_keys(folder, lab.runner)
    hook = folder / "hooks" / "after-restore" / "10-site"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\ncat >/run/hook-was-here\n")
    hook.chmod(0o755)
    for name in ("id.pub", "ca.pem"):
        (lab.folder / name).write_bytes((folder / name).read_bytes())
    if not (lab.folder / "hooks").exists():
        (folder / "hooks").rename(lab.folder / "hooks")
    iso = lab.medium("site", _RECIPE)
    shell = Shell(folder, _free_port())
    machine = Machine("site", Firmware.BIOS, (Drive(iso, Controller.CDROM),), extra=_cards(shell.port))
    with machine.run() as running:
        running.console.expect("ACME rescue, copied to RAM", 300)
        running.console.expect("In trouble, call 555-0100", 60)
        shell.wait(BOOT_TIMEOUT)
        yield shell
        (OUT / "site.journal.log").write_text(shell.run("journalctl -b --no-pager").stdout)
    iso.unlink()


def test_cards_bonds_and_vlans_have_the_addresses_of_the_recipe(site: Shell) -> None:
    # The server answers as soon as one card is up; the others, and DHCP's answer, may come later.
    awaited = "203.0.113.8 192.0.2.10 198.51.100.7 2001:db8::15 10.0.2.15"
    site.say(
        f"for i in $(seq 150); do n=0; for a in {awaited}; do ip -br a | grep -qF $a/ || n=1; done; "
        "[ $n = 0 ] && break; sleep 0.2; done"
    )
    links = {link["ifname"]: link for link in json.loads(site.say("ip -d -j addr show"))}
    held = {
        name: sorted(f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["scope"] == "global")
        for name, link in links.items()
    }
    by_mac = {link["address"]: name for name, link in links.items() if not link.get("linkinfo", {}).get("info_kind")}
    assert held[by_mac[_MACS[0]]] == [f"{_GUEST}/24", "2001:db8::15/64"]
    assert held["vlan7"] == ["192.0.2.10/24"] and held["office"] == ["203.0.113.8/28"]
    assert held["team0"] == ["198.51.100.7/24"]
    tags = {name: links[name]["linkinfo"]["info_data"]["id"] for name in ("vlan7", "office")}
    assert tags == {"vlan7": 7, "office": 8}
    assert links["office"]["link"] == "team0" and links["vlan7"]["link"] == by_mac[_MACS[0]]
    assert sum(link.get("master") == "team0" for link in links.values()) == 2
    # The card that no recipe names asked for its address.
    assert any(address.startswith("10.0.2.15/") for addresses in held.values() for address in addresses)
    routes = site.say("ip route show default; resolvectl status")
    assert f"default via {_HOST}" in routes and "10.0.9.3" in routes and "example.net" in routes


def test_only_the_sites_key_opens_the_door(site: Shell) -> None:
    listening = site.say("ss -Hltn").split()
    assert {word.rpartition(":")[2] for word in listening[3::5]} <= {"22", "53"}
    others = Shell(site.folder / "other", site.port)
    others.folder.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", others.folder / "id"], check=True)
    refused = others.run("true")
    assert refused.returncode == 255 and "Permission denied (publickey)" in refused.stderr
    # Made in this boot: the medium carries none.
    kept = site.say("find /run/live/rootfs /etc/ssh -name 'ssh_host_*_key' -type f").split()
    assert kept == ["/etc/ssh/ssh_host_ed25519_key"]


def test_place_is_the_sites(site: Shell) -> None:
    said = site.say(
        "hostname; date -d @1780000000 +%Z%z; bash -lc 'locale -k LC_TIME' | grep ^day=; "
        "dumpkeys -C /dev/tty1 | grep -E '^keycode +(21|26) ='"
    )
    host, zone, days, right_of_t, right_of_p = said.splitlines()
    assert (host, zone) == ("ark", "CEST+0200")
    assert days.startswith('day="Sonntag;Montag')
    # On a German keyboard, the key right of T is Z, and the one right of P is ü (U+00FC).
    assert "+z" in right_of_t.split()
    assert {"+udiaeresis", "+0x00fc", "U+00fc", "+U+00fc"} & set(right_of_p.split())


def test_the_sites_authority_is_trusted_by_all_that_fetch(site: Shell) -> None:
    with _https_server(site.folder) as port:
        address = f"https://{_HOST}:{port}"
        assert site.say(f"curl -sS {address}/index.json") == "{}"
        said = [
            site.run(f"systemd-run -q --wait --pipe --collect liferaft snapshots --repo {address}/r"),
            site.run(
                "export AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_REGION=r; "
                f"liferaft snapshots --repo s3+https://{_HOST}:{port}/bucket/r"
            ),
        ]
    for done in said:
        # The server has no repository, and that is what is said: it was reached.
        assert done.returncode != 0 and "trusted" not in done.stderr and "ertificate" not in done.stderr, done.stderr
        assert "liferaft.json" in done.stderr or "no repository" in done.stderr, done.stderr


def test_hooks_and_repositories_lie_where_liferaft_looks(site: Shell) -> None:
    said = site.say("cd /etc/liferaft; find hooks -type f -perm 755; systemctl --failed --no-legend; cat site.json")
    hook, _, document = said.partition("\n")
    assert hook == "hooks/after-restore/10-site"
    # Between the hook and the document nothing: no unit failed.
    offered = json.loads(document)["repositories"]
    assert offered == [{"address": "https://backup.example/repo", "name": "Backup server"}]


def _make_keys(folder: Path, runner: Runner) -> None:
    """The administrator's SSH key, and an authority with the certificate of the host as the guest sees it."""
    runner.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id")])
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    authority = ["-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.pem"), "-subj", "/CN=Site CA"]
    # Without it Python 3.13 and newer trust no authority (ssl.VERIFY_X509_STRICT).
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    runner.run(["openssl", "req", "-x509", *curve, *authority, *usage])
    server = ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.pem"), "-subj", "/CN=backup"]
    signed = ["-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key")]
    names = ["-addext", f"subjectAltName=IP:{_HOST}", "-addext", "basicConstraints=critical,CA:FALSE"]
    runner.run(["openssl", "req", "-x509", *curve, *server, *signed, *names])


@contextmanager
def _https_server(folder: Path) -> Iterator[int]:
    """Answers ``/index.json`` with an empty document and all else with 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/index.json"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", "2" if found else "0")
            self.end_headers()
            if found:
                self.wfile.write(b"{}")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *words: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _cards(port: int) -> tuple[str, ...]:
    """Beside the machine's own card: one with a way in over SSH, and two on a network of their own."""
    back = f"user,id=site,net={_NET},host={_HOST},dhcpstart={_GUEST},hostfwd=tcp:127.0.0.1:{port}-{_GUEST}:22"
    words = ["-netdev", back, "-device", f"virtio-net-pci,netdev=site,mac={_MACS[0]},romfile="]
    for number, mac in enumerate(_MACS[1:]):
        words += ["-netdev", f"hubport,id=team{number},hubid=9"]
        words += ["-device", f"virtio-net-pci,netdev=team{number},mac={mac},romfile="]
    return tuple(words)


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
        return port
