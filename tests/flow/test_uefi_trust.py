"""Who signed Debian's shim and GRUB, and which firmware starts them. Witnesses: sbsigntool, openssl, efitools."""

import hashlib
import re
import struct
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from builder.finished.signatures import Program, SbatEntry, load_certificate, read_program
from builder.preflight.findings import Finding, FindingKind, Severity
from builder.preflight.medium import StartChain
from builder.preflight.trust import trust_findings
from core.errors import DamagedError
from images.efi_signatures import parse_signature_lists
from images.model.machine import Machine, SecureBoot
from images.model.trust import FirmwareTrust, SignatureDatabase
from images.probe_hardware import read_trust
from tests.flow.disks import need, run
from tests.samples import sample_machine

SHIM = Path("/usr/lib/shim/shimx64.efi.signed")
SHIM_UNSIGNED = Path("/usr/lib/shim/shimx64.efi")
GRUB = Path("/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed")
OWNER = "77fa9abd-0359-4d32-bd60-28f4e78f784b"
#: UEFI 2.10 32.4.1.
IMAGE_SHA256 = UUID("c1c41626-504c-4092-aca9-41f936934328")
X509_SHA256 = UUID("3bd2a492-96c0-4079-b420-fcf98ef103ed")
UEFI_2011, UEFI_2023 = "Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023"


class Authority(msgspec.Struct):
    """A certificate of a signature: PEM for openssl, as a signature list of efitools for firmware."""

    pem: Path
    der: bytes
    lists: bytes


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    if not all(path.is_file() for path in (SHIM, SHIM_UNSIGNED, GRUB)):
        need("shim-signed, shim-unsigned and grub-efi-amd64-signed")


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Authority]:
    """The certificates in shim's and GRUB's signatures, by common name, taken out by sbattach and openssl."""
    need("sbattach", "sbverify", "openssl", "cert-to-efi-sig-list", "hash-to-efi-sig-list")
    folder = tmp_path_factory.mktemp("authorities")
    found = {}
    for number, (program, signature) in enumerate(((SHIM, 1), (SHIM, 2))):
        message = folder / f"{number}.p7"
        copy = folder / "copy.efi"
        copy.write_bytes(program.read_bytes())
        run("sbattach", "--detach", message, "--signum", str(signature), copy, success=(0, 1))
        if not message.exists():
            continue
        text = run("openssl", "pkcs7", "-inform", "DER", "-in", message, "-print_certs")
        for match in re.finditer(
            r"subject=.*?CN ?= ?(?P<name>[^\n]+?)\n.*?(?P<pem>-----BEGIN.*?END CERTIFICATE-----\n)", text, re.DOTALL
        ):
            found[match["name"]] = _authority(folder, match["name"], match["pem"])
    return found


def _authority(folder: Path, name: str, pem: str) -> Authority:
    path = folder / f"{name}.pem"
    path.write_text(pem)
    run("cert-to-efi-sig-list", "-g", OWNER, path, path.with_suffix(".esl"))
    run("openssl", "x509", "-in", path, "-outform", "DER", "-out", path.with_suffix(".der"))
    return Authority(path, path.with_suffix(".der").read_bytes(), path.with_suffix(".esl").read_bytes())


@pytest.fixture(scope="session")
def chain() -> StartChain:
    return StartChain((read_program(SHIM.read_bytes(), name="shim"), read_program(GRUB.read_bytes(), name="GRUB")))


def signature_list(kind: UUID, *data: bytes) -> bytes:
    """EFI_SIGNATURE_LIST as UEFI 2.10 32.4.1 has it."""
    size = 16 + len(data[0])
    head = struct.pack("<16sIII", kind.bytes_le, 28 + size * len(data), 0, size)
    return head + b"".join(UUID(OWNER).bytes_le + one for one in data)


def machine(trust: FirmwareTrust | None, secure_boot: SecureBoot = SecureBoot.ENABLED) -> Machine:
    return sample_machine(secure_boot=secure_boot, trust=trust)


def database(*lists: bytes) -> SignatureDatabase:
    return parse_signature_lists(b"".join(lists), name="db")


def findings(chain: StartChain, **trust: object) -> list[Finding]:
    return list(trust_findings(machine(FirmwareTrust(**trust)), chain))  # type: ignore[arg-type]


def only_first_signature(tmp_path: Path) -> Program:
    copy = tmp_path / "shim.efi"
    copy.write_bytes(SHIM.read_bytes())
    run("sbattach", "--remove", "--signum", "2", copy)
    return read_program(copy.read_bytes(), name="shim")


