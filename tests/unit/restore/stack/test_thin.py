"""Fresh metadata of thin pools, against what LVM and thin_dump said of the same pool in a lab guest.

The pool was made by LVM 2.03.31 (lvcreate, its metadata extended once, one of three volumes removed); the report is
``lvs --all --segments`` of it, the table ``dmsetup table``, the document ``thin_dump -m`` before anything was written.
"""

import xml.etree.ElementTree as ElementTree
from itertools import chain

import pytest

from core.errors import DamagedError
from restore.stack.thin import mapping_table, metadata_xml, thin_pools

EXTENT_SIZE = 4 << 20
STARTS = {"/dev/vdf": 1048576}
FIELDS = ("lv_name", "segtype", "seg_start", "seg_size", "seg_pe_ranges", "pool_lv", "thin_id", "transaction_id")
FIELDS += ("chunk_size", "metadata_lv", "data_lv", "lv_size")
REPORT = """
a|linear|0|8388608|/dev/vdf:0-1||||0|||8388608
b|linear|0|12582912|/dev/vdf:19-21||||0|||12582912
[lvol0_pmspare]|linear|0|4194304|/dev/vdf:2-2||||0|||8388608
[lvol0_pmspare]|linear|4194304|4194304|/dev/vdf:23-23||||0|||8388608
pool|thin-pool|0|62914560|pool_tdata:0-14|||4|131072|[pool_tmeta]|[pool_tdata]|62914560
[pool_tdata]|linear|0|62914560|/dev/vdf:3-17||||0|||62914560
[pool_tmeta]|linear|0|4194304|/dev/vdf:18-18||||0|||8388608
[pool_tmeta]|linear|4194304|4194304|/dev/vdf:22-22||||0|||8388608
thin2|thin|0|54525952||pool|2|1|0|||54525952
thin3|thin|0|75497472||pool|3|3|0|||75497472
"""
#: dmsetup table, 254:80 being /dev/vdf.
TABLE = "0 8192 linear 254:80 149504\n8192 8192 linear 254:80 182272\n"
DUMP = """
<superblock uuid="" time="0" transaction="4" version="2" data_block_size="256" nr_data_blocks="0">
  <device dev_id="2" mapped_blocks="0" transaction="1" creation_time="0" snap_time="0">
  </device>
  <device dev_id="3" mapped_blocks="0" transaction="3" creation_time="0" snap_time="0">
  </device>
</superblock>
"""


def rows(report: str = REPORT) -> list[dict[str, str]]:
    return [dict(zip(FIELDS, line.split("|"), strict=True)) for line in report.split()]


def test_the_mapping_over_the_metadata_is_lvms_own() -> None:
    (pool,) = thin_pools(rows(), STARTS, EXTENT_SIZE)
    assert mapping_table(pool).replace("/dev/vdf", "254:80") == TABLE


def test_the_document_is_what_thin_dump_says_of_the_empty_pool() -> None:
    (pool,) = thin_pools(rows(), STARTS, EXTENT_SIZE)
    ours, theirs = ElementTree.fromstring(metadata_xml(pool)), ElementTree.fromstring(DUMP)
    # The kernel counts the blocks of the data device when it first opens the pool: 60 MiB in blocks of 128 KiB.
    assert ours.attrib.pop("nr_data_blocks") == str((60 << 20) // (128 << 10))
    del theirs.attrib["nr_data_blocks"]
    for mine, expected in zip(chain([ours], ours), chain([theirs], theirs), strict=True):
        assert (mine.tag, mine.attrib) == (expected.tag, expected.attrib)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("[pool_tmeta]|linear|0|", "[pool_tmeta]|linear|8192|"),
        ("/dev/vdf:22-22", "/dev/vdg:22-22"),
        ("[pool_tmeta]|linear|4194304", "[pool_tmeta]|raid1|4194304"),
        ("[pool_tdata]|linear", "[other]|linear"),
    ],
)
def test_a_report_that_does_not_say_where_the_metadata_lies_is_refused(was: str, now: str) -> None:
    assert was in REPORT
    with pytest.raises(DamagedError):
        thin_pools(rows(REPORT.replace(was, now)), STARTS, EXTENT_SIZE)


def test_a_group_without_pools_has_none() -> None:
    assert thin_pools([row for row in rows() if row["lv_name"] in "ab"], STARTS, EXTENT_SIZE) == ()
