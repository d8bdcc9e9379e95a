"""Programs that tests ask for a second opinion: Wireshark on frames, rsyslog on messages, cpio on archives, an OpenPGP signer.

In: the recipe in images.recipes. Out: the words that run each of them. Rule: nothing of the host's steers them: they run
with their tree's own C library, modules and data, and without the user's own configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import ImageError
from images.fetch import Builder
from images.process import argv_in_tree, run, tail
from images.recipes import TOOLS
from images.store import manifest_of

LIB = "usr/lib/x86_64-linux-gnu"
VERSION = re.compile(rb"\d+(\.\d+)+")
HINT = "the mirror's packages do not fit this machine: name another with --mirror URL"


@dataclass(frozen=True)
class Tool:
    """How one program of the tree is run; all paths are below the tree."""

    program: str
    version: str = "--version"  # the word that makes it say its version and end
    folders: tuple[tuple[str, str], ...] = ()  # environment variable, path
    options: tuple[tuple[str, str], ...] = ()  # option that comes first, path


PROGRAMS: Mapping[str, Tool] = {
    "cpio": Tool("usr/bin/cpio"),
    "rsyslogd": Tool("usr/sbin/rsyslogd", "-v", options=(("-M", f"{LIB}/rsyslog"),)),
    "sqop": Tool("usr/bin/sqop", "version"),  # signs as `sop` does: no agent, no home, keys are files
    "tshark": Tool(
        "usr/bin/tshark",
        folders=(
            ("WIRESHARK_DATA_DIR", "usr/share/wireshark"),
            ("WIRESHARK_PLUGIN_DIR", f"{LIB}/wireshark/plugins"),
            ("WIRESHARK_EXTCAP_DIR", f"{LIB}/wireshark/extcap"),
            ("WIRESHARK_CONFIG_DIR", "etc/wireshark"),  # instead of the user's own preferences and profiles
        ),
    ),
}


@dataclass(frozen=True)
class Tools:
    """Programs that have been seen to run: cpio, rsyslogd, sqop, tshark."""

    tree: Path
    digest: str
    versions: Mapping[str, str]  # by program, as it says itself
    packages: Mapping[str, str]

    def argv(self, name: str) -> tuple[str, ...]:
        """The words that run a program; append arguments. Raises KeyError for one that is not among them."""
        return _argv(self.tree, PROGRAMS[name])


def ensure_tools(builder: Builder) -> Tools:
    """The programs, fetched when they are not in the cache yet. Raises ImageError."""
    path = builder.fetched(TOOLS, _finish)
    manifest = manifest_of(path)
    return Tools(path / "tree", manifest["digest"], manifest["versions"], manifest["packages"])


def _argv(tree: Path, tool: Tool) -> tuple[str, ...]:
    environment = [f"{name}={tree / path}" for name, path in tool.folders]
    options = [word for option, path in tool.options for word in (option, str(tree / path))]
    return (*(["env", *environment] if environment else []), *argv_in_tree(tree / LIB, tree / tool.program), *options)


def _finish(scratch: Path) -> Mapping[str, Any]:
    """Runs each program once: what does not run is no tool."""
    return {"versions": {name: _version(scratch / "tree", name, tool) for name, tool in PROGRAMS.items()}}


def _version(tree: Path, name: str, tool: Tool) -> str:
    done = run([*_argv(tree, tool), tool.version])
    match = VERSION.search(done.stdout)
    if done.returncode or match is None:
        said = tail(done.stderr or done.stdout)
        raise ImageError(f"{name} of {TOOLS.release} ended with {done.returncode}:\n{said}", HINT)
    return match[0].decode()
