"""Fetching with the real apt from a real signed repository in a folder: what it checks, and what is said when it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import images
from images.aptroot import SETTING, check_host, host_settings
from images.errors import FetchFailed, ImageError, NoApt
from images.fetch import Builder
from images.recipes import Recipe
from images.store import Store, manifest_of
from images.tests.repository import SUITE, Repository, make_deb, make_repository

TOY = Recipe("toy", (SUITE,), ("toy",), drop="usr/share/doc/")


@dataclass
class Steps:
    """Remembers what was reported."""

    seen: list[tuple[str, int | None, int | None]] = field(default_factory=list)

    def step(self, what: str, done_bytes: int | None, total_bytes: int | None, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((what, done_bytes, total_bytes))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: images.Tools) -> Repository:
    made = tmp_path / "made"
    made.mkdir()
    debs = [
        make_deb(
            made, "toy", {"usr/bin/toy": b"toy", "usr/share/doc/toy": b"x"}, version="2:1.0~rc1-1", depends="toy-lib"
        ),
        make_deb(made, "toy-lib", {"lib/toy": b"lib" * 10_000}),
        make_deb(made, "unrelated", {"usr/unrelated": b"no"}),
    ]
    repository = make_repository(tmp_path / "repository", debs, tools)
    monkeypatch.setenv("NETPOLL_HARNESS_KEYRING", str(repository.keyring))
    return repository


def builder(root: Path, repository: Repository, **options: Any) -> Builder:
    return Builder(Store(root / "cache"), mirror=repository.uri, **options)


def nothing(_scratch: Path) -> Mapping[str, Any]:
    return {}


def test_a_package_and_what_it_depends_on(tmp_path: Path, repository: Repository) -> None:
    steps = Steps()
    path = builder(tmp_path, repository, progress=steps).fetched(
        TOY, lambda scratch: {"extra": len(list(scratch.iterdir()))}
    )
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert files == {"manifest.json", "tree/usr/bin/toy", "tree/usr/lib/toy"}
    manifest = manifest_of(path)
    assert manifest["packages"] == {"toy": "2:1.0~rc1-1", "toy-lib": "1.0"}
    assert manifest["extra"] == 1  # the packages themselves are gone
    assert path.name == f"toy-{manifest['digest'][:16]}"
    ended = {what: done for what, done, total in steps.seen if done is not None and done == total}
    assert list(ended) == ["package index of toy", "fetch toy: 2 packages", "unpack toy"]
    assert ended["fetch toy: 2 packages"] == sum(deb["size"] for deb in manifest["debs"])
    assert ended["unpack toy"] == manifest["size"] == 30_003


def test_what_was_built_needs_no_mirror(tmp_path: Path, repository: Repository) -> None:
    path = builder(tmp_path, repository).fetched(TOY, nothing)
    shutil.rmtree(repository.folder)
    assert builder(tmp_path, repository).fetched(TOY, nothing) == path
    with pytest.raises(FetchFailed):
        builder(tmp_path, repository, update=True).fetched(TOY, nothing)


def test_an_update_fetches_what_is_new_and_only_then(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch, tools: images.Tools
) -> None:
    path = builder(tmp_path, repository).fetched(TOY, nothing)
    steps = Steps()
    assert builder(tmp_path, repository, update=True, progress=steps).fetched(TOY, nothing) == path
    assert {what for what, _, _ in steps.seen} == {"package index of toy"}
    made = tmp_path / "newer"
    made.mkdir()
    debs = [make_deb(made, "toy", {"usr/new": b"2"}, version="2:1.0")]
    newer = make_repository(tmp_path / "newer-repository", debs, tools)
    monkeypatch.setenv("NETPOLL_HARNESS_KEYRING", str(newer.keyring))
    updated = builder(tmp_path, newer, update=True).fetched(TOY, nothing)
    assert updated != path
    assert builder(tmp_path, newer).fetched(TOY, nothing) == updated


def tamper_release(repository: Repository) -> None:
    path = repository.folder / "dists" / SUITE / "InRelease"
    path.write_text(path.read_text().replace("Origin: Toy", "Origin: Boy"))


def remove_signature(repository: Repository) -> None:
    (repository.folder / "dists" / SUITE / "InRelease").unlink()


def tamper_index(repository: Repository) -> None:
    path = repository.folder / "dists" / SUITE / "main/binary-amd64/Packages"
    path.write_text(path.read_text().replace("toy-lib", "toy-bil"))


def tamper_package(repository: Repository) -> None:
    path = next((repository.folder / "pool").glob("toy-lib*"))
    path.write_bytes(path.read_bytes().replace(b"liblib", b"bilbil"))


def remove_package(repository: Repository) -> None:
    next((repository.folder / "pool").glob("toy-lib*")).unlink()


def remove_suite(repository: Repository) -> None:
    shutil.rmtree(repository.folder / "dists" / SUITE)


BROKEN = {
    "release tampered with": (tamper_release, "keyring"),
    "signature missing": (remove_signature, "keyring|no longer carries"),
    "index tampered with": (tamper_index, "Hash Sum mismatch|unexpected size"),
    "package tampered with": (tamper_package, "Hash Sum mismatch|unexpected size"),
    "package missing": (remove_package, "toy-lib"),
    "suite missing": (remove_suite, "no longer carries"),
}


@pytest.mark.parametrize(("breakage", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_not_as_signed_is_not_used(breakage: Any, said: str, tmp_path: Path, repository: Repository) -> None:
    breakage(repository)
    with pytest.raises(FetchFailed, match=said):
        builder(tmp_path, repository).fetched(TOY, nothing)
    assert Store(tmp_path / "cache").objects() == []
    assert list((tmp_path / "cache").glob("tmp/*")) == []


def test_another_key_does_not_vouch_for_it(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch, tools: images.Tools
) -> None:
    other = make_repository(tmp_path / "other", [], tools)
    monkeypatch.setenv("NETPOLL_HARNESS_KEYRING", str(other.keyring))
    with pytest.raises(FetchFailed, match="update debian-archive-keyring"):
        builder(tmp_path, repository).fetched(TOY, nothing)


def test_finishing_one_recipe_may_need_another_of_the_same_suite(tmp_path: Path, repository: Repository) -> None:
    both = builder(tmp_path, repository)
    lib = Recipe("lib", (SUITE,), ("toy-lib",))
    path = both.fetched(TOY, lambda _scratch: {"needed": both.fetched(lib, nothing).name})
    assert manifest_of(path)["needed"].startswith("lib-")


def test_a_package_that_is_nowhere_is_said(tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(FetchFailed, match=r"(?s)Unable to locate package absent.*mirror lacks a package"):
        builder(tmp_path, repository).fetched(Recipe("absent", (SUITE,), ("absent",)), nothing)


def test_only_the_packages_kept_are_fetched(tmp_path: Path, repository: Repository) -> None:
    path = builder(tmp_path, repository).fetched(Recipe("lib", (SUITE,), ("toy",), keep="toy-l.*"), nothing)
    assert list(manifest_of(path)["packages"]) == ["toy-lib"]
    with pytest.raises(FetchFailed, match="none of the packages"):
        builder(tmp_path, repository).fetched(Recipe("none", (SUITE,), ("toy",), keep="to"), nothing)


def test_a_mirror_that_cannot_be_reached_is_said(tmp_path: Path, repository: Repository) -> None:
    gone = Repository("http://127.0.0.1:9/debian", repository.keyring, repository.folder)
    with pytest.raises(FetchFailed, match="cannot be reached: check the network"):
        builder(tmp_path, gone).fetched(TOY, nothing)


def test_a_machine_without_apt(tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoApt, match="apt-get is not on this machine"):
        builder(tmp_path, repository).fetched(TOY, nothing)


def test_a_machine_of_another_kind() -> None:
    with pytest.raises(NoApt, match="this machine is aarch64"):
        check_host("aarch64")


def test_an_error_while_finishing_leaves_nothing(tmp_path: Path, repository: Repository) -> None:
    def fail(_scratch: Path) -> Mapping[str, Any]:
        raise ImageError("does not fit")

    with pytest.raises(ImageError, match="does not fit"):
        builder(tmp_path, repository).fetched(TOY, fail)
    assert Store(tmp_path / "cache").objects() == []
    assert list((tmp_path / "cache").glob("tmp/*")) == []


SECOND = """
import sys
from pathlib import Path
from images.fetch import Builder
from images.progress import PlainText
from images.store import Store
from images.tests.test_fetch import TOY, nothing
builder = Builder(Store(Path(sys.argv[1])), PlainText(sys.stdout), mirror=sys.argv[2])
print(builder.fetched(TOY, nothing).name)
"""


def test_of_two_builders_at_once_one_fetches(tmp_path: Path, repository: Repository) -> None:
    argv = [sys.executable, "-c", SECOND, str(tmp_path / "cache"), repository.uri]
    started = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert said[0][-1] == said[1][-1]
    for step in ("package index", "fetch toy", "unpack toy"):  # the other one does nothing but wait
        assert sorted(any(line.startswith(step) for line in lines) for lines in said) == [False, True]


FULL = """
import sys
from pathlib import Path
from images.errors import DiskFull
from images.fetch import Builder
from images.store import Store
from images.tests.test_fetch import TOY, nothing
root = Path(sys.argv[1])
try:
    Builder(Store(root), mirror=sys.argv[2]).fetched(TOY, nothing)
