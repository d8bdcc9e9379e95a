"""The HTML report of a run: one file that needs nothing else, for a browser, a CI artifact or a mail.

In: a results folder. Out: HTML, which the caller writes as report.html into that folder, so that links to evidence work. Rule: guests
are untrusted: whatever they said is escaped by the template and cleaned of what cannot be seen, and the page's own policy
lets no script run but ours and no request leave it.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from harness.report import store
from harness.report.compare import GROUPS, Comparison
from harness.report.page import STYLES, clean
from harness.report.view import CaseView
from harness.report.views import views

REPORT = "report.html"
SYMBOLS = {"PASS": "✓", "FAIL": "✗", "KNOWN_BUG": "◆", "INCONCLUSIVE": "?", "ERROR": "!"}
WORST_FIRST = list(reversed(STYLES))
ASSETS = Path(__file__).parent / "assets"
MOST_LINKS = 12  # cases named at one finding


@dataclass(frozen=True)
class Finding:
    """A sentence, and the cases that showed it."""

    text: str
    cases: tuple[CaseView, ...]
    more: int


@dataclass(frozen=True)
class Column:
    """One NIC on one kernel; `first` of its kernel."""

    kernel: str
    nic: str
    first: bool


def write(results: Path, told: Callable[[int, int], None] = lambda _done, _all: None) -> Path:
    """report.html in `results`, of all cases in or below it. `told`: how many of how many have been read. Raises StoreError."""
    folders = store.cases(results)
    shown = views(folders, results, told)
    path = results / REPORT
    try:
        store.write_text(path, page(shown, store.environment(results, folders)))
    except OSError as error:
        raise store.StoreError(f"{path}: {error.strerror}") from error
    return path


def page(views: Iterable[CaseView], environment: Mapping[str, str]) -> str:
    """The whole file. The worst cases come first, and the very first is open if it went wrong."""
    ordered = sorted(views, key=lambda each: (WORST_FIRST.index(each.word), each.name))
    cases = [
        replace(each, id=f"c{number}", first=number == 1 and each.word in ("FAIL", "ERROR"))
        for number, each in enumerate(ordered, 1)
    ]
    counted = Counter(case.word for case in cases)
    script = (ASSETS / "report.js").read_text()
    return _template("report.html.j2").render(
        title=f"netpoll harness: {environment.get('started', 'report')}",
        when=environment.get("started", ""),
        css=Markup((ASSETS / "report.css").read_text()),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        symbols=SYMBOLS,
        cases=cases,
        counts={word: counted[word] for word in WORST_FIRST if counted[word]},
        findings=_findings(cases),
        matrix=_matrix(cases),
        environment=environment,
    )


def comparison(found: Comparison) -> str:
    """Two runs side by side, as one file."""
    return _template("compare.html.j2").render(
        css=Markup((ASSETS / "report.css").read_text()),
        symbols=SYMBOLS,
        found=found,
        groups={heading: found.group(name) for name, heading in GROUPS.items() if found.group(name)},
        same=found.group("same"),
    )


def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("harness.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_cleaned,
    )
    return environment.get_template(name)


def _cleaned(value: Any) -> Any:
    """Every text on its way into the page; markup is ours and stays."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


HEADINGS = {
    "ERROR": "The testbed failed",
    "FAIL": "Failed",
    "KNOWN_BUG": "Known bugs that showed",
    "INCONCLUSIVE": "Not provoked",
}


def _findings(cases: Sequence[CaseView]) -> dict[str, list[Finding]]:
    """Everything that did not simply pass, equal sentences once."""
    found: dict[str, dict[str, list[CaseView]]] = {}
    for case in cases:
        if case.word in HEADINGS:
            text = case.known_bug if case.word == "KNOWN_BUG" and case.known_bug else case.why
            found.setdefault(HEADINGS[case.word], {}).setdefault(text, []).append(case)
    return {
        head: [Finding(text, tuple(same[:MOST_LINKS]), max(len(same) - MOST_LINKS, 0)) for text, same in texts.items()]
        for head, texts in found.items()
    }


def _matrix(cases: Sequence[CaseView]) -> dict[str, Any]:
    """Testcases by NIC and kernel; a cell holds the cases that are equal in all three."""
    places = sorted({(case.kernel, case.nic) for case in cases}, key=lambda place: (_natural(place[0]), place[1]))
    columns = [Column(*place, number == 0 or places[number - 1][0] != place[0]) for number, place in enumerate(places)]
    by_place: dict[tuple[str, str, str], list[CaseView]] = {}
    for case in cases:
        by_place.setdefault((case.testcase, case.kernel, case.nic), []).append(case)
    rows = [
        {"name": name, "cells": [by_place.get((name, *place), []) for place in places]}
        for name in sorted({case.testcase for case in cases})
    ]
    return {"kernels": Counter(kernel for kernel, _ in places), "columns": columns, "rows": rows}


def _natural(release: str) -> list[tuple[int, str]]:
    """6.12 after 6.1."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in release.replace("-", ".").split(".")]
