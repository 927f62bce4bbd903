"""Secrets in the shapes in which other programs write them; what must stay readable."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescue.jobs.redaction import GONE, redact

SECRET = "hunter2Xq9"

#: Shapes from curl(1), mount.cifs(8), wpa_supplicant.conf(5), JSON, RFC 6750 and 7617, AWS SigV4, PEM, shadow(5).
SHAPES = (
    "fetching https://user:{}@backup.example/repo",
    "https://user:pa/../ss@host/x password={}",
    "s3://AKIAIOSFODNN7EXAMPLE:{}@bucket/path",
    "BOOT_IMAGE=/vmlinuz liferaft.job=https://root:{}@10.0.2.2/job.json quiet",
    "https://bucket/x?X-Amz-Signature={}&X-Amz-Expires=60",
    "https://server/file?token={}",
    "mount.cifs //server/share /mnt -o username=me,password={},vers=3",
    "mount -o user=me,pass={} //server/share",
    'network={{ ssid="home" psk="{}" }}',
    '    psk="{} with spaces"',
    '{{"passphrase": "{}", "target": "sda"}}',
    '{{"passphrase":"with \\" a quote {}"}}',
    'MESSAGE={{\\"passphrase\\": \\"{}\\"}}',
    "passphrase: {} and more words",
    "passphrase: one, {}, three",
    "passphrase: a}} and {}",
    '{{"x": {{"y": 1}}}} passphrase: one, {}',
    "{{passphrase: {}, target: sda}}",
    "Password={}",
    "AWS_SECRET_ACCESS_KEY={}",
    "run: restic --password {} check",
    "curl --proxy-password {} http://x",
    "Authorization: Bearer {}abcdef",
    "Authorization: Basic {}abcdef==",
    "'Authorization': 'Token {}'",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz{}\n-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nnever ended {}",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{} admin@office",
    "root:$y$j9T$abc/{}:19000:0:99999:7:::",
    "PrivateKey = {}",
    "PresharedKey={}",
    "token eyJhbGciOiJIUzI1NiJ9.eyJ{}.abc-def",
    "remote: https://ghp_{}0123456789abcdef@github.com/x",
)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_goes_in_every_shape(shape: str) -> None:
    said = redact(shape.format(SECRET))
    assert SECRET not in said
    assert GONE in said


KEPT = (
    "BOOT_IMAGE=/live/vmlinuz boot=live console=ttyS0,115200n8 liferaft.job=http://10.0.2.2:8000/job.json",
    '"passphrase_file": "web.passphrase"',
    "usb 1-1: New USB device found, idVendor=0781, idProduct=5581",
    "systemd[1]: Started systemd-ask-password-console.path.",
    "run: lsblk --json --bytes --output-all",
    "EXT4-fs (sda1): mounted filesystem 5b1e9d1c-3f5a-4b5e-9b0e-2f3b7a1c4d5e ro with ordered data mode",
    "keymap=de keyboard-configuration 1.226",
    "liferaft serve at http://192.0.2.10/repo?listing=1",
    "Serial Number: S4EWNX0R123456",
)


@pytest.mark.parametrize("line", KEPT)
def test_what_helps_stays(line: str) -> None:
    assert redact(line) == line


def test_the_rest_of_a_line_stays_around_an_assignment() -> None:
    line = f"boot=live wifi.psk={SECRET} console=ttyS0 quiet"
    assert redact(line) == f"boot=live wifi.psk={GONE} console=ttyS0 quiet"


def test_a_field_between_braces_ends_where_the_next_begins() -> None:
    assert redact("{passphrase: None, target: 'sda'}") == "{passphrase: ***, target: 'sda'}"
    assert redact("passphrase: one, two\nnext: line\n") == "passphrase: ***\nnext: line\n"


def test_known_values_go_wherever_they_stand() -> None:
    assert redact("a correct horse, twice: correct horse", ["correct horse", "abc"]) == f"a {GONE}, twice: {GONE}"
    assert redact("abc", ["abc"]) == "abc", "three letters are in every word"


@given(st.text(max_size=300))
def test_lines_are_kept_and_twice_is_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


def test_a_megabyte_of_near_misses_takes_a_second_or_two() -> None:
    line = "Nov 21 09:30:00 liferaft kernel: pci 0000:00:1f.2: token ring password-less [8086:2922] type 00\n"
    words = ("a-b." * 4000 + "\n") * 8
    text = line * 10_000 + words
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 10
