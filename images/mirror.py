"""Which Debian mirror to fetch from, and which keys its signatures are checked with.

In: the host's apt configuration (deb822 `.sources` and one-line `.list` files, see sources.list(5)), or a mirror named
by the user. Out: one Mirror. Rule: a guess here can only fail, never deceive: every index is signed by the keys chosen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from images.errors import NoKeyring, NoMirror

MIRROR_VARIABLE = "NETPOLL_HARNESS_MIRROR"
KEYRING_VARIABLE = "NETPOLL_HARNESS_KEYRING"
KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
CODENAMES = frozenset(["buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid"])
ALIASES = frozenset(["oldoldstable", "oldstable", "stable", "testing", "unstable"])
SUITE = re.compile(r"(?P<base>[a-z]+)(-updates|-backports|-proposed-updates|-backports-sloppy)?$")
PARTS_NAME = re.compile(r"[A-Za-z0-9_.-]+\.(list|sources)$")


@dataclass(frozen=True)
class Source:
    """One repository of an apt configuration: a `deb` line, or one URI of a deb822 stanza."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""  # path, fingerprint, or an embedded key block


@dataclass(frozen=True)
class Mirror:
    """Where packages come from and what their index must be signed by."""

    uri: str
    signed_by: str


def find_mirror(
    override: str = "",
    env: Mapping[str, str] = os.environ,
    etc_apt: Path = Path("/etc/apt"),
    keyrings: Path = Path("/usr/share/keyrings"),
) -> Mirror:
    """The mirror named by `override` or $NETPOLL_HARNESS_MIRROR, else the Debian mirror of this host's apt.

    Raises NoMirror (none named, none configured) and NoKeyring (nothing to check its signatures with).
    """
    named = override or env.get(MIRROR_VARIABLE, "")
    if named:
        return Mirror(_checked_uri(named), find_keyring(env, keyrings))
    best = max(host_sources(etc_apt), key=likeness, default=None)
    if best is None or likeness(best) <= 0:
        raise NoMirror(
            f"no Debian mirror in {etc_apt}: kernels, QEMU and the guest come from Debian",
            f"name one with --mirror URL or {MIRROR_VARIABLE}=URL, and install debian-archive-keyring",
        )
    own_key = best.signed_by if _usable_key(best.signed_by) else ""
    return Mirror(best.uri, env.get(KEYRING_VARIABLE, "") or own_key or find_keyring(env, keyrings))


def find_keyring(env: Mapping[str, str], keyrings: Path) -> str:
    """Path of the Debian archive's keys: $NETPOLL_HARNESS_KEYRING, else the installed keyring. Raises NoKeyring."""
    named = env.get(KEYRING_VARIABLE, "")
    candidates = [Path(named)] if named else [keyrings / name for name in KEYRINGS]
    for path in candidates:
        if path.is_file():
            return str(path.absolute())
    raise NoKeyring(
        f"the Debian archive's keys are not here: {' and '.join(map(str, candidates))} missing",
        f"install the package debian-archive-keyring, or name a keyring with {KEYRING_VARIABLE}=FILE",
    )


def host_sources(etc_apt: Path) -> Iterator[Source]:
    """All enabled binary repositories of an apt configuration folder; files that cannot be read are left out."""
    parts = sorted((etc_apt / "sources.list.d").glob("*")) if (etc_apt / "sources.list.d").is_dir() else []
    for path in [etc_apt / "sources.list", *(part for part in parts if PARTS_NAME.match(part.name))]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        yield from parse_deb822(text) if path.suffix == ".sources" else parse_one_line(text)


def parse_one_line(text: str) -> Iterator[Source]:
    """`deb [option=value ...] uri suite component...` lines; anything else is skipped, as apt's `deb-src`."""
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        match = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)$", line)
        if match:
            options = dict(item.split("=", 1) for item in (match["options"] or "").split() if "=" in item)
            yield Source(
                uri=match["uri"],
                suites=(match["suite"],),
                components=tuple(match["rest"].split()),
                signed_by=options.get("signed-by", ""),
            )


def parse_deb822(text: str) -> Iterator[Source]:
    """Stanzas of `Field: value` with continuation lines; disabled ones and those without `deb` are skipped."""
    for stanza in _stanzas(text):
        enabled = stanza.get("enabled", "yes").strip().lower() not in {"no", "false", "0", "off", "without"}
        if not enabled or "deb" not in stanza.get("types", "").split():
            continue
        for uri in stanza.get("uris", "").split():
            yield Source(
                uri=uri,
                suites=tuple(stanza.get("suites", "").split()),
                components=tuple(stanza.get("components", "").split()),
                signed_by=stanza.get("signed-by", "").strip("\n"),
            )


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a deb822 text, fields in lower case, continuation lines joined by newlines."""
    stanza: dict[str, str] = {}
    field = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                yield stanza
            stanza, field = {}, ""
        elif line[0] in " \t":
            if field:
                stanza[field] += "\n" + line
        elif ":" in line:
            field, _, value = line.partition(":")
            field = field.strip().lower()
            stanza[field] = value.strip()


def likeness(source: Source) -> int:
    """How much a repository looks like a mirror of Debian's main archive; 0 or less: not at all.

    A vendor's repository may well be called `stable main` or `bookworm main`, so a codename alone is not enough to win
    against an entry that has the archive's keyring, its path or its `-updates`.
    """
    bases = [match["base"] for suite in source.suites if (match := SUITE.match(suite))]
    if "main" not in source.components or not bases or source.uri.startswith("cdrom:"):
        return 0
    marks = (
        (10, any(base in CODENAMES for base in bases)),
        (1, any(base in ALIASES for base in bases)),
        (8, "debian-archive" in source.signed_by),
        (-8, _names_other_key(source.signed_by)),
        (4, re.search(r"/debian/?$", source.uri) is not None),
        (2, any(suite.endswith("-updates") for suite in source.suites)),
        (1, any("-" not in suite for suite in source.suites)),
    )
    known = any(base in CODENAMES | ALIASES for base in bases)
    return sum(points for points, holds in marks if holds) if known else 0


def _names_other_key(signed_by: str) -> bool:
    return bool(signed_by) and "debian-archive" not in signed_by


def _usable_key(signed_by: str) -> bool:
    """A key that apt will find again from our own configuration: an embedded block, or files that exist."""
    if "BEGIN PGP" in signed_by:
        return True
    paths = signed_by.replace(",", " ").split()
    return bool(paths) and all(path.startswith("/") and Path(path).is_file() for path in paths)


def _checked_uri(uri: str) -> str:
    if not re.match(r"(https?|ftp|file|copy|mirror(\+\w+)?|tor(\+\w+)?):/", uri) or re.search(r"\s", uri):
        raise NoMirror(f"not the address of a mirror: {uri!r}", "it looks like http://HOST/debian or file:/FOLDER")
    return uri.rstrip("/")