@pytest.mark.parametrize(("program", "plain"), [(SHIM, SHIM_UNSIGNED)])
def test_the_digest_is_the_one_that_efitools_computes(program: Path, plain: Path, tmp_path: Path) -> None:
    """efitools does not read files with two signatures: it is given shim as it was before it was signed."""
    need("hash-to-efi-sig-list")
    said = run("hash-to-efi-sig-list", plain, tmp_path / "out.esl")
    read = read_program(program.read_bytes(), name="shim")
    assert f"HASH IS {read.digest}" in said
    assert parse_signature_lists((tmp_path / "out.esl").read_bytes(), name="dbx").images == (read.digest,)


@pytest.mark.parametrize("program", [SHIM, GRUB])
def test_signers_are_those_that_sbverify_lists(program: Path) -> None:
    need("sbverify")
    said = run("sbverify", "--list", program)
    signers = re.findall(r"^image signature issuers:\n - (?:.*/)?CN=(.+)$", said, re.MULTILINE)
    read = read_program(program.read_bytes(), name="it")
    assert signers and [signature.authority for signature in read.signatures] == signers
    assert all(signature.intact for signature in read.signatures)


def test_sbat_is_what_objcopy_finds(chain: StartChain, tmp_path: Path) -> None:
    need("objcopy")
    run("objcopy", "-O", "binary", "--only-section=.sbat", GRUB, tmp_path / "sbat")
    lines = (tmp_path / "sbat").read_bytes().rstrip(b"\0").decode().splitlines()
    assert [(entry.component, str(entry.generation)) for entry in chain.programs[1].sbat] == [
        tuple(line.split(",")[:2]) for line in lines
    ]


@pytest.mark.parametrize("place", ["code", "signature"])
def test_a_changed_program_is_no_longer_signed(place: str) -> None:
    content = bytearray(GRUB.read_bytes())
    content[0x1000 if place == "code" else len(content) - 200] ^= 1
    # The signature's end is the signer's own; what is changed there does not verify, either.
    assert [signature.intact for signature in read_program(bytes(content), name="GRUB").signatures] == [False]


def test_firmware_that_trusts_the_signer_has_nothing_against_it(
    chain: StartChain, authorities: dict[str, Authority]
) -> None:
    for name in {UEFI_2011, UEFI_2023} & set(authorities):
        assert findings(chain, allowed=database(authorities[name].lists)) == []
    assert UEFI_2011 in authorities or UEFI_2023 in authorities


def test_firmware_that_trusts_only_another_authority(
    chain: StartChain, authorities: dict[str, Authority], tmp_path: Path
) -> None:
    """A new machine whose db has the CA of 2023 only, and a shim that is signed under that of 2011 only."""
    if not {UEFI_2011, UEFI_2023} <= set(authorities):
        pytest.skip("this host's shim is not signed under both")
    old = StartChain((only_first_signature(tmp_path), chain.programs[1]))
    assert UEFI_2023 not in run("sbverify", "--list", tmp_path / "shim.efi")
    assert findings(old, allowed=database(authorities[UEFI_2011].lists)) == []
    [found] = findings(old, allowed=database(authorities[UEFI_2023].lists))
    assert (found.kind, found.severity) == (FindingKind.SIGNATURE, Severity.BLOCKS)
    assert found.message == f"shim is signed under {UEFI_2011}; the firmware trusts {UEFI_2023}."
    assert "Secure Boot off" in found.remedy


def test_an_unknown_signer_of_grub_is_trusted_through_the_owners_key(
    chain: StartChain, authorities: dict[str, Authority], tmp_path: Path
) -> None:
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=A site/"),
        *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "own.pem", "-days", "30"),
    )
    run(
        "sbsign",
        "--key",
        tmp_path / "key.pem",
        "--cert",
        tmp_path / "own.pem",
        "--output",
        tmp_path / "g",
        SHIM_UNSIGNED,
    )
    grub = read_program((tmp_path / "g").read_bytes(), name="GRUB")
    own = StartChain((chain.programs[0], grub))
    db = database(*(one.lists for one in authorities.values()))
    [found] = findings(own, allowed=db)
    assert found.message.startswith("GRUB is signed under A site; shim trusts ")
    site = _authority(tmp_path, "own", (tmp_path / "own.pem").read_text())
    assert findings(own, allowed=db, machine_owner=database(site.lists)) == []


@pytest.mark.parametrize("by", ["digest", "certificate", "certificate digest"])
def test_revoked(by: str, chain: StartChain, authorities: dict[str, Authority]) -> None:
    everything = database(*(one.lists for one in authorities.values()))
    name = next(iter({UEFI_2011, UEFI_2023} & set(authorities)))
    match by:
        case "digest":
            refused = signature_list(IMAGE_SHA256, bytes(32), bytes.fromhex(chain.programs[0].digest))
        case "certificate":
            refused = authorities[name].lists
        case _:
            # The first element of a certificate is what is signed (RFC 5280 4.1): openssl cuts it out.
            tbs = authorities[name].pem.with_suffix(".tbs")
            run("openssl", "asn1parse", "-in", authorities[name].pem, "-strparse", "4", "-noout", "-out", tbs)
            refused = signature_list(X509_SHA256, hashlib.sha256(tbs.read_bytes()).digest() + bytes(16))
    [found] = findings(chain, allowed=everything, forbidden=parse_signature_lists(refused, name="dbx"))
    assert (found.kind, found.severity) == (FindingKind.REVOKED, Severity.BLOCKS)
    assert found.message.startswith("shim on the medium is ")


