"""Mounting a restored system: its fstab and its links decide where in it, and never where in the rescue system."""

from pathlib import Path

from images.model.filesystem import Filesystem
from images.model.layout import FilesystemKind, Partition, PartitionRole
from restore.boot.mounts import Root, mounted_system, parse_fstab
from tests.runners import ScriptedRunner

FSTAB = "UUID=aa / ext4 defaults 0 1\nUUID=bb /home ext4 defaults 0 2\nUUID=bb /../../outside ext4 defaults 0 2\n"


def partition(number: int, uuid: str) -> Partition:
    return Partition(
        id=f"part{number}",
        number=number,
        start_lba=2048 * number,
        sector_count=2048,
        type="0x83",
        role=PartitionRole.PRIMARY,
        filesystem=Filesystem(kind=FilesystemKind.EXT4, uuid=uuid),
    )


def test_links_and_dots_do_not_lead_out_of_the_system(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"

    def answer(argv: tuple[str, ...]) -> str:
        if argv[:2] == ("mount", "/dev/one"):
            root = Path(argv[2])
            (root / "etc").mkdir()
            (root / "etc/fstab").write_text(FSTAB)
            (root / "home").symlink_to(elsewhere)
            (root / "run").symlink_to("/var/run")
        return ""

    runner = ScriptedRunner(answer)
    nodes = {"/dev/one": partition(1, "aa"), "/dev/two": partition(2, "bb")}
    with mounted_system(Root("/dev/one"), nodes, runner) as mounted:
        root = mounted.root
        places = {call[-1] for call in runner.calls if call[0] == "mount"}
        assert places >= {str(root / "outside"), str(root) + str(elsewhere), str(root / "var/run")}
        assert all(place.startswith(str(root)) and ".." not in place for place in places)
    assert not elsewhere.exists()


def test_spaces_in_names_are_written_as_numbers() -> None:
    """fstab(5): a space is written as \\040."""
    (line,) = parse_fstab("LABEL=My\\040Disk /srv/My\\040Disk\\134x ext4 defaults 0 2")
    assert (line.spec, line.place) == ("LABEL=My Disk", "/srv/My Disk\\x")


def test_subvolumes_are_mounted_as_fstab_says() -> None:
    """btrfs(5), "subvol" and "subvolid"; other filesystems have no such option."""
    lines = parse_fstab(
        "UUID=aa / btrfs defaults,subvol=/@,noatime 0 0\nUUID=aa /home btrfs subvolid=258 0 0\n"
        "UUID=aa /srv btrfs\nUUID=bb /boot ext4 subvol=@ 0 2\n"
    )
    assert [(line.place, line.subvolume) for line in lines] == [
        ("/", "subvol=/@"),
        ("/boot", ""),
        ("/home", "subvolid=258"),
        ("/srv", ""),
    ]
