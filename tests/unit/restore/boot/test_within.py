"""Paths of a mounted system: absolute links lead to its own root, as chroot(2) has it, and never out of it."""

from pathlib import Path

import pytest

from restore.boot.within import folder_within


@pytest.mark.parametrize(
    ("link", "target", "asked", "leads"),
    [
        ("etc/ssh", "/data/ssh", "/etc/ssh", "data/ssh"),
        ("etc/ssh", "../data/ssh", "etc/ssh/", "data/ssh"),
        ("etc/ssh", "../../../../data", "/etc/ssh/below", "data/below"),
        ("var", "/data/./var", "/var/lib/systemd", "data/var/lib/systemd"),
        ("home", "home", "/etc", "etc"),
        ("home", "data", "/../../home", "data"),
        ("home", "/", "/home", ""),
    ],
)
def test_a_link_stays_in_the_system(link: str, target: str, asked: str, leads: str, tmp_path: Path) -> None:
    place = tmp_path / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target)
    assert folder_within(tmp_path, asked) == tmp_path / leads


def test_links_in_circles_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("/two")
    (tmp_path / "two").symlink_to("one")
    assert folder_within(tmp_path, "one/lib") is None
