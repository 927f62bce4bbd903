"""What a machine's firmware trusts and refuses under Secure Boot: the nouns, as the machine document keeps them."""

import msgspec


class TrustedCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate in a signature database.

    Attributes:
        subject: its common name.
        sha256: of its DER bytes, hexadecimal.
        der: the certificate itself, so that what it signed can be checked later and elsewhere.
    """

    subject: str
    sha256: str
    der: bytes


class SignatureDatabase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of ``db`` or ``dbx`` (UEFI 2.10 32.4.1).

    Attributes:
        certificates: whole certificates.
        images: Authenticode SHA-256 digests of programs, hexadecimal.
        certificate_digests: SHA-256 of certificates' to-be-signed parts, hexadecimal.
        unread: how many signatures of kinds that mean nothing to liferaft (SHA-1, RSA keys …).
    """

    certificates: tuple[TrustedCertificate, ...] = ()
    images: tuple[str, ...] = ()
    certificate_digests: tuple[str, ...] = ()
    unread: int = 0


class FirmwareTrust(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the firmware allows to start.

    Attributes:
        allowed: ``db``. forbidden: ``dbx``.
        machine_owner: keys that shim trusts because the owner of the machine enrolled them (``MokListRT``).
        sbat_level: the least generations that shim lets start, as ``component,generation`` lines (``SbatLevelRT``).
            Empty where no shim has left one.
        setup_mode: no platform key is enrolled: keys can be written freely, and nothing is enforced.
        unreadable: variables that are there and make no sense, with the reason.
    """

    allowed: SignatureDatabase = SignatureDatabase()
    forbidden: SignatureDatabase = SignatureDatabase()
    machine_owner: SignatureDatabase = SignatureDatabase()
    sbat_level: str = ""
    setup_mode: bool = False
    unreadable: tuple[str, ...] = ()
