"""A private apt: its own configuration, indices, caches and empty dpkg status; the host's apt is only read.

In: a Mirror and suites. Out: resolved packages (name, version, SHA-256), then their verified .deb files. Rule: every
byte is checked by apt itself, up to the archive's signature; insecure repositories are refused whatever the host says.

Nothing is installed and no maintainer script runs, so no root is needed. Of the host's apt settings only how to reach
a mirror (`Acquire::*`: proxies, certificates, validity of old snapshots; logins in auth.conf) is taken over.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.errors import MOVE_CACHE, DiskFull, FetchFailed, NoApt
from images.mirror import Mirror
from images.process import guarded, run, tail
from images.progress import Progress, stage

ARCHITECTURE = "amd64"
FOLDERS = (
    "etc/apt/empty",
    "etc/apt/preferences.d",
    "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial",
    "var/lib/dpkg",
    "var/log/apt",
)
TEMPORARY = "tmp"
LEAST_ROOM = 1 << 20  # bytes: with less, whatever apt says, the disk is full
NOT_TAKEN = re.compile(r"Acquire::(IndexTargets|CompressionTypes|Changelogs|Languages|Allow\w*|GzipIndexes|cdrom)\b")
SETTING = re.compile(r'^Acquire::[\w:.+/-]+ "[^"\n]*";$')
URI_LINE = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")
STATUS_LINE = re.compile(r"dlstatus:\d+:(?P<percent>[\d.]+):")

# What apt says -> what to do about it; the first that fits.
HINTS = (
    (
        r"does not have a Release file|Failed to fetch \S+ +[45]\d\d ",
        "the mirror does not carry (or no longer carries) this suite: name one that does with --mirror URL",
    ),
    (
        r"NO_PUBKEY|Missing key|not signed|verification failed|EXPKEYSIG|OpenPGP signature",
        "the keys on this machine do not vouch for this mirror: update debian-archive-keyring, or name "
        "its keyring with NETPOLL_HARNESS_KEYRING=FILE",
    ),
    (
        r"not valid (yet|until)|is expired|Release file .* expired",
        "the mirror is an old snapshot, or this machine's clock is wrong",
    ),
    (
        r"Temporary failure|Could not resolve|Could not connect|Unable to connect|Cannot initiate the connection"
        r"|Connection (refused|timed out|failed)|Network is unreach",
        "the mirror cannot be reached: check the network and proxy, or name another with --mirror URL",
    ),
    (
        r"Unable to locate package|has no installation candidate|Version '.*' for|was not found",
        "the mirror lacks a package of this recipe: name another with --mirror URL",
    ),
)


@dataclass(frozen=True)
class Deb:
    """One package that apt chose, exactly."""

    name: str
    version: str
    architecture: str
    size: int  # bytes of the .deb
    sha256: str
    uri: str


@dataclass(frozen=True)
class AptRoot:
    """A private apt below `path` that sees `suites` of `mirror` and nothing else."""

    path: Path
    mirror: Mirror
    suites: tuple[str, ...]

    def prepare(self) -> None:
        """Writes folders, configuration, sources and the empty status file. Raises OSError."""
        shutil.rmtree(self.path / TEMPORARY, ignore_errors=True)  # what a killed apt left
        for folder in (*FOLDERS, TEMPORARY):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        (self.path / "var/lib/dpkg/status").write_text("")
        (self.path / "etc/apt/sources.list").write_text("")
        sources = self.path / "etc/apt/sources.list.d"
        sources.mkdir(exist_ok=True)
        (sources / "debian.sources").write_text(self._sources())
        (self.path / "apt.conf").write_text(self._configuration())

    def _sources(self) -> str:
        key = self.mirror.signed_by
        signed_by = key if "BEGIN PGP" in key else key.replace(",", " ")
        return (
            f"Types: deb\nURIs: {self.mirror.uri}\nSuites: {' '.join(self.suites)}\n"
            f"Components: main\nArchitectures: {ARCHITECTURE}\nSigned-By: {signed_by}\n"
        )

    def _configuration(self) -> str:
        etc = self.path / "etc/apt"
        lines = [
            *host_settings(),
            f'Dir "{self.path}";',
            f'Dir::Etc "{etc}";',
            f'Dir::Etc::parts "{etc}/empty";',
            f'Dir::Etc::trusted "{etc}/empty/none";',
            f'Dir::Etc::trustedparts "{etc}/empty";',
            'Dir::Cache::pkgcache "";',  # tens of MB that save tenths of a second
            'Dir::Cache::srcpkgcache "";',
            f'Dir::State::status "{self.path}/var/lib/dpkg/status";',
            f'APT::Architecture "{ARCHITECTURE}";',
            f'APT::Architectures {{ "{ARCHITECTURE}"; }};',
            'APT::Install-Recommends "false";',
            'APT::Get::AllowUnauthenticated "false";',
            'APT::Update::Error-Mode "any";',
            'Acquire::AllowInsecureRepositories "false";',
            'Acquire::AllowWeakRepositories "false";',
            'Acquire::AllowDowngradeToInsecureRepositories "false";',
            'Acquire::ForceHash "SHA256";',
            'Acquire::GzipIndexes "true";',
            'Acquire::Languages "none";',
            'Acquire::PDiffs "false";',
            'Acquire::Retries "2";',
            *_logins(),
        ]
        if os.geteuid() == 0:  # apt's sandbox user could not reach a cache in root's home
            lines.append('APT::Sandbox::User "root";')
        return "\n".join(lines) + "\n"

    def update(self, progress: Progress) -> None:
        """Fetches and verifies the indices. Raises FetchFailed, DiskFull."""
        with stage(progress, f"package index of {', '.join(self.suites)}") as running:
            lists = self.path / "var/lib/apt/lists"
            self._apt(["update"], lambda _percent: running.update(_size(lists)))
            running.result(_size(lists))

    def resolve(self, names: Sequence[str], release: str) -> tuple[Deb, ...]:
        """The packages that installing `names` from `release` into an empty system would take, by name."""
        output = self._apt(["install", "--yes", "--print-uris", "--target-release", release, *names])
        debs = [_deb(match) for line in output.splitlines() if (match := URI_LINE.match(line))]
        if not debs:
            raise FetchFailed(f"apt resolved {' '.join(names)} to nothing", f"its output was:\n{output}")
        return tuple(sorted(debs, key=lambda deb: deb.name))

    def download(self, debs: Sequence[Deb], into: Path, what: str, progress: Progress) -> list[Path]:
        """Fetches exactly these packages into a folder; apt checks each against the signed index.

        Then they are checked once more: apt copies out of a `file:` mirror without noticing that the disk is full.
        """
        into.mkdir(parents=True, exist_ok=True)
        total = sum(deb.size for deb in debs)
        wanted = [f"{deb.name}={deb.version}" for deb in debs]
        with stage(progress, f"fetch {what}: {len(debs)} packages") as running:
            self._apt(["download", *wanted], lambda _percent: running.update(_size(into), total), cwd=into)
            files = sorted(into.glob("*.deb"))
            _check_all_here(debs, files, into)
            running.result(total)
        return files

    def _apt(
        self, words: Iterable[str], on_status: Callable[[float], None] | None = None, cwd: Path | None = None
    ) -> str:
        """Runs apt-get with this root's configuration and returns its output."""
        argv = ["apt-get", "--quiet=2", *words]
        if on_status:
            argv[1:1] = ["-o", "APT::Status-Fd=1"]
        env = {**os.environ, "APT_CONFIG": str(self.path / "apt.conf"), "LC_ALL": "C.UTF-8"}
        env["DEBIAN_FRONTEND"] = "noninteractive"
        env["TMPDIR"] = str(self.path / TEMPORARY)
        with subprocess.Popen(
            guarded(argv),
            cwd=cwd or self.path,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as apt:
            assert apt.stdout is not None
            kept: list[bytes] = []
            for line in apt.stdout:
                match = STATUS_LINE.match(line.decode(errors="replace"))
                if match and on_status:
                    on_status(float(match["percent"]))
                else:
                    kept.append(line)
        output = b"".join(kept)
        if apt.returncode:
            raise _failure(argv, apt.returncode, output, self.mirror, _room(self.path) < LEAST_ROOM)
        return output.decode(errors="replace")


def check_host(machine: str = os.uname().machine) -> None:
    """Raises NoApt unless this machine has apt and can run what the packages hold."""
    if machine not in ("x86_64", "amd64"):
        raise NoApt(f"this machine is {machine}; the images hold x86-64 programs", "use an x86-64 machine")
    for tool in ("apt-get", "apt-config", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise NoApt(
                f"{tool} is not on this machine: images are made of Debian packages",
                "use a Debian or Ubuntu machine, or a container of one",
            )


def host_settings() -> list[str]:
    """The host's `Acquire::*` settings that say how a mirror is reached, as lines of an apt.conf."""
    dump = run(["apt-config", "dump", "Acquire"]).stdout.decode(errors="replace")
    return [line for line in dump.splitlines() if SETTING.match(line) and not NOT_TAKEN.match(line)]


def _logins() -> list[str]:
    """The host's logins for mirrors (apt_auth.conf(5)), as far as this user may read them."""
    places = (("netrc", "/etc/apt/auth.conf"), ("netrcparts", "/etc/apt/auth.conf.d"))
    return [f'Dir::Etc::{key} "{path}";' for key, path in places if os.access(path, os.R_OK)]


def _deb(match: re.Match[str]) -> Deb:
    """NAME_VERSION_ARCH.deb, each part percent-encoded."""
    parts = [urllib.parse.unquote(part) for part in match["file"].removesuffix(".deb").split("_")]
    name, version, architecture = parts
    return Deb(name, version, architecture, int(match["size"]), match["sha256"], match["uri"])


def _check_all_here(debs: Sequence[Deb], files: Sequence[Path], into: Path) -> None:
    """Raises FetchFailed or DiskFull unless every package is there, whole."""
    here = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    absent = [deb for deb in debs if deb.sha256 not in here]
    if not absent:
        return
    if _room(into) < max(deb.size for deb in absent):
        raise DiskFull(f"no room left in {into} while fetching {absent[0].name}", MOVE_CACHE)
    names = ", ".join(deb.name for deb in absent)
    raise FetchFailed(f"apt fetched these packages not or not whole: {names}", "try again, or name another mirror")


def _room(folder: Path) -> int:
    """Bytes left for this user on the file system of a folder."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def _size(folder: Path) -> int:
    """Bytes in a folder that apt is filling at this moment."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except FileNotFoundError:  # renamed out of partial/ meanwhile
                continue
    return total


def _failure(argv: Sequence[str], status: int, output: bytes, mirror: Mirror, full: bool) -> Exception:
    """The error for an apt-get that ended with `status`, by what it printed.

    `full`: there is no room left. apt's verifier then says that signatures are wrong, so it must be asked first.
    """
    text = output.decode(errors="replace")
    command = " ".join(argv)
    said = f"`{command}` ended with {status}; mirror {mirror.uri}; it said:\n{tail(output)}"
    if full or re.search(r"No space left on device|don't have enough free space|Disk quota exceeded", text):
        return DiskFull(f"no room left: {said}", MOVE_CACHE)
    for pattern, hint in HINTS:
        if re.search(pattern, text):
            return FetchFailed(said, hint)
    return FetchFailed(said, "what is built already can be used without a network; try again when the mirror answers")
