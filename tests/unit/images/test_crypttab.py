"""The lines of crypttab, as crypttab(5) describes them."""

from images.crypttab import CrypttabLine, parse_crypttab


def test_the_lines_of_a_crypttab() -> None:
    # Fields are separated by white space, and octal escapes stand for bytes, as in fstab(5).
    text = "# <target name> <source device>\n\nsda5_crypt\tUUID=1\tnone luks,nofail\na\\040b /dev/sda6\nlonely\n"
    assert parse_crypttab(text) == (
        CrypttabLine("sda5_crypt", "UUID=1", "none", ("luks", "nofail"), 3),
        CrypttabLine("a b", "/dev/sda6", number=4),
    )
    assert parse_crypttab(text)[0].node == "/dev/mapper/sda5_crypt"
