"""DER: names of certificates that cryptography makes, and of those that it refuses and firmware keeps; damage."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from core.errors import DamagedError
from images.der import certificate_subject

_NAME = "Test CA"


@pytest.fixture(scope="module")
def certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    first, last = datetime.datetime(2020, 1, 1), datetime.datetime(2040, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(first).not_valid_after(last)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def renamed(certificate: bytes, tag: int, name: bytes) -> bytes:
    """Another subject of the same length; the signature is not of it, which nobody asks here."""
    at = certificate.rindex(b"\x0c\x07" + _NAME.encode())
    assert len(name) == len(_NAME)
    return certificate[:at] + bytes((tag, len(name))) + name + certificate[at + 2 + len(name) :]


def test_the_subject_is_that_of_the_library(certificate: bytes) -> None:
    (found,) = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert certificate_subject(certificate, name="x") == found.value == _NAME


@pytest.mark.parametrize(
    ("tag", "name", "shown"),
    [(0x13, b"Test*CA", "Test*CA"), (0x14, b"T\xe9st CA", "T\u00e9st CA"), (0x0C, b"T\xe9st CA", "T\ufffdst CA")],
)
def test_what_the_library_refuses_has_a_name_all_the_same(
    tag: int, name: bytes, shown: str, certificate: bytes
) -> None:
    changed = renamed(certificate, tag, name)
    with pytest.raises(ValueError, match="InvalidValue"):
        assert x509.load_der_x509_certificate(changed).subject.rfc4514_string()
    assert certificate_subject(changed, name="x") == shown


def test_what_steers_a_terminal_is_left_out(certificate: bytes) -> None:
    assert certificate_subject(renamed(certificate, 0x0C, b"A\x1b[31mB"), name="x") == "A[31mB"


def test_no_cut_certificate_is_read_beyond_its_end(certificate: bytes) -> None:
    for length in range(len(certificate)):
        with pytest.raises(DamagedError, match=r"^cut: at byte \d+ of its DER"):
            certificate_subject(certificate[:length], name="cut")
