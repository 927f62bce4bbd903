"""What a recipe says of its site, as files of the live system: what can be known before anything is built.

Everything that the recipe names is read and checked here, so that a wrong key or certificate is told at once and not
after minutes. What needs the built base (the certificates it trusts already) is added by ``site``.
"""

import os
from importlib.resources import files
from pathlib import Path

import msgspec

from builder.recipe.check import secrets_of
from builder.recipe.recipe import Recipe
from builder.site.certificate import doubts, read_certificates
from builder.site.document import SITE_DOCUMENT, SITE_HOOKS, SiteDocument, SiteRepository
from builder.site.locales import DEFAULT
from builder.site.network import WPA_CONFIG, network_files
from builder.site.ssh_key import read_keys
from core.documents import encode_readable
from core.errors import UsageError
from hooks.contract import HookStage

_UNITS = "usr/lib/systemd/system"
_WANTED = "etc/systemd/system/multi-user.target.wants"
_WANTED_EARLY = "etc/systemd/system/sysinit.target.wants"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
#: What makes Python's libraries and the S3 client trust what the system trusts (requests, images/store/s3.py).
_TRUST = (f"REQUESTS_CA_BUNDLE={_BUNDLE}", f"AWS_CA_BUNDLE={_BUNDLE}", f"SSL_CERT_FILE={_BUNDLE}")
_HOOK_LIMIT = 64 << 20


class SiteFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the live system: path without a leading slash, content, permission bits."""

    path: str
    content: bytes
    mode: int = 0o644


class SiteLink(msgspec.Struct, frozen=True, kw_only=True):
    """A symbolic link of the live system."""

    path: str
    target: str


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        certificates: PEM text that is added to what the base trusts.
        time_zone: whose file must be in the base; empty when the recipe leaves UTC.
        warnings: what the person should know before the medium is used.
    """

    files: tuple[SiteFile, ...] = ()
    links: tuple[SiteLink, ...] = ()
    certificates: bytes = b""
    time_zone: str = ""
    warnings: tuple[str, ...] = ()


def read_site_files(recipe: Recipe) -> Site:
    """Read all files that the recipe names and write what follows from it.

    Raises:
        UsageError: a file cannot be read or is not what it should be.
    """
    certificates = b"".join(read_certificates(named, "ca_certificates") for named in recipe.ca_certificates)
    made = [
        *_environment(recipe, trusts=bool(certificates)),
        *_keys(recipe),
        *_network(recipe),
        *_keymap(recipe),
        *_hooks(recipe),
        *_document(recipe),
    ]
    return Site(
        files=tuple(sorted(made, key=lambda file: file.path)),
        links=tuple(sorted(_links(recipe), key=lambda link: link.path)),
        certificates=certificates,
        time_zone="" if recipe.time_zone == "UTC" else recipe.time_zone,
        warnings=(*_carried(recipe), *(doubts(certificates) if certificates else ())),
    )


def _carried(recipe: Recipe) -> list[str]:
    return [
        f"The medium will hold the secret in {place}: whoever has the medium can read it."
        for place in secrets_of(recipe)
    ]


def _links(recipe: Recipe) -> list[SiteLink]:
    links = []
    if recipe.time_zone != "UTC":
        links.append(SiteLink(path="etc/localtime", target=f"/usr/share/zoneinfo/{recipe.time_zone}"))
    if recipe.ssh.keys:
        links.append(SiteLink(path=f"{_WANTED}/ssh.service", target="/usr/lib/systemd/system/ssh.service"))
    if recipe.keymap:
        unit = "liferaft-keymap.service"
        links.append(SiteLink(path=f"{_WANTED_EARLY}/{unit}", target=f"/{_UNITS}/{unit}"))
    if not recipe.network.others:
        links.append(SiteLink(path="etc/systemd/network/80-wired.network", target="/dev/null"))
    return links


