"""forkable.so: our own library that, preloaded into QEMU, lets a stopped machine be copied with all that it has translated.

In: the source beside this module, and this host's C compiler. Out: the library's path. Rule: without a compiler there is none, and the
caller does without copies; what was built stays in the cache under the source's address.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from images.errors import ImageError
from images.fetch import Builder
from images.process import run, tail

NAME = "forkable"
SOURCE = Path(__file__).parent / NAME / f"{NAME}.c"
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O2", "-Wall", "-Wextra", "-fPIC", "-shared")
SECONDS = 60.0


def compiler() -> str | None:
    """The first C compiler in PATH."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def ensure_forkable(builder: Builder) -> Path:
    """Raises ImageError where there is no compiler, or it fails."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()
    name = f"{NAME}-{digest[:16]}"
    if (built := builder.store.find(name)) is None:
        with builder.store.lock(NAME):
            built = builder.store.find(name) or builder.store.build(
                lambda _: name, lambda scratch: _build(scratch, digest)
            )
    return built / f"{NAME}.so"


def _build(scratch: Path, digest: str) -> Mapping[str, Any]:
    if (program := compiler()) is None:
        raise ImageError(f"no C compiler on this host, so {NAME}.so cannot be built", f"install one of {COMPILERS}")
    target = scratch / f"{NAME}.so"
    done = run([program, *FLAGS, "-o", str(target), str(SOURCE)], timeout=SECONDS)
    if done.returncode or not target.exists():
        raise ImageError(f"{program} cannot build {NAME}.so:\n{tail(done.stderr or done.stdout)}", "")
    built = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    size = target.stat().st_size
    return {"kind": NAME, "digest": digest, "built": built, "size": size, "release": "", "packages": {}}
