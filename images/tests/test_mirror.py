"""Which mirror and keys are chosen from which apt configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.errors import NoKeyring, NoMirror
from images.mirror import find_mirror, likeness, parse_deb822, parse_one_line

KEYRING = "debian-archive-keyring.gpg"

DEB822 = """\
# A comment.
Types: deb deb-src
URIs: http://one.example/debian http://two.example/debian
# A comment between fields.
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

types: deb-src
uris: http://source.example/debian
suites: bookworm
components: main
"""

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb [ arch=amd64 signed-by=/keys/a.gpg ] http://options.example/debian bookworm main contrib # why
deb-src http://source.example/debian bookworm main
deb\thttp://tabs.example/debian\tbookworm-updates  main
deb http://flat.example/ ./
"""


def test_deb822_stanzas_with_continuations_comments_and_disabled_ones() -> None:
    sources = list(parse_deb822(DEB822))
    assert [source.uri for source in sources] == ["http://one.example/debian", "http://two.example/debian"]
    assert sources[0].suites == ("bookworm", "bookworm-updates")
    assert sources[0].components == ("main", "contrib")
    assert sources[0].signed_by == "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_deb822_with_a_key_in_it() -> None:
    block = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----\n"
    (source,) = parse_deb822(f"Types: deb\nURIs: http://x.example/debian\nSuites: sid\nComponents: main\n{block}")
    assert source.signed_by.splitlines()[0] == " -----BEGIN PGP PUBLIC KEY BLOCK-----"
    assert source.signed_by.splitlines()[1] == " ."


def test_one_line_entries_with_options_and_comments() -> None:
    sources = list(parse_one_line(ONE_LINE))
    assert [(source.uri, source.suites, source.components) for source in sources] == [
        ("http://options.example/debian", ("bookworm",), ("main", "contrib")),
        ("http://tabs.example/debian", ("bookworm-updates",), ("main",)),
        ("http://flat.example/", ("./",), ()),
    ]
    assert sources[0].signed_by == "/keys/a.gpg"


HOSTS = {
    "Debian 12, deb822": (
        {"sources.list.d/debian.sources": DEB822},
        "http://one.example/debian",
    ),
    "bare root, one line": (
        {"sources.list": "deb http://bare.example/debian trixie main\n"},
        "http://bare.example/debian",
    ),
    "alias of a suite": (
        {"sources.list": "deb http://alias.example/debian stable main\n"},
        "http://alias.example/debian",
    ),
    "vendors beside Debian, named like it": (
        {
            "sources.list": "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://a.example/apt stable main\n",
            "sources.list.d/a-vendor.list": "deb [signed-by=/etc/v.gpg] https://b.example bookworm main\n",
            "sources.list.d/debian.list": "deb https://mirror.example/pub/debian bookworm main\n",
            "sources.list.d/security.list": "deb https://mirror.example/security bookworm-security main\n",
            "sources.list.d/old.list.save": "deb https://old.example/debian bookworm main\n",
        },
        "https://mirror.example/pub/debian",
    ),
    "mirror list of a cloud image": (
        {
            "sources.list.d/debian.sources": "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\n"
            "Suites: trixie trixie-updates\nComponents: main\n"
        },
        "mirror+file:///etc/apt/mirrors/debian.list",
    ),
}


def apt_folder(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "etc/apt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "keyrings").mkdir()
    (root / "keyrings" / KEYRING).write_bytes(b"keys")
    return root / "etc/apt"


@pytest.mark.parametrize(("files", "uri"), HOSTS.values(), ids=HOSTS)
def test_the_mirror_of_a_host(files: dict[str, str], uri: str, tmp_path: Path) -> None:
    mirror = find_mirror("", {}, apt_folder(tmp_path, files), tmp_path / "keyrings")
    assert mirror.uri == uri


FOREIGN = {
    "Ubuntu": {"sources.list": "deb http://archive.example/ubuntu jammy main\n"},
    "security only": {"sources.list": "deb http://s.example/debian-security bookworm-security main\n"},
    "vendor only": {"sources.list": "deb [signed-by=/etc/v.gpg] https://v.example stable main\n"},
    "installation disc": {"sources.list": "deb cdrom:[Debian_12]/ bookworm main\n"},
    "nothing": {},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_no_debian_mirror_is_said_with_the_remedy(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(NoMirror, match="--mirror URL"):
        find_mirror("", {}, apt_folder(tmp_path, files), tmp_path / "keyrings")


def test_a_named_mirror_wins_over_variable_and_host(tmp_path: Path) -> None:
    etc = apt_folder(tmp_path, {"sources.list": "deb http://host.example/debian bookworm main\n"})
    env = {"NETPOLL_HARNESS_MIRROR": "http://variable.example/debian"}
    assert (
        find_mirror("http://named.example/debian/", env, etc, tmp_path / "keyrings").uri
        == "http://named.example/debian"
    )
    assert find_mirror("", env, etc, tmp_path / "keyrings").uri == "http://variable.example/debian"


@pytest.mark.parametrize("named", ["example", "/srv/mirror", "http://a b/debian", "ssh://host/debian"])
def test_what_is_no_address_is_refused(named: str, tmp_path: Path) -> None:
    with pytest.raises(NoMirror, match="not the address of a mirror"):
        find_mirror(named, {}, apt_folder(tmp_path, {}), tmp_path / "keyrings")


def test_keys_of_the_entry_the_variable_or_the_installed_package(tmp_path: Path) -> None:
    own = tmp_path / "own-debian-archive.gpg"
    own.write_bytes(b"key")
    etc = apt_folder(tmp_path, {"sources.list": f"deb [signed-by={own}] http://x.example/debian bookworm main\n"})
    keyrings = tmp_path / "keyrings"
    assert find_mirror("", {}, etc, keyrings).signed_by == str(own)
    assert find_mirror("", {"NETPOLL_HARNESS_KEYRING": str(own)}, etc, keyrings).signed_by == str(own)
    assert find_mirror("http://y.example/debian", {}, etc, keyrings).signed_by == str(keyrings / KEYRING)
    own.unlink()
    assert find_mirror("", {}, etc, keyrings).signed_by == str(keyrings / KEYRING)


def test_a_missing_keyring_is_said_with_the_remedy(tmp_path: Path) -> None:
    etc = apt_folder(tmp_path, {"sources.list": "deb http://x.example/debian bookworm main\n"})
    (tmp_path / "keyrings" / KEYRING).unlink()
    with pytest.raises(NoKeyring, match="debian-archive-keyring"):
        find_mirror("", {}, etc, tmp_path / "keyrings")


def test_an_entry_signed_by_the_archive_beats_a_codename_alone() -> None:
    archive, vendor = parse_one_line(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://a.example/mirror trixie main\n"
        "deb [signed-by=/usr/share/keyrings/vendor.gpg] http://v.example/debian trixie main\n"
    )
    assert likeness(archive) > likeness(vendor)
