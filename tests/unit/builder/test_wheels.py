"""Which wheels a medium's Python takes: the tags of PEP 600, and what the metadata of a built one asks for."""

import zipfile
from pathlib import Path

from builder.architecture import Architecture, traits_of
from builder.wheels import required_by

#: Core metadata specifications, "Requires-Dist"; environment markers: PEP 508.
_METADATA = (
    "Metadata-Version: 2.1\nName: thing\nVersion: 1\nRequires-Dist: pyutil>=3.0.0\n"
    "Requires-Dist: tox; extra == 'test'\nRequires-Dist: other (>=2)\n\nRequires-Dist: of-the-description\n"
)


def test_a_compiled_package_brings_what_it_requires_and_no_extras(tmp_path: Path) -> None:
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/METADATA", "Requires-Dist: not-this\n")
        archive.writestr("thing-1.dist-info/METADATA", _METADATA)
    assert required_by(wheel) == ("pyutil>=3.0.0", "other (>=2)")


def test_wheels_of_another_processor_or_a_newer_glibc_are_not_taken() -> None:
    """Debian 13 has glibc 2.41; a wheel for 2.N runs where glibc is at least that (PEP 600)."""
    for architecture in Architecture:
        traits = traits_of(architecture)
        for platform in traits.platforms:
            assert platform.endswith(f"_{traits.machine}")
        assert all(minor <= 41 for minor in traits.glibc)
        assert traits.glibc == tuple(sorted(traits.glibc, reverse=True))