def test_sbat_level(chain: StartChain, authorities: dict[str, Authority]) -> None:
    db = database(*(one.lists for one in authorities.values()))
    grub = dict(msgspec.structs.astuple(entry) for entry in chain.programs[1].sbat)["grub"]
    assert findings(chain, allowed=db, sbat_level=f"sbat,1,2024010900\nshim,1\ngrub,{grub}\n") == []
    [found] = findings(chain, allowed=db, sbat_level=f"sbat,1,2030010100\ngrub,{grub + 1}\ngrub.peimage,9\n")
    assert (found.kind, found.severity) == (FindingKind.SBAT, Severity.BLOCKS)
    assert f"asks for grub {grub + 1}, the medium has grub {grub}" in found.message


def test_nothing_is_judged_without_secure_boot(chain: StartChain) -> None:
    assert list(trust_findings(machine(FirmwareTrust(), SecureBoot.DISABLED), chain)) == []


@pytest.mark.parametrize("known", [True, False])
def test_what_is_not_known_is_said(known: bool, chain: StartChain) -> None:
    trust = FirmwareTrust(unreadable=("db: nonsense.",)) if known else None
    found = list(trust_findings(machine(trust), chain))
    assert FindingKind.UNKNOWN in {one.kind for one in found}


def test_the_variables_of_a_machine(authorities: dict[str, Authority], tmp_path: Path) -> None:
    """efivarfs: four bytes of attributes, then what SetVariable was given."""
    folder = tmp_path / "sys/firmware/efi/efivars"
    folder.mkdir(parents=True)
    security, shim = "d719b2cb-3d3a-4596-a3bc-dad00e67656f", "605dab50-e046-4300-abb6-3dd810dd8b23"
    lists = b"".join(one.lists for one in authorities.values())
    contents = {
        f"db-{security}": lists,
        f"dbx-{security}": signature_list(IMAGE_SHA256, bytes(32)),
        f"SbatLevelRT-{shim}": b"sbat,1,2024010900\nshim,4\n",
        "SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c": b"\0",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(b"\x27\0\0\0" + content)
    trust = read_trust(tmp_path)
    assert {one.subject: one.der for one in trust.allowed.certificates} == {
        name: one.der for name, one in authorities.items()
    }
    assert trust.forbidden.images == ("00" * 32,)
    assert (trust.sbat_level, trust.setup_mode, trust.unreadable) == ("sbat,1,2024010900\nshim,4\n", False, ())
    (folder / f"db-{security}").write_bytes(b"\x27\0\0\0" + lists[:-9])
    assert read_trust(tmp_path).unreadable[0].startswith("db: at byte ")


@pytest.mark.parametrize("cut", [20, 27, 60, 900])
def test_lists_that_are_cut_short(cut: int, authorities: dict[str, Authority]) -> None:
    whole = next(iter(authorities.values())).lists
    with pytest.raises(DamagedError, match="db: at byte 0"):
        parse_signature_lists(whole[:cut], name="db")


def test_programs_that_are_cut_or_changed_anywhere_are_errors_at_most() -> None:
    whole = GRUB.read_bytes()
    for end in (0, 1, 63, 64, 200, 400, 4096, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DamagedError):
            read_program(whole[:end], name="GRUB")
    table = len(whole) - 2048
    for offset in (*range(0, 1024, 7), *range(table, len(whole), 13)):
        changed = bytearray(whole)
        changed[offset] ^= 0xFF
        try:
            read_program(bytes(changed), name="GRUB")
        except DamagedError as error:
            assert "GRUB" in error.message


def test_a_certificate_of_another_version_is_an_error(authorities: dict[str, Authority]) -> None:
    """[0] EXPLICIT Version (RFC 5280 4.1) is the first field: 127 is none that exists."""
    der = bytearray(next(iter(authorities.values())).der)
    place = bytes(der).index(bytes.fromhex("a003020102"))
    der[place + 4] = 0x7F
    with pytest.raises(DamagedError, match="A certificate in db cannot be read"):
        load_certificate(bytes(der), name="db")


def test_sbat_entries_of_shim(chain: StartChain) -> None:
    assert SbatEntry("sbat", 1) in chain.programs[0].sbat
