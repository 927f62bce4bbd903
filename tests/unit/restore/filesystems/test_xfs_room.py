"""The least size of a fresh XFS: enough, and enough at every larger size, too."""

from hypothesis import given
from hypothesis import strategies as st

from core.units import MIB
from restore.filesystems.xfs_room import least_size, usable

_BLOCKS = st.sampled_from([512, 1024, 4096, 65536])


@given(st.integers(0, 1 << 45), st.integers(0, 1 << 45), _BLOCKS)
def test_from_the_least_size_on_there_is_room(content: int, more: int, block_size: int) -> None:
    least = least_size(content, block_size)
    assert least % MIB == 0
    assert usable(least + more, block_size) >= content


@given(st.integers(0, 1 << 45), _BLOCKS)
def test_one_step_less_is_too_little_somewhere(content: int, block_size: int) -> None:
    """The one step less, or the 300 MiB at which the log becomes larger; mkfs.xfs makes none below 16 MiB."""
    least = least_size(content, block_size)
    smaller = least - MIB
    assert least == 16 * MIB or min(usable(size, block_size) for size in (smaller, max(smaller, 300 * MIB))) < content