def _environment(recipe: Recipe, *, trusts: bool) -> list[SiteFile]:
    """The same settings for services, for logins over SSH (PAM) and for shells on the consoles."""
    settings = list(_TRUST) if trusts else []
    made = []
    if recipe.locale != DEFAULT:
        settings.append(f"LANG={recipe.locale}")
        made += [_text(f"etc/{name}", f"LANG={recipe.locale}\n") for name in ("locale.conf", "default/locale")]
    if settings:
        services = "[Manager]\n" + "".join(f"DefaultEnvironment={line}\n" for line in settings)
        made += [
            _text("etc/systemd/system.conf.d/liferaft-site.conf", services),
            _text("etc/environment", "".join(f"{line}\n" for line in settings)),
            _text("etc/profile.d/zz-liferaft-site.sh", "".join(f"export {line}\n" for line in settings)),
        ]
    return made


def _keys(recipe: Recipe) -> list[SiteFile]:
    keys = [key for n, named in enumerate(recipe.ssh.keys) for key in read_keys(named, f"ssh.keys[{n}]")]
    if not keys:
        return []
    text = "".join(f"{key.line}\n" for key in keys)
    return [SiteFile(path="root/.ssh/authorized_keys", content=text.encode(), mode=0o600)]


def _network(recipe: Recipe) -> list[SiteFile]:
    made = []
    for path, text in network_files(recipe.network).items():
        made.append(SiteFile(path=path, content=text.encode(), mode=0o600 if path == WPA_CONFIG else 0o644))
    if recipe.network.wifi:
        made.append(_own("liferaft-wifi@.service", _UNITS))
        made.append(_own("85-liferaft-wifi.rules", "usr/lib/udev/rules.d"))
    return made


def _keymap(recipe: Recipe) -> list[SiteFile]:
    """The unit that loads it; the keymap itself is compiled by ``keymap``."""
    return [_own("liferaft-keymap.service", _UNITS)] if recipe.keymap else []


def _hooks(recipe: Recipe) -> list[SiteFile]:
    if not recipe.hooks:
        return []
    folder = Path(recipe.hooks)
    if not folder.is_dir():
        raise UsageError(f"hooks: the folder {folder} does not exist.", hint="docs/hooks.md says what lies in it.")
    stages = {stage.value for stage in HookStage}
    made = []
    try:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            inside = path.relative_to(folder)
            if len(inside.parts) != 2 or inside.parts[0] not in stages:
                raise UsageError(
                    f"hooks: {path} would never run: it does not lie in the folder of a stage.",
                    hint=f"The stages are {', '.join(sorted(stages))}.",
                )
            if not os.access(path, os.X_OK):
                raise UsageError(f"hooks: {path} is not executable.", hint=f"chmod +x {path}, or move it away.")
            if path.stat().st_size > _HOOK_LIMIT:
                raise UsageError(f"hooks: {path} is larger than 64 MiB.")
            target = f"{str(SITE_HOOKS).lstrip('/')}/{inside}"
            made.append(SiteFile(path=target, content=path.read_bytes(), mode=0o755))
    except OSError as error:
        raise UsageError(f"hooks: {error.filename} cannot be read: {error.strerror}.") from None
    if not made:
        raise UsageError(f"hooks: there is no hook in {folder}.", hint="docs/hooks.md says what lies in it.")
    return made


def _document(recipe: Recipe) -> list[SiteFile]:
    if not recipe.repositories:
        return []
    offered = tuple(SiteRepository(address=one.address, name=one.name) for one in recipe.repositories)
    content = encode_readable(SiteDocument(repositories=offered)).encode()
    return [SiteFile(path=str(SITE_DOCUMENT).lstrip("/"), content=content, mode=0o600)]


def _own(name: str, folder: str) -> SiteFile:
    """One of the files that this package brings along."""
    content = files("builder").joinpath("data", "site", name).read_bytes()
    return SiteFile(path=f"{folder}/{name}", content=content)


def _text(path: str, text: str) -> SiteFile:
    return SiteFile(path=path, content=text.encode())
