"""What `bench turnaround` says of its figures; a peer that cannot run; the check that all of them run; memory of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import images
from harness.bench import check, commands, memory, virtme
from harness.bench.turnaround import Result, table
from harness.run import Options, load

RESULT = Result(
    "case", "tcg", (0.5, 1.0, 0.9), (0.1, 0.3, 0.25), {"boot": (9.0,), "virtme-ng": (8.1,)}, {}, ({"agent": 0.1},)
)


def test_ratios_and_goals_are_told_met_or_missed() -> None:
    lines = {line.partition("  ")[0]: line for line in table(RESULT)}
    assert lines["restore to agent"].endswith("(goal 0.2 s: MISSED)")
    assert lines["virtme-ng / restored"].split()[3:] == ["9.0x", "(goal", "10x:", "MISSED)"]
    assert lines["boot / restored"].endswith("10.0x")


def test_a_peer_that_was_left_out_is_named_with_the_reason() -> None:
    left = Result("case", "tcg", (0.5,), (0.1,), {}, {"virtme-ng": "there is no vng"})
    assert "virtme-ng was left out: there is no vng" in table(left)


def test_figures_are_written_as_text_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.tell("turnaround", table(RESULT), RESULT.as_json(), tmp_path / "new")
    figures = json.loads((tmp_path / "new/turnaround.json").read_text())
    assert figures["ratios"] == {"boot": 10.0, "virtme-ng": 9.0}
    assert (tmp_path / "new/turnaround.txt").read_text() == capsys.readouterr().out


def test_the_check_is_as_many_cases_as_asked_for_and_differs_in_the_seed_alone(tmp_path: Path) -> None:
    plans = load([check.write(tmp_path, 3)], Options(results=tmp_path))
    assert [plan.case for plan in plans] == [f"last-words[nth={n}]" for n in range(3)]
    assert [plan.scenario.steps[0].send.seed for plan in plans if plan.scenario.steps[0].send] == [0, 1, 2]


def test_without_vng_the_peer_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(virtme.CannotRun, match=r"pip install 'netpoll-harness\[bench\]'"):
        virtme._program()


def test_a_qemu_without_a_user_network_is_no_place_for_the_peer(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho Available netdev backend types: tap dgram\n")
    program.chmod(0o755)
    qemu = images.Qemu((str(program),), "0", "0", tmp_path, tmp_path, (), False)
    with pytest.raises(virtme.CannotRun, match="no user network"):
        virtme._require_user_network(qemu)


def test_private_memory_is_what_a_process_wrote_itself() -> None:
    script = "import sys; kept = bytearray(32 << 20); kept[::4096] = b'x' * len(kept[::4096]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in memory._children(os.getpid())
        assert 32 < memory._private(process.pid) / memory.MiB < 64
        process.kill()


def test_one_more_clone_costs_what_it_adds() -> None:
    assert memory.table((50.0, 80.0, 110.0))[-1] == "one more clone: 30.0 MiB   (goal 40 MiB: met)"
