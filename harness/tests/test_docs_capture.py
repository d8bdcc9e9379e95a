"""The command of docs/capture.md that puts another client into the capture kernel: given as it stands there, it sends after a panic."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.observe.events import read_evidence
from harness.plan.compile import compile_plan
from harness.run import Bench
from harness.scenario.load import load

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"^    (python3 -c 'from guest\.kexec.*)$", re.MULTILINE)
CASE = """\
about: the capture kernel runs the command that the page shows
guest:
  memory: 768
  capture: true
  nics:
    n0: {{model: e1000}}
endpoints:
  netconsole: {{at: guest, stack: kernel, device: n0, peer: log}}
  log: {{at: host, stack: netpoll, device: n0, peer: netconsole}}
steps:
  - run: {{argv: [sh, -c, {command}]}}
  - send: {{from: netconsole, count: 5, interval: 0.01}}
  - crash: {{how: sysrq-c, within: 60}}
  - wait: {{console: hello, within: 30}}
expect:
  - delivered: {{from: netconsole, to: log}}
"""


@pytest.mark.guest
def test_another_client_in_the_capture_kernel(bench: Bench, tmp_path: Path) -> None:
    (command,) = COMMAND.findall((ROOT / "docs/capture.md").read_text())
    file = tmp_path / "capture.yaml"
    file.write_text(CASE.format(command=json.dumps(command)))
    _, folder = bench.run(compile_plan(load(file)[0], f"{file}:1"))
    events = list(read_evidence(folder / "evidence.jsonl"))
    crash = next(each["t"] for each in events if (each["src"], each["kind"]) == ("inject", "crash"))
    sent = [each for each in events if (each["src"], each["kind"]) == ("wire", "frame") and each["t"] > crash]
    assert [each for each in sent if each.get("sport") == 6665 and each.get("dport") == 6666], sent[-5:]
