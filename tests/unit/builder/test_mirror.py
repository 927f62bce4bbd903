"""Finding the Debian mirror in what apt prints (recorded on Debian 12 and 13)."""

from builder.mirror import Mirror, parse_mirror

DEBIAN_12 = """\
'https://packages.example.org/apt/dists/cloud-sdk-bookworm/InRelease' x_InRelease 0
'http://mirror.lan/debian/dists/bookworm/InRelease' mirror.lan_debian_dists_bookworm_InRelease 0
'http://mirror.lan/debian/dists/bookworm-updates/InRelease' mirror.lan_debian_dists_bookworm-updates_InRelease 0
'http://mirror.lan/debian-security/dists/bookworm-security/InRelease' mirror.lan_InRelease 0
'http://mirror.lan/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror.lan_Packages 0
"""


def test_the_hosts_own_mirror_is_taken() -> None:
    assert parse_mirror(DEBIAN_12) == Mirror("http://mirror.lan/debian", "http://mirror.lan/debian-security")


def test_a_third_party_with_the_same_suite_is_not_the_archive() -> None:
    other = "'https://download.example.com/linux/debian/dists/bookworm/InRelease' x 0 \n"
    assert parse_mirror(other + DEBIAN_12).archive == "http://mirror.lan/debian"


def test_sources_have_updates_and_security_when_the_host_has() -> None:
    assert Mirror("http://m/debian", "").sources("trixie") == (
        "deb http://m/debian trixie main",
        "deb http://m/debian trixie-updates main",
    )
    assert "deb http://s trixie-security main" in Mirror("http://m/debian", "http://s").sources("trixie")


def test_a_host_that_is_not_debian_uses_debians_own_address() -> None:
    assert parse_mirror("'http://archive.ubuntu.com/ubuntu/dists/noble/InRelease' x 0 \n").archive.endswith("/debian")


def test_backports_are_read_only_when_they_are_asked_for() -> None:
    plain, more = Mirror("http://m", "http://s"), Mirror("http://m", "http://s", backports=True)
    assert set(more.sources("trixie")) - set(plain.sources("trixie")) == {"deb http://m trixie-backports main"}
