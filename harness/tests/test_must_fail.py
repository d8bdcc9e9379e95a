"""The twins of the shipped testcases: each expects something wrong, runs on a real guest, and has to turn red.

A harness whose checks cannot fail proves nothing by passing. The verdict that a twin must get stands in its first line.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.run import Bench, load

TWINS = sorted((Path(__file__).parent / "must_fail").glob("*.yaml"))


@pytest.mark.guest
@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_a_wrong_expectation_turns_red(bench: Bench, path: Path) -> None:
    first = path.read_text().splitlines()[0]
    must = re.fullmatch(r"# must: (\w+)", first)
    assert must, f"{path}: the first line says what must come out, like `# must: FAIL`; it is {first!r}"
    plans = load([path], bench.options)
    assert plans
    for plan in plans:
        verdict, folder = bench.run(plan)
        assert verdict.word == must.group(1), f"{plan.case}: {verdict.word} ({verdict.why}); evidence in {folder}"


def test_each_behaviour_has_a_twin(testcases: Path) -> None:
    behaviours = {path.name for path in testcases.iterdir() if path.is_dir()}
    assert behaviours <= {path.stem.split("-")[0] for path in TWINS}
