"""A small, real, signed Debian repository in a folder, for tests that let the real apt fetch from it without a network."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import images

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


def make_repository(folder: Path, debs: list[Path], tools: images.Tools) -> Repository:
    """Indexes and signs `debs` (anywhere on this machine) with a key of its own, into the new `folder`."""
    sqop = tools.argv("sqop")
    key = folder / "key"
    index = folder / "mirror/dists" / SUITE / "main/binary-amd64/Packages"
    index.parent.mkdir(parents=True)
    key.write_bytes(_said([*sqop, "generate-key", "toy <toy@localhost>"]))
    keyring = folder / "keyring.gpg"
    keyring.write_bytes(_said([*sqop, "dearmor"], _said([*sqop, "extract-cert"], key.read_bytes())))
    index.write_text("\n".join(_stanza(deb, folder / "mirror") for deb in debs))
    release = _release(index.parents[2], index)
    signed = _said([*sqop, "inline-sign", "--as=clearsigned", str(key)], release)
    (index.parents[2] / "InRelease").write_bytes(signed)
    return Repository(f"file:{folder}/mirror", keyring, folder / "mirror")


def _stanza(deb: Path, mirror: Path) -> str:
    place = mirror / "pool" / deb.name
    place.parent.mkdir(exist_ok=True, parents=True)
    shutil.copyfile(deb, place)
    data = place.read_bytes()
    fields = subprocess.run(["dpkg-deb", "-f", str(deb)], check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256(data).hexdigest()
    return f"{fields}Filename: pool/{deb.name}\nSize: {len(data)}\nSHA256: {digest}\n"


def _release(dist: Path, index: Path) -> bytes:
    data = index.read_bytes()
    entry = f" {hashlib.sha256(data).hexdigest()} {len(data)} {index.relative_to(dist)}\n"
    return (
        f"Origin: Toy\nSuite: {SUITE}\nCodename: {SUITE}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"Architectures: amd64 all\nComponents: main\nSHA256:\n{entry}"
    ).encode()


def _said(argv: list[str], stdin: bytes = b"") -> bytes:
    """What a command that must succeed printed."""
    return subprocess.run(argv, input=stdin, check=True, stdout=subprocess.PIPE).stdout
