"""DER, as far as certificates and signatures need it: elements with tag and content, bounds checked.

Not a decoder of ASN.1: whoever reads a structure walks its elements (X.690). Only definite lengths and tags of one
byte exist here; anything else is damage.

Why not ``cryptography`` alone, which verifies all that is verified here (``builder/finished/signatures.py``):

- its ``x509`` refuses a whole certificate for one letter (``*`` in a PrintableString, a T61String that is no UTF-8).
  Firmware asks for nothing of the kind, and trusts what it was given; a machine document must name it.
- its ``pkcs7`` gives the certificates of a signature and no more: neither the content nor the signed attributes of
  Authenticode, which are what is to be compared. Its ``hazmat.asn1``, which could, is younger than the version that
  ``pyproject.toml`` asks for.
- importing it takes 0.1 s, and every probe of a machine with UEFI reads names of certificates.
"""

from collections.abc import Iterator

import msgspec

from core.errors import DamagedError

INTEGER, OCTET_STRING, OID, SEQUENCE, SET = 0x02, 0x04, 0x06, 0x30, 0x31
#: Context tag 0, constructed and explicit: ``[0]`` of an ASN.1 module.
CONTEXT_0 = 0xA0
#: Text in names: UTF8String, PrintableString, T61String, IA5String; BMPString.
_TEXT = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}
_COMMON_NAME = bytes.fromhex("550403")
_ORGANIZATION = bytes.fromhex("55040a")


class Element(msgspec.Struct, frozen=True):
    """One element.

    Attributes:
        tag: its first byte.
        content: without tag and length.
        whole: with them, as it is hashed and signed.
    """

    tag: int
    content: bytes
    whole: bytes

    def children(self, *, name: str) -> tuple["Element", ...]:
        """What a constructed element holds.

        Raises:
            DamagedError: its content is no sequence of elements; ``name`` says of what.
        """
        return tuple(elements(self.content, name=name))


def elements(data: bytes, *, name: str) -> Iterator[Element]:
    """The elements that follow one another in ``data``.

    Raises:
        DamagedError: one reaches beyond the end, or has a form that DER does not know.
    """
    offset = 0
    while offset < len(data):
        element = element_at(data, offset, name=name)
        yield element
        offset += len(element.whole)


def element_at(data: bytes, offset: int, *, name: str) -> Element:
    """The element that begins at ``offset``; what lies behind it does not matter.

    Raises:
        DamagedError: as :func:`elements`.
    """
    if offset + 2 > len(data):
        raise _damaged(name, offset, "length", "2 bytes of tag and length", f"{len(data) - offset}")
    tag, first = data[offset], data[offset + 1]
    start, size = offset + 2, first
    if tag & 0x1F == 0x1F:
        raise _damaged(name, offset, "tag", "a tag of one byte", f"{tag:#04x}")
    if first & 0x80:
        count = first & 0x7F
        if not 1 <= count <= 4 or start + count > len(data):
            raise _damaged(name, offset, "length", "1 to 4 bytes of length", f"{first:#04x}")
        size = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + size > len(data):
        raise _damaged(name, offset, "length", f"at most {len(data) - start} bytes", f"{size}")
    return Element(tag, data[start : start + size], data[offset : start + size])


def child(parent: Element, index: int, tag: int, *, name: str) -> Element:
    """The element number ``index`` of a constructed one, which has that tag.

    Raises:
        DamagedError: there is none, or it has another tag.
    """
    found = parent.children(name=name)
    if index >= len(found) or found[index].tag != tag:
        there = f"{found[index].tag:#04x}" if index < len(found) else "nothing"
        raise _damaged(name, 0, f"element {index}", f"tag {tag:#04x}", there)
    return found[index]


def certificate_subject(certificate: bytes, *, name: str) -> str:
    """The common name of an X.509 certificate's subject (RFC 5280 4.1), or its organization when it has none.

    Raises:
        DamagedError: it is no certificate.
    """
    body = child(element_at(certificate, 0, name=name), 0, SEQUENCE, name=name)
    fields = [field for field in body.children(name=name) if field.tag != CONTEXT_0]
    # serialNumber, signature, issuer, validity, subject.
    if len(fields) < 5:
        raise _damaged(name, 0, "TBSCertificate", "5 fields or more", f"{len(fields)}")
    named = dict(_name_parts(fields[4], name))
    return named.get(_COMMON_NAME) or named.get(_ORGANIZATION) or ""


def _name_parts(subject: Element, name: str) -> Iterator[tuple[bytes, str]]:
    """The attributes of a Name: type (the bytes of its OID) and value."""
    for relative in subject.children(name=name):
        for attribute in relative.children(name=name):
            pair = attribute.children(name=name)
            if len(pair) == 2 and pair[0].tag == OID:
                text = pair[1].content.decode(_TEXT.get(pair[1].tag, "latin-1"), "replace")
                # It is shown on terminals: nothing in it may steer them.
                yield pair[0].content, "".join(sign for sign in text if sign.isprintable())


def _damaged(name: str, offset: int, field: str, expected: str, found: str) -> DamagedError:
    return DamagedError(f"{name}: at byte {offset} of its DER, {field}: expected {expected}, found {found}.")
