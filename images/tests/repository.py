"""A small, real, signed Debian repository in a folder, for tests that let the real apt fetch from it without a network."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SUITE = "toy"


@dataclass(frozen=True)
class Repository:
    """`uri` for apt, `keyring` that vouches for it, `folder` to tamper with."""

    uri: str
    keyring: Path
    folder: Path


def make_deb(folder: Path, name: str, files: dict[str, bytes], version: str = "1.0", depends: str = "") -> Path:
    """Builds NAME_VERSION_all.deb with dpkg-deb."""
    root = folder / f"{name}.root"
    control = root / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    needs = f"Depends: {depends}\n" if depends else ""
    control.write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\n"
        f"{needs}Description: for a test\n"
    )
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    deb = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(root), str(deb)], check=True, capture_output=True
    )
    shutil.rmtree(root)
    return deb


def make_repository(folder: Path, debs: list[Path]) -> Repository:
    """Indexes and signs `debs` (anywhere on this machine) with a key of its own. Skips the test where gpg is missing."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg, which signs the test's repository, is not installed")
    home = folder / "gnupg"
    home.mkdir(parents=True, mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-tty"]
    subprocess.run(
        [*gpg, "--passphrase", "", "--quick-generate-key", "toy <toy@localhost>", "rsa2048", "sign", "never"],
        check=True,
        capture_output=True,
    )
    keyring = folder / "keyring.gpg"
    keyring.write_bytes(subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout)
    index = folder / "mirror/dists" / SUITE / "main/binary-amd64/Packages"
    index.parent.mkdir(parents=True)
    index.write_text("\n".join(_stanza(deb, folder / "mirror") for deb in debs))
    _release(index.parents[2], index, gpg)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
    return Repository(f"file:{folder}/mirror", keyring, folder / "mirror")


def _stanza(deb: Path, mirror: Path) -> str:
    place = mirror / "pool" / deb.name
    place.parent.mkdir(exist_ok=True, parents=True)
    shutil.copyfile(deb, place)
    data = place.read_bytes()
    fields = subprocess.run(["dpkg-deb", "-f", str(deb)], check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256(data).hexdigest()
    return f"{fields}Filename: pool/{deb.name}\nSize: {len(data)}\nSHA256: {digest}\n"


def _release(dist: Path, index: Path, gpg: list[str]) -> None:
    data = index.read_bytes()
    entry = f" {hashlib.sha256(data).hexdigest()} {len(data)} {index.relative_to(dist)}\n"
    (dist / "Release").write_text(
        f"Origin: Toy\nSuite: {SUITE}\nCodename: {SUITE}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"Architectures: amd64 all\nComponents: main\nSHA256:\n{entry}"
    )
    subprocess.run(
        [*gpg, "--clearsign", "--output", str(dist / "InRelease"), str(dist / "Release")],
        check=True,
        capture_output=True,
    )