except DiskFull as error:
    print(error.message, "|", [str(path) for folder in ("store", "tmp") for path in root.glob(folder + "/*")])
"""


@pytest.mark.parametrize(("size", "length"), [("16k", 10), ("1m", 1_500_000), ("2m", 1_500_000)])
def test_a_disk_that_fills_up_while_fetching_or_unpacking(
    size: str, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: images.Tools
) -> None:
    debs = [make_deb(tmp_path, "toy", {"usr/big": os.urandom(length)})]
    repository = make_repository(tmp_path / "r", debs, tools)
    monkeypatch.setenv("NETPOLL_HARNESS_KEYRING", str(repository.keyring))
    place = tmp_path / "small"
    place.mkdir()
    mount = f'mount -t tmpfs -o size={size} tmpfs {place} && exec {sys.executable} -c "$0" {place} {repository.uri}'
    argv = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "sh", "-c", mount, FULL]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip("no mount namespace can be had here")
    assert "no room left" in done.stdout, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("| []")


def test_only_settings_that_reach_a_mirror_are_taken_from_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "apt.conf"
    conf.write_text(
        'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::AllowInsecureRepositories "true";\n'
        'Acquire::IndexTargets::deb::Extra::MetaKey "x";\nAPT::Update::Post-Invoke { "rm -rf /"; };\n'
        'Acquire::Check-Valid-Until "false";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(conf))
    lines = host_settings()
    assert 'Acquire::http::Proxy "http://proxy.example:3128";' in lines
    assert 'Acquire::Check-Valid-Until "false";' in lines
    assert all(SETTING.match(line) for line in lines)
    assert not any(word in line for line in lines for word in ("Insecure", "IndexTargets", "Post-Invoke"))
