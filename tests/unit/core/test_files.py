import re
from pathlib import Path

import pytest

from core.errors import UsageError
from core.files import read_small


def test_a_small_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "note"
    for size in (0, 1, 1024):
        path.write_bytes(b"x" * size)
        assert read_small(path, f"The note {path}", 1024) == b"x" * size
    path.write_bytes(b"x" * 1025)
    with pytest.raises(UsageError, match=rf"^The note {re.escape(str(path))} has more than 1\.00 KiB: ") as caught:
        read_small(path, f"The note {path}", 1024, hint="A note is short.")
    assert caught.value.hint == "A note is short."


def test_what_does_not_end_is_read_no_further_than_its_limit() -> None:
    with pytest.raises(UsageError, match="has more than"):
        read_small(Path("/dev/zero"), "It", 1 << 20)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(UsageError) as caught:
            read_small(path, f"The note {path}", 1024, hint="Write one.")
        assert caught.value.message == f"The note {path} cannot be read: {reason}."
        assert caught.value.hint == "Write one."
