"""Headers of LUKS, against cryptsetup's own words about the same file."""

import json
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.sources import BytesSource
from images.stack.luks import read_header

SHARED = Path("/work/shared/data/util-linux+util-linux/tests")
CHEAP = ["--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]


def formatted(folder: Path, *words: str) -> Path:
    """A file that cryptsetup formatted."""
    if shutil.which("cryptsetup", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("cryptsetup is not installed")
    path, key = folder / "volume", folder / "key"
    key.write_bytes(b"a key of the test")
    with path.open("wb") as stream:
        stream.truncate(20 << 20)
    subprocess.run(
        ["/usr/sbin/cryptsetup", "luksFormat", *CHEAP, *words, "--key-file", str(key), str(path)], check=True
    )
    return path


def dumped(path: Path) -> dict[str, str]:
    """cryptsetup's words."""
    done = subprocess.run(["/usr/sbin/cryptsetup", "luksDump", str(path)], check=True, capture_output=True, text=True)
    pairs = (line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def test_luks1(tmp_path: Path) -> None:
    path = formatted(tmp_path, "--type", "luks1")
    told, found = dumped(path), read_header(BytesSource(path.read_bytes()))
    assert found is not None
    assert (found.version, found.uuid, found.oddity) == (1, told["UUID"], "")
    assert found.payload_offset == int(told["Payload offset"]) * 512


def test_luks2_and_what_keeps_it_from_being_followed(tmp_path: Path) -> None:
    path = formatted(tmp_path, "--type", "luks2", "--sector-size", "4096", "--label", "the label")
    done = subprocess.run(
        ["/usr/sbin/cryptsetup", "luksDump", "--dump-json-metadata", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    segment = json.loads(done.stdout)["segments"]["0"]
    content = bytearray(path.read_bytes())
    found = read_header(BytesSource(bytes(content)))
    assert found is not None
    assert (found.version, found.uuid, found.label) == (2, dumped(path)["UUID"], "the label")
    assert (found.payload_offset, found.sector_size) == (int(segment["offset"]), segment["sector_size"])
    assert (found.size, found.oddity) == (0, "")

    second = bytearray(content)
    second[16384 + 5000] ^= 1  # in the JSON of the second copy, behind 16 KiB of the first
    damaged = read_header(BytesSource(bytes(second)))
    assert damaged is not None
    assert damaged.oddity == "the two copies of its header differ"

    content[5000] ^= 1
    assert read_header(BytesSource(bytes(content))) is None


def test_a_container_being_encrypted_anew_is_not_followed(tmp_path: Path) -> None:
    path = formatted(tmp_path, "--type", "luks2")
    key = str(tmp_path / "key")
    words = ["reencrypt", "--init-only", "--resilience", "checksum", *CHEAP[:1], "--key-file", key, str(path)]
    done = subprocess.run(["/usr/sbin/cryptsetup", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cryptsetup cannot begin to encrypt anew here: {done.stderr.strip()}")
    found = read_header(BytesSource(path.read_bytes()))
    assert found is not None
    assert found.oddity


def test_an_image_of_util_linux() -> None:
    image = SHARED / "ts/blkid/images-fs/luks1.img.xz"
    if not image.exists():
        pytest.skip(f"{image} is not here")
    told = (SHARED / "expected/blkid/low-probe-luks1").read_text()
    found = read_header(BytesSource(lzma.decompress(image.read_bytes())))
    assert found is not None
    assert f"ID_FS_UUID={found.uuid}\n" in told


@given(st.binary(max_size=600), st.sampled_from([1, 2]))
def test_any_bytes_are_read_or_refused(rest: bytes, version: int) -> None:
    content = (b"LUKS\xba\xbe" + version.to_bytes(2, "big") + rest).ljust(20480, b"\0")
    found = read_header(BytesSource(content))
    assert found is None or found.version == version
