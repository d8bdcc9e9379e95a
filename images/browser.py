"""The browser that tests open reports in: Chromium's headless shell, out of the recipe and never the host's.

In: the recipe in images.recipes. Out: the words that run it. Rule: it runs in its own tree as root of the file system, without
a network and without a process or file of the host's but the one folder it is shown, so a page that asks for anything fails.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import ImageError
from images.fetch import Builder
from images.process import run, tail
from images.recipes import BROWSER
from images.store import manifest_of

PROGRAM = "/usr/lib/chromium/chromium-headless-shell"
SHOWN = "shown"  # where the tree shows the folder that is opened
MOUNT_POINTS = ("proc", "dev", "tmp", "run", SHOWN)
VERSION = re.compile(rb"\d+(\.\d+){2,}")
OPTIONS = (
    "--no-sandbox",  # its sandbox wants to be no root; the namespaces around it are one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--user-data-dir=/tmp/profile",
)
ENTER = """
mount --rbind /proc "$1/proc" && mount --rbind /dev "$1/dev" && mount -t tmpfs tmpfs "$1/tmp" &&
mount -t tmpfs tmpfs "$1/run" && mount --bind "$2" "$1/shown" || exit 125
root=$1; shift 2; exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Browser:
    """A browser that has been seen to run."""

    tree: Path
    version: str

    def argv(self, folder: Path) -> tuple[str, ...]:
        """The words that run it where `folder` is /shown; append options and a page. Ends with its starter."""
        return _argv(self.tree, folder)


def ensure_browser(builder: Builder) -> Browser:
    """The browser, fetched when it is not in the cache yet. Raises ImageError."""
    path = builder.fetched(BROWSER, _finish)
    return Browser(path / "tree", manifest_of(path)["version"])


def _argv(tree: Path, folder: Path) -> tuple[str, ...]:
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    namespaces += [] if os.geteuid() == 0 else ["--map-root-user"]
    return (*namespaces, "sh", "-c", ENTER, "sh", str(tree), str(folder), PROGRAM, *OPTIONS)


def _finish(scratch: Path) -> Mapping[str, Any]:
    """Runs it once: what does not run is no browser."""
    for name in MOUNT_POINTS:
        (scratch / "tree" / name).mkdir(exist_ok=True)
    done = run([*_argv(scratch / "tree", scratch), "--version"])
    match = VERSION.search(done.stdout)
    if done.returncode or match is None:
        said = tail(done.stderr or done.stdout)
        raise ImageError(f"the browser ended with {done.returncode}:\n{said}", "tests of the HTML report need it")
    return {"version": match[0].decode()}
