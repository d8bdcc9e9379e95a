"""The programs for a second opinion: they run, steered by nothing of the host, and a test that cannot have them fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import images
from images.errors import FetchFailed
from images.process import argv_in_tree
from images.recipes import Recipe
from images.tests.repository import SUITE, make_deb, make_repository
from images.tools import LIB, PROGRAMS

ROOT = Path(__file__).parents[2]
PACKAGE = {"rsyslogd": "rsyslog"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_says_the_version_of_its_package(name: str, tools: images.Tools) -> None:
    done = subprocess.run([*tools.argv(name), PROGRAMS[name].version], capture_output=True, text=True, check=True)
    assert tools.versions[name] in done.stdout
    assert tools.packages[PACKAGE.get(name, name)].startswith(tools.versions[name])


def test_all_libraries_are_the_trees_own(tools: images.Tools) -> None:
    for name, tool in PROGRAMS.items():
        loader, *options = argv_in_tree(tools.tree / LIB, tools.tree / tool.program)
        told = subprocess.run([loader, "--list", *options], capture_output=True, text=True, check=True).stdout
        paths = [line.split(" => ")[1].split(" (")[0] for line in told.splitlines() if " => " in line]
        assert len(paths) >= 2, name
        assert all(path.startswith(f"{tools.tree}/") for path in paths), told


def test_the_users_own_preferences_do_not_steer_wireshark(tools: images.Tools, tmp_path: Path) -> None:
    (tmp_path / "wireshark").mkdir()
    (tmp_path / "wireshark/preferences").write_text("udp.check_checksum: TRUE\n")
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    env.pop("WIRESHARK_CONFIG_DIR", None)
    words = [*tools.argv("tshark"), "-G", "currentprefs"]
    told = subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout
    assert "udp.check_checksum: FALSE" in told


def test_a_program_that_is_none_of_them(tools: images.Tools) -> None:
    with pytest.raises(KeyError, match="gpg"):
        tools.argv("gpg")


def test_programs_that_do_not_run_are_no_tools(
    tools: images.Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here because the mirror's packages hold none of them."""
    repository = make_repository(tmp_path / "r", [make_deb(tmp_path, "toy", {"usr/bin/toy": b""})], tools)
    monkeypatch.setenv("NETPOLL_HARNESS_KEYRING", str(repository.keyring))
    monkeypatch.setattr("images.tools.TOOLS", Recipe("tools", (SUITE,), ("toy",)))
    store = images.Store(tmp_path / "cache")
    with pytest.raises(images.ImageError, match=r"(?s)cpio of toy ended with 127:.*No such file"):
        images.ensure_tools(images.Builder(store, mirror=repository.uri))
    assert store.objects() == []


USER = """
from images.tests.conftest import tools as tools

def test_with_tools(tools):
    raise AssertionError("not reached")
"""


def test_without_cache_and_network_a_test_that_needs_them_fails_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(USER)
    env = {**os.environ, "NETPOLL_HARNESS_CACHE": f"{tmp_path}/cache", "NETPOLL_HARNESS_MIRROR": "http://127.0.0.1:9/d"}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 error" in done.stdout.splitlines()[-1]
    assert f"{FetchFailed.__module__}.{FetchFailed.__name__}" in done.stdout
    assert "the mirror cannot be reached: check the network" in done.stdout
