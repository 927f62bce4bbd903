"""The bill of materials of a medium, as CycloneDX 1.5 JSON: Debian packages, Python packages, liferaft, files.

Equal media give equal documents: the serial number follows from the content. Specification: ECMA-424 (CycloneDX),
package URLs as in the purl specification's types ``deb`` and ``pypi``.
"""

import json
import re
import uuid
from collections.abc import Iterator
from urllib.parse import quote

from builder.document import MediumDocument
from builder.finished.opened import OpenedMedium
from core.errors import DamagedError, RefusedError

#: Of the serial numbers: any fixed UUID does (RFC 9562, 6.6).
_NAMESPACE = uuid.UUID("5b4c1b1e-5b0e-4a86-9a54-0b2f5b8d7d10")
_PACKAGES, _PYTHON = "liferaft/packages.txt", "liferaft/python.txt"
_NORMAL = re.compile(r"[-_.]+")


def bill_of_materials(medium: OpenedMedium) -> bytes:
    """The document.

    Raises:
        RefusedError: the medium is from before media described themselves.
        DamagedError: a list of packages is not as liferaft writes it.
    """
    document = medium.document
    if document is None:
        raise RefusedError(
            f"{medium.name} does not say what it was built from.", hint="Build it again with this liferaft."
        )
    components = [*_debian(medium, document), *_python(medium), _kernel(document)]
    content: dict[str, object] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": document.built.isoformat().replace("+00:00", "Z"),
            "tools": {"components": [{"type": "application", "name": "liferaft", "version": document.liferaft}]},
            "component": {
                "type": "operating-system",
                "bom-ref": "medium",
                "name": "liferaft rescue medium",
                "version": document.medium_id,
                "description": f"Debian {document.release} {document.architecture}, kernel {document.kernel}",
            },
        },
        "components": [*components, *_files(document)],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(content, sort_keys=True))
    content["serialNumber"] = f"urn:uuid:{serial}"
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _debian(medium: OpenedMedium, document: MediumDocument) -> Iterator[dict[str, object]]:
    """A line of packages.txt: name, version, and since liferaft 0.1 architecture and source package."""
    for fields in _table(medium, _PACKAGES, (2, 4)):
        name, version = fields[0], fields[1]
        architecture = fields[2] if len(fields) > 2 else document.architecture
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={architecture}&distro={document.release}"
        component: dict[str, object] = {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
        }
        if len(fields) > 3:
            component["properties"] = [{"name": "debian:source", "value": fields[3]}]
        yield component


def _python(medium: OpenedMedium) -> Iterator[dict[str, object]]:
    if not medium.has(_PYTHON):
        return
    for name, version in _table(medium, _PYTHON, (2,)):
        # purl, type pypi: lower case, and what PEP 503 takes for equal becomes a hyphen.
        purl = f"pkg:pypi/{_NORMAL.sub('-', name).lower()}@{quote(version, safe='')}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _kernel(document: MediumDocument) -> dict[str, object]:
    return {"type": "application", "bom-ref": "kernel", "name": "linux", "version": document.kernel}


def _files(document: MediumDocument) -> Iterator[dict[str, object]]:
    for file in document.files:
        yield {
            "type": "file",
            "bom-ref": f"file:{file.path}",
            "name": file.path,
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        }


def _table(medium: OpenedMedium, path: str, widths: tuple[int, ...]) -> Iterator[list[str]]:
    for number, line in enumerate(medium.read(path).decode(errors="replace").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) not in widths or not all(fields[:2]):
            raise DamagedError(
                f"{medium.name}: {path}, line {number}: expected {' or '.join(map(str, widths))} fields, "
                f"found {line[:80]!r}."
            )
        yield fields
