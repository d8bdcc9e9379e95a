"""The browser for tests of reports: it runs, shut in with the one folder that it is shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import images
from images.browser import ENTER


@pytest.fixture(scope="module")
def browser() -> images.Browser:
    return images.ensure_browser(images.Builder())


def test_it_says_the_version_of_its_package(browser: images.Browser, tmp_path: Path) -> None:
    done = subprocess.run([*browser.argv(tmp_path), "--version"], capture_output=True, text=True, check=True)
    assert browser.version in done.stdout


def dumped(browser: images.Browser, folder: Path, url: str) -> str:
    argv = [*browser.argv(folder), "--dump-dom", "--virtual-time-budget=2000", url]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout


def test_it_shows_the_folder_and_nothing_else_of_the_host(browser: images.Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>seen</p>")
    assert "<p>seen</p>" in dumped(browser, tmp_path, "file:///shown/page.html")
    hidden = tmp_path.parent / "hidden.html"
    hidden.write_text("<p>of the host</p>")
    assert "of the host" not in dumped(browser, tmp_path, f"file://{hidden}")


def test_it_has_no_network(browser: images.Browser, tmp_path: Path) -> None:
    """Not even the host's loopback."""
    argv = list(browser.argv(tmp_path))
    inside = [*argv[: argv.index(ENTER)], "cat /proc/self/net/dev"]
    told = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0].strip() for line in told.splitlines()[2:]] == ["lo"]


def test_nothing_stays_mounted(browser: images.Browser, tmp_path: Path) -> None:
    before = Path("/proc/mounts").read_text()
    dumped(browser, tmp_path, "about:blank")
    assert Path("/proc/mounts").read_text() == before
