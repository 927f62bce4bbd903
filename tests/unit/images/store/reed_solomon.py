"""GF(2⁸) and the parity of docs/image-format.md §11, by its definition and slowly: a witness that is not zfec."""

from functools import cache


def _powers() -> list[int]:
    found = [1]
    for _ in range(254):
        value = found[-1] << 1
        found.append(value ^ 0x11D if value & 0x100 else value)
    return found


#: α to the i-th, and the other way round.
POWERS = _powers()
LOGARITHMS = {value: number for number, value in enumerate(POWERS)}


def multiply(one: int, other: int) -> int:
    if not one or not other:
        return 0
    return POWERS[(LOGARITHMS[one] + LOGARITHMS[other]) % 255]


def divide(one: int, other: int) -> int:
    return multiply(one, POWERS[-LOGARITHMS[other] % 255])


def point(number: int) -> int:
    return 0 if number == 0 else POWERS[number - 1]


@cache
def coefficient(k: int, parity: int, member: int) -> int:
    """Lagrange: what one member counts in the value at the point of a parity block."""
    at, own = point(k + parity), point(member)
    found = 1
    for other in range(k):
        if other != member:
            found = multiply(found, divide(at ^ point(other), own ^ point(other)))
    return found


@cache
def _times(factor: int) -> bytes:
    return bytes(multiply(factor, value) for value in range(256))


def parity_block(k: int, parity: int, members: list[bytes]) -> bytes:
    """The parity block of members of equal length."""
    total = 0
    for number, member in enumerate(members):
        total ^= int.from_bytes(member.translate(_times(coefficient(k, parity, number))))
    return total.to_bytes(len(members[0]))
