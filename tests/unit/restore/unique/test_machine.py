"""What makes a machine itself: renewed in the restored system, whose links never lead into the rescue system."""

from pathlib import Path

import pytest

from restore.unique.machine import forget_seeds, renew_host_keys, renew_machine_id

NEW = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def rescue(tmp_path: Path) -> Path:
    """Folders of the rescue system with files of the names that are looked for."""
    folder = tmp_path / "rescue"
    for name in ("ssh/ssh_host_rsa_key", "lib/systemd/random-seed", "lib/dbus/machine-id"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of the rescue system")
    return folder


def test_links_of_the_system_do_not_lead_into_the_rescue_system(tmp_path: Path, rescue: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/machine-id").write_text("old\n")
    (root / "etc/ssh").symlink_to(rescue / "ssh")
    (root / "var").symlink_to(rescue)
    made: list[tuple[str, ...]] = []
    assert renew_machine_id(root, NEW)
    assert forget_seeds(root) == ((), "")
    assert renew_host_keys(root, lambda words: made.append(words) or "") == ((), "")
    assert made == []
    for path in rescue.rglob("*"):
        assert path.is_dir() or path.read_text() == "of the rescue system"
    assert len([path for path in rescue.rglob("*") if path.is_file()]) == 3


def test_what_lies_behind_a_link_in_the_system_is_renewed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("data/ssh/ssh_host_rsa_key", "data/var/lib/systemd/random-seed", "etc/machine-id"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("old")
    (root / "etc/ssh").symlink_to("/data/ssh")
    (root / "var").symlink_to("/data/var")

    def keygen(words: tuple[str, ...]) -> str:
        (root / "data/ssh/ssh_host_rsa_key").write_text("new")
        return ""

    assert renew_host_keys(root, keygen) == (("ssh_host_rsa_key",), "")
    assert forget_seeds(root) == (("/var/lib/systemd/random-seed",), "")
    assert not (root / "data/var/lib/systemd/random-seed").exists()


def test_a_machine_id_that_was_empty_counts_as_renewed(tmp_path: Path) -> None:
    """machine-id(5): an empty file is one of an image that was never started."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").touch()
    assert renew_machine_id(tmp_path, NEW)
    assert (tmp_path / "etc/machine-id").read_text() == f"{NEW}\n"
    assert not renew_machine_id(tmp_path, NEW)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("etc/credstore.encrypted/db.password", "x"),
        ("boot/efi/loader/credentials/a.cred", "x"),
        ("etc/systemd/system/a.service.d/b.conf", "[Service]\nSetCredentialEncrypted=p: aGVsbG8=\n"),
        ("etc/systemd/system/a.service", "[Service]\nLoadCredentialEncrypted=p:/etc/p.cred\n"),
    ],
)
def test_the_key_of_credentials_stays_where_something_needs_it(name: str, content: str, tmp_path: Path) -> None:
    """systemd-creds(1): what is encrypted with the key of the host cannot be decrypted without it."""
    secret = tmp_path / "var/lib/systemd/credential.secret"
    for path, text in ((secret, "s"), (tmp_path / name, content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    gone, warning = forget_seeds(tmp_path)
    assert gone == ()
    assert "credential.secret is the same as on the source" in warning
    assert name.split("/")[1] in warning
    assert secret.read_text() == "s"


def test_a_key_that_nothing_needs_is_made_again(tmp_path: Path) -> None:
    secret = tmp_path / "var/lib/systemd/credential.secret"
    for path, text in ((secret, "s"), (tmp_path / "etc/systemd/system/a.service", "[Service]\nLoadCredential=p\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert forget_seeds(tmp_path) == (("/var/lib/systemd/credential.secret",), "")
    assert not secret.exists()
