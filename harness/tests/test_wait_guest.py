"""Waits, on a real guest: a line that was there before the last step that did something does not meet one, and a panic that says no more, or hangs, ends one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.judge.model import Verdict
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


def run(bench: Bench, path: Path, text: str) -> tuple[Verdict, Path]:
    path.write_text(text)
    (plan,) = load([path], bench.options)
    return bench.run(plan)


@pytest.mark.guest
def test_an_old_line_meets_no_wait(bench: Bench, tmp_path: Path) -> None:
    _, folder = run(bench, tmp_path / "said.yaml", TESTCASE)
    said = [each for each in read_evidence(folder / "evidence.jsonl") if each["src"] == "await"]
    waits = [each["kind"] for each in said if each["what"] == "console"]
    assert waits == ["reached", "reached", "timeout", "reached"], f"evidence in {folder}"


UNENDED = """\
about: a panic never says what it is expected to end with, as an NMI's before Linux 5.15
guest:
  nics:
    n0: {model: virtio-net}
endpoints:
  netconsole: {at: guest, stack: kernel, device: n0, peer: log}
  log: {at: host, stack: netpoll, device: n0, peer: netconsole}
steps:
  - crash: {how: sysrq-c, within: 100}
expect:
  - parity: {to: log, until: no kernel says this}
"""


@pytest.mark.guest
def test_a_panic_that_says_no_more_is_not_waited_for(bench: Bench, tmp_path: Path) -> None:
    verdict, folder = run(bench, tmp_path / "unended.yaml", UNENDED)
    assert verdict.word == "FAIL"
    assert "never came to `no kernel says this`" in verdict.why
    waits = [
        each for each in read_evidence(folder / "evidence.jsonl") if (each["src"], each["kind"]) == ("await", "timeout")
    ]
    assert {each["what"] for each in waits} == {"panic", "text"}
    assert all(each["within"] < 60 for each in waits), f"evidence in {folder}"


HANGS = """\
about: a driver waits in the middle of a panic for an interrupt that nobody serves
guest:
  nics:
    n0: {model: rtl8139}
endpoints:
  netconsole: {at: guest, stack: kernel, device: n0, peer: log}
  log: {at: host, stack: netpoll, device: n0, peer: netconsole}
steps:
  - crash: {how: sysrq-c, within: 100}
  - wait: {event: GUEST_PANICKED, within: 100}
expect:
  - parity: {to: log}
  - event: {name: GUEST_PANICKED}
"""


@pytest.mark.guest
def test_a_panic_that_hangs_is_not_waited_for_and_its_driver_is_named(bench: Bench, tmp_path: Path) -> None:
    verdict, folder = run(bench, tmp_path / "hangs.yaml", HANGS)
    assert verdict.word == "KNOWN_BUG"
    assert "as known of 8139cp: cp_poll_controller() calls disable_irq()" in verdict.why
    waits = [each for each in read_evidence(folder / "evidence.jsonl") if each["kind"] == "timeout"]
    assert [each["what"] for each in waits] == ["panic", "text", "event"]
    assert sum(each["within"] for each in waits) < 60, f"evidence in {folder}"
