"""Our module's functions, computed from its file and from where its sections lie, are those that the kernel shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.inject.npcrash import kallsyms
from harness.observe.events import read_evidence
from harness.run import Options, bench, load
from harness.testbed.errors import TestbedError

CASE = """\
about: the kernel shows where npcrash is, then it is crashed
guest:
  nics:
    n0: {model: virtio-net}
endpoints:
  netconsole: {at: guest, stack: kernel, device: n0, peer: log}
  log: {at: host, stack: netpoll, device: n0, peer: netconsole}
steps:
  - run: {argv: [grep, "npcrash", /proc/kallsyms]}
  - crash: {how: "null"}
expect:
  - parity: {to: log}
"""


@pytest.mark.guest
def test_computed_symbols_are_the_kernels(tmp_path: Path) -> None:
    testcase = tmp_path / "testcases/symbols.yaml"
    testcase.parent.mkdir()
    testcase.write_text(CASE)
    options = Options(results=tmp_path / "runs")
    with bench(options, print) as made:
        verdict, folder = made.run(load([testcase], options)[0])
    assert verdict.word == "PASS", verdict.why
    told = next(each["out"] for each in read_evidence(folder / "evidence.jsonl") if each["kind"] == "run")
    shown = {(words[0], words[2]) for words in map(str.split, told.splitlines()) if words[1] in "tT"}
    lines = (folder / "kallsyms").read_text().splitlines()
    computed = {(words[0], words[2]) for words in map(str.split, lines) if words[3:] == ["[npcrash]"]}
    assert len(computed) > 10
    assert computed <= shown
    assert {name for _, name in shown - computed if not name.startswith("__pfx_")} <= {"init_module", "npcrash_init"}


@pytest.mark.parametrize("address", [-1, 1 << 64, "0x10", None, True])
def test_an_address_that_is_none_is_refused(address: object) -> None:
    with pytest.raises(TestbedError, match="the module's code is at"):
        kallsyms(b"", {".text": address})  # type: ignore[dict-item]
