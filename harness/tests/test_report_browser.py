"""The report in headless Chromium, without a network: opened, filtered, walked through with the keyboard, on a phone, in the dark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import images
from harness.report import compare, html
from harness.report.view import view
from harness.tests.browser import Page, opened
from harness.tests.report_cases import KINDS, make

REPORT = "file:///shown/report.html"
SHOWN = "[...document.querySelectorAll('.case')].filter(e => !e.hidden).map(e => e.dataset.w)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    for kind in KINDS:
        make(root, kind)
    html.write(root)
    views = [view(each, root) for each in sorted(root.iterdir()) if each.is_dir()]
    many = [
        replace(views[n % len(views)], name=f"case/{n}", kernel=f"6.{n % 4}", nic=f"nic{n % 23}") for n in range(500)
    ]
    (root / "many.html").write_text(html.page(many, {}))
    (root / "compare.html").write_text(html.comparison(compare.compare(root, root)))
    return root


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Page]:
    with opened(images.ensure_browser(images.Builder()), folder) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    """The report at a desktop's size."""
    browser.window(1280, 900)
    browser.scheme("light")
    browser.complaints.clear()
    browser.go(REPORT)
    return browser


def test_it_opens_without_complaint_and_the_worst_is_open(page: Page) -> None:
    assert page.evaluate("document.title").startswith("netpoll harness")
    assert page.evaluate("[...document.querySelectorAll('.case[open]')].map(e => e.dataset.w)") == ["ERROR"]
    assert page.complaints == []


def test_a_hostile_console_line_does_nothing(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert "owned" not in page.evaluate("document.title")
    assert "<script>document.title=" in page.evaluate("document.body.innerText")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=document.title=\"owned\">')")
    page.evaluate("new Promise(done => setTimeout(done, 50))")
    assert "owned" not in page.evaluate("document.title"), "the policy lets a handler run"


def test_words_and_verdicts_filter_cases_and_matrix(page: Page) -> None:
    assert len(page.evaluate(SHOWN)) == len(KINDS)
    page.press("/")
    page.type("known/")
    assert page.evaluate(SHOWN) == ["KNOWN_BUG"]
    assert page.evaluate("[...document.querySelectorAll('.matrix tbody tr')].filter(e => !e.hidden).length") == 1
    assert page.evaluate("document.getElementById('count').textContent") == "1 of 6 cases"
    page.press("Escape")
    page.click(".chips [data-w=PASS]")
    assert sorted(page.evaluate(SHOWN)) == ["ERROR", "FAIL", "INCONCLUSIVE", "KNOWN_BUG"]
    assert page.evaluate("document.querySelector('.chips [data-w=PASS]').getAttribute('aria-pressed')") == "false"


def test_the_keyboard_alone_finds_opens_and_closes_a_case(page: Page) -> None:
    page.press("j")
    page.press("j")
    assert page.evaluate("document.activeElement.closest('.case').dataset.w") == "FAIL"
    page.press("Enter")
    assert page.evaluate("document.activeElement.closest('.case').open")
    assert page.evaluate("document.querySelector('.case.FAIL .pic svg').getBoundingClientRect().width") > 500
    page.press("k")
    page.press("Enter")
    assert not page.evaluate("document.querySelector('.case.ERROR').open")


def test_the_matrix_leads_to_a_case_even_if_it_is_filtered_out(page: Page) -> None:
    page.click(".matrix td a.INCONCLUSIVE")
    page.until("document.querySelector('.case.INCONCLUSIVE').open")
    page.press("/")
    page.type("pass/")
    page.evaluate("location.hash = document.querySelector('.case.KNOWN_BUG').id")
    page.until("document.querySelector('.case.KNOWN_BUG').open && !document.querySelector('.case.KNOWN_BUG').hidden")


def test_a_link_leads_to_the_console_as_text(page: Page) -> None:
    page.evaluate("document.querySelector('.case.FAIL').open = true")
    page.click(".case.FAIL .links a[href$='console.log']")
    page.until("location.pathname.endsWith('/console.log') && document.body.innerText.includes('Kernel panic')")
    assert page.evaluate("document.contentType") == "text/plain"
    assert "owned" not in page.evaluate("document.title")


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2560])
def test_nothing_is_wider_than_the_window(width: int, page: Page) -> None:
    page.window(width, 844, phone=width < 500)
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate("[...document.querySelectorAll('.case p, .case td, summary')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length")  # fmt: skip
    assert cut == 0
    small = page.evaluate("[...document.querySelectorAll('.case p, .case td')].map(e => parseFloat(getComputedStyle(e).fontSize))")  # fmt: skip
    assert min(small) >= 12


def test_two_runs_side_by_side_fit_a_phone(page: Page) -> None:
    page.window(320, 700, phone=True)
    page.go("file:///shown/compare.html")
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate("document.querySelectorAll('.checks tbody tr').length") == len(KINDS)
    assert page.complaints == []


CONTRAST = """
[...document.querySelectorAll('.word, .dim, .lanes i, .names div, a, .mk, button')].filter(e => e.innerText).map(e => {
  const rgb = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const over = (n) => { for (; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor); if (c.length == 3 || c[3] == 1) return c; } return rgb(getComputedStyle(document.documentElement).backgroundColor); };
  const light = (c) => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(over(e))].sort((x, y) => y - x);
  return [(a + .05) / (b + .05), e.className + ' ' + e.innerText.slice(0, 20)];
}).sort((x, y) => x[0] - y[0])[0]
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str, page: Page) -> None:
    """WCAG 2.1 AA asks for a ratio of 4.5."""
    page.scheme(scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    worst = page.evaluate(CONTRAST)
    assert worst[0] >= 4.5, worst


LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def _opens_in(page: Page, url: str) -> float:
    """Milliseconds, the fastest of three: other work on this machine is not the page's."""
    times = []
    for _ in range(3):
        page.go(url)
        times.append(float(page.evaluate(LOADED)))
    return min(times)


def test_500_cases_open_in_less_time_than_their_number_says(page: Page) -> None:
    """A ratio within one browser; and under two seconds, where others leave the machine to us. By itself the page took 0.3 to 0.5 s on
    two cores."""
    few = _opens_in(page, REPORT)
    many = _opens_in(page, "file:///shown/many.html")
    assert len(page.evaluate(SHOWN)) == 500
    assert many / few < 500 / len(KINDS), f"{few:.0f} ms for {len(KINDS)} cases, {many:.0f} ms for 500"
    if os.getloadavg()[0] <= 2 * len(os.sched_getaffinity(0)):
        assert many < 2000
