"""Ctrl-C while the harness is still loading: a word and 130, wherever it hits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HITS = {
    "a plain function": "raise KeyboardInterrupt",
    "text that is executed, as dataclasses do": "exec('raise KeyboardInterrupt')",
}


@pytest.mark.parametrize("hit", HITS.values(), ids=HITS)
def test_ctrl_c_in_the_first_moments_is_130(tmp_path: Path, hit: str) -> None:
    (tmp_path / "early.py").write_text(
        f"""
import sys, types
from harness.__main__ import main

def interrupted_command():
    {hit}

sys.modules["harness.cli"] = cli = types.ModuleType("harness.cli")
cli.main = interrupted_command
sys.exit(main())
"""
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.run(
        [sys.executable, "-m", "early"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (130, "interrupted\n")
