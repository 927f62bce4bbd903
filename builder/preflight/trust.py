"""Whether a machine's firmware starts a medium under Secure Boot, and shim what comes after it.

The rules are EDK2's (SecurityPkg DxeImageVerificationLib) for shim, and shim's own (shim.c, sbat.c, its SBAT.md) for
GRUB and the kernel. Firmware differs in details; this is what the reference does.
"""

from collections.abc import Iterable, Iterator

import msgspec
from cryptography import x509

from builder.finished.signatures import (
    Program,
    Signature,
    fingerprint,
    load_certificate,
    parse_sbat,
    tbs_digest,
    vouches,
)
from builder.preflight.findings import Finding, FindingKind, Severity
from builder.preflight.medium import StartChain
from core.errors import DamagedError
from images.model.machine import Firmware, Machine, SecureBoot
from images.model.trust import FirmwareTrust, SignatureDatabase

_SWITCH_OFF = "switch Secure Boot off in the firmware's setup while restoring"
_NEWER = "Build the medium anew with today's shim and GRUB (liferaft build)"
_UPDATE_DB = (
    "Allow the missing certificate in the firmware's setup (often as Microsoft's third-party or UEFI CA), or get it "
    "with a firmware update"
)


class _Anchors(msgspec.Struct, frozen=True):
    """What may be trusted: certificates and digests of programs."""

    certificates: tuple[x509.Certificate, ...]
    images: frozenset[str]


def trust_findings(machine: Machine, chain: StartChain) -> Iterator[Finding]:
    """Every reason why Secure Boot stops this medium on this machine.

    Nothing is said of a machine that started by BIOS or has Secure Boot off.
    """
    if machine.firmware is not Firmware.UEFI or machine.secure_boot is SecureBoot.DISABLED:
        return
    if chain.problem:
        yield _unknown(f"What Secure Boot would say of this medium is not known: {chain.problem}")
        return
    if machine.secure_boot is SecureBoot.UNKNOWN:
        yield _unknown("Whether Secure Boot is on is not known.")
    if machine.trust is None:
        yield _unknown("The document does not say what the machine's firmware trusts.")
        return
    for reason in machine.trust.unreadable:
        yield _unknown(f"What the machine's firmware trusts is known in part only: {reason}")
    # Not known to be on: a warning is all it can be.
    worst = Severity.BLOCKS if machine.secure_boot is SecureBoot.ENABLED else Severity.WARNING
    yield from _judge(machine.trust, chain, worst)


def _judge(trust: FirmwareTrust, chain: StartChain, worst: Severity) -> Iterator[Finding]:
    shim, rest = chain.programs[0], chain.programs[1:]
    try:
        allowed = _anchors(trust.allowed, "db")
        own = [_anchors(shim.vendor[0], "shim")] if shim.vendor else []
        owner = _anchors(trust.machine_owner, "MokListRT")
    except DamagedError as error:
        yield _unknown(error.message)
        return
    refused = [trust.forbidden, *([shim.vendor[1]] if shim.vendor else [])]
    yield from _untrusted(shim, (allowed,), "the firmware", worst)
    yield from _revoked(shim, (trust.forbidden,), worst)
    for program in rest:
        yield from _untrusted(program, (allowed, owner, *own), "shim", worst)
        yield from _revoked(program, refused, worst)
    for program in chain.programs:
        yield from _too_old(program, trust.sbat_level, worst)


def _anchors(database: SignatureDatabase, name: str) -> _Anchors:
    certificates = tuple(load_certificate(one.der, name=name) for one in database.certificates)
    return _Anchors(certificates, frozenset(database.images))


def _untrusted(program: Program, trusted: Iterable[_Anchors], who: str, worst: Severity) -> Iterator[Finding]:
    anchors = tuple(trusted)
    if any(program.digest in one.images for one in anchors):
        return
    if not any(signature.intact for signature in program.signatures):
        what = "has no signature" if not program.signatures else "was changed after it was signed"
        yield _finding(FindingKind.SIGNATURE, worst, f"{program.name} on the medium {what}.", _NEWER)
        return
    certificates = [certificate for one in anchors for certificate in one.certificates]
    if any(_leads_to(signature, certificates) for signature in program.signatures if signature.intact):
        return
    signers = " and ".join(dict.fromkeys(f"{signature.authority}" for signature in program.signatures))
    yield _finding(
        FindingKind.SIGNATURE,
        worst,
        f"{program.name} is signed under {signers}; {who} trusts {_names(certificates)}.",
        f"{_UPDATE_DB}, or {_SWITCH_OFF}.",
    )


def _leads_to(signature: Signature, trusted: Iterable[x509.Certificate]) -> bool:
    """Any certificate of the chain may be trusted itself, or the last one's issuer."""
    anchors = tuple(trusted)
    known = {fingerprint(anchor) for anchor in anchors}
    if any(fingerprint(certificate) in known for certificate in signature.chain):
        return True
    return any(
        anchor.subject == certificate.issuer and vouches(anchor, certificate)
        for certificate in signature.chain
        for anchor in anchors
    )


def _revoked(program: Program, lists: Iterable[SignatureDatabase], worst: Severity) -> Iterator[Finding]:
    """A digest in ``dbx``, or a signer in it: EDK2 then refuses the program, whoever else signed it."""
    for database in lists:
        if program.digest in database.images:
            message = f"{program.name} on the medium is revoked: its digest is in the machine's dbx."
            yield _finding(FindingKind.REVOKED, worst, message, f"{_NEWER}, or {_SWITCH_OFF}.")
        whole = {certificate.sha256 for certificate in database.certificates}
        digests = set(database.certificate_digests)
        for signature in program.signatures:
            for certificate in signature.chain:
                if fingerprint(certificate) in whole or tbs_digest(certificate) in digests:
                    message = f"{program.name} on the medium is signed under {signature.authority}, which is revoked."
                    yield _finding(FindingKind.REVOKED, worst, message, f"{_NEWER}, or {_SWITCH_OFF}.")
                    break


def _too_old(program: Program, level: str, worst: Severity) -> Iterator[Finding]:
    """Each component has to have the generation that the machine asks for (shim's SBAT.md)."""
    try:
        wanted = {entry.component: entry.generation for entry in parse_sbat(level, name="SbatLevelRT")}
    except DamagedError as error:
        yield _unknown(error.message)
        return
    for entry in program.sbat:
        least = wanted.get(entry.component, 0)
        if entry.generation < least:
            message = (
                f"{program.name} on the medium is too old for this machine: its SBAT level asks for "
                f"{entry.component} {least}, the medium has {entry.component} {entry.generation}."
            )
            yield _finding(FindingKind.SBAT, worst, message, f"{_NEWER}, or {_SWITCH_OFF}.")


def _finding(kind: FindingKind, severity: Severity, message: str, remedy: str) -> Finding:
    return Finding(kind=kind, severity=severity, message=message, remedy=remedy)


def _unknown(message: str) -> Finding:
    remedy = "Look at the machine again with this liferaft, as root: liferaft probe --json > machine.json."
    return _finding(FindingKind.UNKNOWN, Severity.WARNING, message, remedy)


def _names(certificates: Iterable[x509.Certificate]) -> str:
    from_names = [certificate.subject.rfc4514_string() for certificate in certificates]
    short = [next((part[3:] for part in name.split(",") if part.startswith("CN=")), name) for name in from_names]
    return ", ".join(dict.fromkeys(short)) or "no certificate"
