"""Certificates of a site's own authorities, read from files before they are put on the medium.

PEM with one or many, or DER with one. Private keys that lie in the same file are refused, not left out in silence.
"""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from core.errors import UsageError
from core.files import read_small
from core.units import MIB

_LIMIT = 16 * MIB
_HINT = "Export the authority's certificate as PEM (-----BEGIN CERTIFICATE-----)."


def read_certificates(named: str, place: str) -> bytes:
    """All certificates of a file, as PEM.

    Args:
        place: what an error calls the field that names the file.

    Raises:
        UsageError: it cannot be read, holds no certificate, one that is expired, or a private key.
    """
    path = Path(named)
    content = read_small(path, f"{place}: the file {path}", _LIMIT, hint=_HINT)
    if b"PRIVATE KEY" in content:
        raise UsageError(f"{place}: {path} holds a private key, which must not lie on a medium.", hint=_HINT)
    try:
        found = (
            x509.load_pem_x509_certificates(content)
            if b"-----BEGIN" in content
            else [x509.load_der_x509_certificate(content)]
        )
    except ValueError as error:
        raise UsageError(f"{place}: {path} is not a certificate: {error}.", hint=_HINT) from None
    now = datetime.datetime.now(datetime.UTC)
    for certificate in found:
        if certificate.not_valid_after_utc < now:
            day = certificate.not_valid_after_utc.date()
            raise UsageError(
                f"{place}: the certificate of {certificate.subject.rfc4514_string()} in {path} expired on {day}.",
                hint="Nothing that it signed would be trusted; take the new one.",
            )
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in found)


def doubts(certificates: bytes) -> tuple[str, ...]:
    """A sentence for each authority that Python's libraries will not trust, though curl does.

    Since 3.13 Python checks as RFC 5280, section 4.2.1.3 asks: an authority says what its key may be used for
    (``ssl.VERIFY_X509_STRICT``).
    """
    found = []
    for certificate in x509.load_pem_x509_certificates(certificates):
        held = {extension.oid for extension in certificate.extensions}
        if ExtensionOID.BASIC_CONSTRAINTS in held and ExtensionOID.KEY_USAGE not in held:
            found.append(
                f"The certificate of {certificate.subject.rfc4514_string()} has no key usage extension: curl and s3:// "
                "repositories will trust it, https:// repositories will not."
            )
    return tuple(found)
