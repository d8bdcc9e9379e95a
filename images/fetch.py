"""Recipe -> finished object in the store: the only place that reaches the network.

In: a Recipe and a function that makes something of the unpacked tree. Out: the object's folder. Rule: once a recipe
has been built, it is served from the store without looking at apt or the network, until `update` is asked for.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from images.aptroot import AptRoot, Deb, check_host
from images.debs import unpack
from images.errors import FetchFailed, explained
from images.mirror import find_mirror
from images.progress import Progress, Silent, stage
from images.recipes import UNPACK_VERSION, Recipe
from images.store import Store, cache_root

Finish = Callable[[Path], Mapping[str, Any]]
DEBS = "debs"  # folder inside an object under construction; gone before it is published


@dataclass(frozen=True)
class Builder:
    """Where and how images are built; `mirror` overrides the host's, `update` asks for newer packages."""

    store: Store = field(default_factory=lambda: Store(cache_root()))
    progress: Progress = field(default_factory=Silent)
    mirror: str = ""
    update: bool = False

    def fetched(self, recipe: Recipe, finish: Finish) -> Path:
        """The object of `recipe`: as built before, or fetched, unpacked into `tree/` and handed to `finish`.

        `finish` gets the object's folder and returns what to add to its manifest. Raises ImageError.
        """
        if not self.update and (found := self.store.current(recipe.key)):
            return found
        with self.store.lock(recipe.key, self._waiting(recipe.name)):
            if not self.update and (found := self.store.current(recipe.key)):
                return found
            return self._fetch(recipe, finish)

    def _fetch(self, recipe: Recipe, finish: Finish) -> Path:
        apt = self._apt_root(recipe)
        with self._using(apt):
            apt.prepare()
            apt.update(self.progress)
            debs = chosen(recipe, apt.resolve(recipe.packages, recipe.release))
        name = f"{recipe.name}-{digest_of(recipe, debs)[:16]}"
        path = self.store.find(name) or self.store.build(
            lambda _scratch: name, lambda scratch: self._fill(recipe, apt, debs, scratch, finish)
        )
        self.store.point(recipe.key, name)
        return path

    @contextmanager
    def _using(self, apt: AptRoot) -> Iterator[None]:
        """Holds a private apt for this process; never while `finish` runs, which may need another recipe of the suite."""
        lock = self.store.lock(f"apt-{apt.path.name}", self._waiting(f"from {apt.suites[-1]}"))
        with explained("keeping package indices", self.store.root), lock:
            yield

    def _fill(
        self, recipe: Recipe, apt: AptRoot, debs: tuple[Deb, ...], scratch: Path, finish: Finish
    ) -> Mapping[str, Any]:
        with self._using(apt):
            files = apt.download(debs, scratch / DEBS, recipe.name, self.progress)
        with stage(self.progress, f"unpack {recipe.name}") as running:
            unpack(files, scratch / "tree", lambda path: unpacked(recipe, path))
            shutil.rmtree(scratch / DEBS)
            extra = finish(scratch)
            size = size_of(scratch)
            running.result(size)
        return {
            "kind": recipe.name,
            "digest": digest_of(recipe, debs),
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "suites": recipe.suites,
            "size": size,
            "packages": {deb.name: deb.version for deb in debs},
            "debs": [asdict(deb) for deb in debs],
            **extra,
        }

    def _apt_root(self, recipe: Recipe) -> AptRoot:
        check_host()
        mirror = find_mirror(self.mirror)
        seen = hashlib.sha256(repr((mirror, recipe.suites)).encode()).hexdigest()[:8]
        return AptRoot(self.store.root / "apt" / f"{recipe.release}-{seen}", mirror, recipe.suites)

    def _waiting(self, what: str) -> Callable[[], AbstractContextManager[object]]:
        return lambda: stage(self.progress, f"wait for another process that builds {what}")


def chosen(recipe: Recipe, debs: tuple[Deb, ...]) -> tuple[Deb, ...]:
    """The packages of a resolved closure that this recipe wants unpacked."""
    kept = tuple(deb for deb in debs if not recipe.keep or re.fullmatch(recipe.keep, deb.name))
    if not kept:
        raise FetchFailed(
            f"none of the packages that {' '.join(recipe.packages)} resolved to is named {recipe.keep}",
            "this recipe does not fit the mirror's suite",
        )
    return kept


def unpacked(recipe: Recipe, path: str) -> bool:
    """Does this recipe want the path of a package?"""
    unwanted = (recipe.only and not re.match(recipe.only, path)) or (recipe.drop and re.match(recipe.drop, path))
    return not unwanted


def digest_of(recipe: Recipe, debs: tuple[Deb, ...]) -> str:
    """The address of an object: the recipe, and every package's exact content."""
    words = [recipe.key, *sorted(f"{deb.name} {deb.version} {deb.sha256}" for deb in debs), str(UNPACK_VERSION)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def size_of(folder: Path) -> int:
    """Bytes of all regular files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
