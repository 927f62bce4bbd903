"""What a reader brings to a repository: a passphrase if one is asked for, and whose signatures it trusts."""

import msgspec

from images.store.passphrase import AskPassphrase


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The right to read.

    Attributes:
        ask: called once when the repository is encrypted; None: there is nobody to ask.
        encrypted_only: refuse a repository that is not encrypted. Whoever gives a passphrase must not store plain
            data because somebody has put another repository in that place.
        trusted: public keys (32 bytes each). When there are some, only recovery points that one of them has
            signed are read.
    """

    ask: AskPassphrase | None = None
    encrypted_only: bool = False
    trusted: tuple[bytes, ...] = ()
