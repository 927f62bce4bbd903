"""The lines of fstab, in every spelling that fstab(5) and udev know."""

from images.fstab import FstabLine, Tag, parse_fstab, parse_swaps


def test_lines_name_volumes_in_their_spellings() -> None:
    text = (
        "# a comment\nUUID=abcd-1234 / ext4 errors=remount-ro 0 1\n"
        "PARTLABEL=EFI\\040System /boot/efi vfat umask=0077 0 1\n"
        "/dev/disk/by-uuid/55 /mnt/with\\040space/ btrfs subvol=@home,ro 0 0\n"
        "/dev/disk/by-label/my\\x20disk /mnt/label ext4\n"
        "/dev/mapper/vg-x /old//x/ ext4 defaults 0 0\nUUID=swap none swap sw 0 0\n"
        "proc /proc proc defaults 0 0\nbroken\n"
        'server:/share /srv nfs defaults 0 0\nPARTUUID="77-01" /z auto\n'
    )
    assert [(line.place, line.tag, line.value, line.options) for line in parse_fstab(text)] == [
        ("/", Tag.UUID, "abcd-1234", ("errors=remount-ro",)),
        ("/boot/efi", Tag.PARTLABEL, "EFI System", ("umask=0077",)),
        ("/mnt/label", Tag.LABEL, "my disk", ()),
        ("/mnt/with space", Tag.UUID, "55", ("subvol=@home", "ro")),
        ("/old/x", Tag.DEVICE, "/dev/mapper/vg-x", ("defaults",)),
        ("/proc", None, "proc", ("defaults",)),
        ("/srv", None, "server:/share", ("defaults",)),
        ("/z", Tag.PARTUUID, "77-01", ()),
    ]


def test_swap_has_no_place_and_every_line_its_number() -> None:
    # fstab(5): the second field is none for swap; any word is taken there.
    text = "# first\nUUID=a / ext4\n\nUUID=b none swap sw,nofail 0 0\n/swapfile swap swap\nUUID=c /x ext4\nnone none\n"
    assert parse_swaps(text) == (
        FstabLine("UUID=b", "", "swap", ("sw", "nofail"), 4),
        FstabLine("/swapfile", "", "swap", (), 5),
    )
    assert [(line.place, line.number) for line in parse_fstab(text)] == [("/", 2), ("/x", 6)]


def test_escapes_are_bytes() -> None:
    """libmount writes any byte as three octal digits: two of them are one letter of UTF-8."""
    (line,) = parse_fstab("LABEL=B\\303\\274ro /srv/B\\303\\274ro ext4")
    assert (line.value, line.place) == ("B\u00fcro", "/srv/B\u00fcro")


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
