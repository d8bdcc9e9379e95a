"""Testbeds that fail: each with a clear word, the documented exit code and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = {
    "exits at once": (
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'QEMU emulator version 11.1.0'\necho 'no such luck' >&2\nexit 3\n",
        "no such luck",
    ),
    "is no QEMU": ("#!/bin/sh\necho hello\n", "QEMU"),
    "is not executable": (None, ""),
}


def harness(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, env={**os.environ, **environment}, check=False
    )


@pytest.mark.guest
@pytest.mark.parametrize(("script", "word"), SCRIPTS.values(), ids=SCRIPTS.keys())
@pytest.mark.usefixtures("bench")
def test_a_bad_qemu(testcases: Path, tmp_path: Path, script: str | None, word: str) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(script or "not a program")
    qemu.chmod(0o755 if script else 0o644)
    done = harness("run", testcases / "send", "--qemu", qemu, "--accel", "tcg", "--results", tmp_path / "r")
    assert done.returncode == 3, done.stdout + done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


USAGE = {
    "a folder that is not there": (["run", "no/such/folder"], "no such file or folder"),
    "an unknown kernel": (["run", "TESTCASES", "--kernel", "debian-6.11"], "debian-6.12"),
    "a kernel file that is not there": (["run", "TESTCASES", "--kernel", "/no/such/bzImage"], "no such file"),
    "a folder of modules that is not there": (["run", "TESTCASES", "--modules", "/no/such"], "no such folder"),
    "a QEMU that is not there": (["run", "TESTCASES", "--qemu", "/no/such/qemu"], "no such file"),
    "an unknown case": (["explain", "no/such/case", "TESTCASES"], "names 0 cases"),
    "a folder without evidence": (["judge", "/"], "/"),
}


@pytest.mark.parametrize(("arguments", "word"), USAGE.values(), ids=USAGE.keys())
def test_bad_usage_is_2_before_anything_is_started(testcases: Path, arguments: list[str], word: str) -> None:
    done = harness(*(str(testcases) if word == "TESTCASES" else word for word in arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_testcase_is_2_with_its_position(testcases: Path, tmp_path: Path) -> None:
    case = tmp_path / "bad.yaml"
    good = (testcases / "crash" / "panic.yaml").read_text()
    case.write_text(good.replace("nic: [e1000, virtio-net]", "nic: [e1000x]"))
    done = harness("run", case)
    assert done.returncode == 2
    assert f"{case}:" in done.stderr
    assert "did you mean" in done.stderr
    assert "e1000" in done.stderr
