"""What is in the cache, and what of it may go.

In: a Store. Out: entries, and what pruning removed. Rule: an object stays while a recipe of this version points to it,
while something that stays is made from it, or while any process uses it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import CacheUnusable
from images.fetch import size_of
from images.recipes import BROWSER, GDB, KERNELS, MAKEDUMPFILE, QEMU, TOOLS, USERLAND
from images.store import Store, manifest_of

KEPT_GUESTS = 3  # guest images of one base that stay when a newer one is made from edited sources
KEPT_OWN = 3  # kernels of one's own that stay


@dataclass(frozen=True)
class Image:
    """One finished object."""

    name: str
    kind: str  # qemu, kernel-NAME, userland, tools, base, guest, capture
    digest: str
    built: str  # UTC, ISO 8601
    size: int  # bytes
    current: bool  # would be used, were it asked for now
    packages: Mapping[str, str]
    path: Path


@dataclass(frozen=True)
class Pruned:
    """What `prune` did."""

    removed: tuple[str, ...]
    in_use: tuple[str, ...]  # wanted to remove, but some process holds it
    freed: int  # bytes


def list_(store: Store) -> tuple[Image, ...]:
    """All images, the current ones first. Raises CacheUnusable for a damaged manifest."""
    manifests = _manifests(store)
    current = _current(store, manifests, guests=1)
    images = [
        Image(
            name=path.name,
            kind=str(manifest["kind"]),
            digest=str(manifest["digest"]),
            built=str(manifest["built"]),
            size=int(manifest["size"]),
            current=path in current,
            packages=dict(manifest["packages"]),
            path=path,
        )
        for path, manifest in manifests.items()
    ]
    return tuple(sorted(images, key=lambda image: (not image.current, image.kind, image.built)))


def prune(store: Store, everything: bool = False) -> Pruned:
    """Removes what is not current (all, if `everything`), what killed builders left, and the package indices.

    Images that a process uses stay. Returns what was removed, by name.
    """
    before = _size(store.root)
    store.sweep()
    removed: list[str] = []
    in_use: list[str] = []
    for image in list_(store):
        if everything or not image.current:
            (removed if store.remove(image.path) else in_use).append(image.name)
    for key, name in store.pointers().items():
        if name in removed or key not in known_keys():
            (store.root / "current" / key).unlink(missing_ok=True)
    for path in sorted((store.root / "apt").glob("*")):
        with store.lock(f"apt-{path.name}"):
            shutil.rmtree(path, ignore_errors=True)
    return Pruned(tuple(removed), tuple(in_use), before - _size(store.root))


def trim(store: Store) -> None:
    """Removes superseded images that can be made again without a network, so that edits and bisections fill no disk."""
    manifests = _manifests(store)
    stay = _current(store, manifests, guests=KEPT_GUESTS)
    for path, manifest in manifests.items():
        if path not in stay and manifest["kind"] in ("base", "capture", "guest", "kernel-own"):
            store.remove(path)


def _manifests(store: Store) -> dict[Path, dict[str, Any]]:
    found = {}
    for path in store.objects():
        try:
            found[path] = manifest_of(path)
        except CacheUnusable:
            if path.exists():  # else another process removed it just now
                raise
    return found


def known_keys() -> frozenset[str]:
    """The keys of this version's recipes."""
    return frozenset(recipe.key for recipe in (BROWSER, GDB, MAKEDUMPFILE, QEMU, TOOLS, USERLAND, *KERNELS.values()))


def _current(store: Store, manifests: Mapping[Path, Mapping[str, Any]], guests: int) -> set[Path]:
    """What the recipes point to, the newest kernels of one's own, and the newest base and guests of each of them."""
    newest_first = sorted(manifests, key=_changed, reverse=True)
    kinds = {path: manifests[path]["kind"] for path in newest_first}
    pointed = {name for key, name in store.pointers().items() if key in known_keys()}
    stay = {path for path in newest_first if path.name in pointed}
    stay |= set([path for path in newest_first if kinds[path] == "kernel-own"][:KEPT_OWN])
    for kernel in [manifests[path]["digest"] for path in stay]:
        made = [
            path for path in newest_first if kinds[path] == "base" and manifests[path]["kernel"]["digest"] == kernel
        ]
        stay |= set(_captures(newest_first, manifests, kernel)[:guests])
        for base in made[:1]:
            stay.add(base)
            stay |= set([path for path in newest_first if manifests[path].get("base") == base.name][:guests])
    return stay


def _changed(path: Path) -> float:
    """When; what another process removed just now is older than all."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _captures(paths: list[Path], manifests: Mapping[Path, Mapping[str, Any]], kernel: str) -> list[Path]:
    return [
        path for path in paths if manifests[path]["kind"] == "capture" and manifests[path]["kernel"]["digest"] == kernel
    ]


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return size_of(path)
    return 0
