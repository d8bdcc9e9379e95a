"""A wait for a line of the console, on a real guest: a line that was there before the last step that did something does not meet it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.observe.events import read_evidence
from harness.run import Bench, load

TESTCASE = """\
about: a guest says the same twice
guest:
  nics:
    n0: {model: virtio-net}
steps:
  - run: {argv: [sh, -c, "echo '<4>said again' > /dev/kmsg"]}
  - wait: {console: said again}
  - wait: {console: said}  # a second wait after the same step: the same line may meet it
  - run: {argv: ["true"]}
  - wait: {console: said again, within: 1}
  - run: {argv: [sh, -c, "echo '<4>said again' > /dev/kmsg"]}
  - wait: {console: said again}
expect:
  - event: {name: SHUTDOWN}
"""


@pytest.mark.guest
def test_an_old_line_meets_no_wait(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "said.yaml"
    path.write_text(TESTCASE)
    (plan,) = load([path], bench.options)
    _, folder = bench.run(plan)
    said = [each for each in read_evidence(folder / "evidence.jsonl") if each["src"] == "await"]
    waits = [each["kind"] for each in said if each["what"] == "console"]
    assert waits == ["reached", "reached", "timeout", "reached"], f"evidence in {folder}"
