"""Text without its secrets, for a bundle that a person sends to somebody else.

Two nets: values that are known to be secret are replaced wherever they stand, and what looks like a secret (a field
named password, the user part of an address, a key block, a password hash) is replaced whatever it says. It takes too
much rather than too little. What it is not: a proof. A secret that looks like nothing and is known to nobody passes, so
the bundle is text that can be read before it is sent.
"""

import re
from collections.abc import Sequence

#: What stands in the place of a secret.
GONE = "***"
#: Known values shorter than this are left: they would be found in every word.
_SHORTEST = 4

_NAME = (
    r"[\w.-]{0,64}?(?:pass(?:word|phrase|wd|code)|\bpass\b|pwd|secret|token|credential|authkey|psk|wpa_?key"
    r"|(?:api|access|private|secret|preshared|shared|luks|encryption|signing|wep|host)[_-]?key)[\w-]{0,32}"
)
#: Names of places where a secret lies, not of secrets.
_PLACE = re.compile(r"(?i)(?:file|path|url|dir|agent|prompt|mode|policy|timeout|type|count|id)s?\W*$")
_VALUE = r"""\\"(?P<escaped>.*?)\\"|"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'"""
_ASSIGNED = re.compile(rf"(?i)(?P<name>\b{_NAME}\\?[\"']?\s*=\s*)(?:{_VALUE}|(?P<bare>[^\s,;&}}\])]+))")
_SAYS = rf"(?i)(?P<name>\b{_NAME}\\?[\"']?\s*:\s*)"
#: A passphrase may be several words with anything between them; between braces it ends where the next field begins.
_SAID = re.compile(rf"{_SAYS}(?:{_VALUE}|(?P<bare>\S[^\n]*))")
_SAID_INSIDE = re.compile(rf"{_SAYS}(?:{_VALUE}|(?P<bare>\S[^,}}\]\n]*))")
_OPTION = re.compile(rf"(?i)(?P<name>--{_NAME}\s+)(?P<bare>[^\s-]\S*)")
_HINT = re.compile(
    r"(?i)pass|pwd|secret|token|credential|authkey|psk|key|auth|bearer|@|\bsig|AKIA|ASIA|eyJ|gh[pousr]_|glpat-|\$\d|\$[yg]|ssh-"
)

_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_PLAIN: tuple[tuple[re.Pattern[str], str], ...] = (
    # RFC 3986: user information ends at the last @ before the path.
    (re.compile(r"""(?i)\b([a-z][a-z0-9+.-]{0,31}://)[^/\s"'<>?#]*@"""), rf"\1{GONE}@"),
    # Signed addresses carry their right in the query.
    (
        re.compile(
            r"""(?i)([?&;][\w.%-]{0,64}(?:sig|signature|token|key|pass|secret|credential|auth)[\w.%-]{0,64}=)[^&\s"'<>#]+"""
        ),
        rf"\1{GONE}",
    ),
    (re.compile(r"""(?i)(\bauthorization\\?["']?\s*[:=]\s*)\S[^\r\n]*"""), rf"\1{GONE}"),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{GONE}"),
    # A public key is no secret, but says whose it is.
    (
        re.compile(r"\b((?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-[\w-]+|sk-[\w.@-]+)\s+)AAAA[A-Za-z0-9+/=]+[^\r\n\"']*"),
        rf"\1{GONE}",
    ),
    # crypt(5)
    (re.compile(r"\$(?:1|2[abxy]?|3|5|6|7|md5|sha1|y|gy|argon2\w{0,2})\$[./A-Za-z0-9,=$]{8,}"), GONE),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), GONE),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), GONE),
    (re.compile(r"\b(?:gh[pousr]_|glpat-|github_pat_)[\w-]{16,}"), GONE),
)


def redact(text: str, known: Sequence[str] = ()) -> str:
    """``text`` with every secret replaced by ``***``.

    Args:
        known: values that are secret whatever they look like.
    """
    for value in sorted(set(known), key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, GONE)
    if "PRIVATE KEY-----" in text:
        text = _KEY_BLOCK.sub(GONE, text)
    return "".join(_line(line) if _HINT.search(line) else line for line in text.splitlines(keepends=True))


def _line(line: str) -> str:
    for pattern, instead in _PLAIN:
        line = pattern.sub(instead, line)
    return _OPTION.sub(_hidden, _said(_ASSIGNED.sub(_hidden, line)))


def _said(line: str) -> str:
    """Without what stands behind a name and a colon."""
    parts: list[str] = []
    at = depth = 0
    while match := _SAID.search(line, at):
        depth += line.count("{", at, match.start()) - line.count("}", at, match.start())
        if depth > 0:
            match = _SAID_INSIDE.match(line, match.start()) or match
        parts += [line[at : match.start()], _hidden(match)]
        at = match.end()
    return "".join((*parts, line[at:]))


def _hidden(match: re.Match[str]) -> str:
    name = match["name"]
    if _PLACE.search(name.rstrip(" \t:='\"\\")):
        return match[0]
    value = match[0][len(name) :]
    quote = next((mark for mark in ('\\"', '"', "'") if value.startswith(mark)), "")
    end = "\n" if not quote and value.endswith("\n") else ""
    return f"{name}{quote}{GONE}{quote}{end}"
