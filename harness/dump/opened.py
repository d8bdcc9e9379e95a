"""What makedumpfile, which people open dumps with, finds in one: the kernel's log.

In: a dump's file. Out: words for evidence. Rule: a tool's own refusal is the finding.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PANIC = "Kernel panic - not syncing"
WITHIN = 60.0  # seconds


def kernel_log(argv: Sequence[str], dump: Path, log: Path) -> dict[str, Any]:
    """`makedumpfile --dump-dmesg`: how many lines, and those of panics."""
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [*argv, "--dump-dmesg", str(dump), str(log)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WITHIN,
        check=False,
    )
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    if done.returncode or not lines:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-500:]
        return {"lines": 0, "panics": [], "refused": f"makedumpfile --dump-dmesg ended with {done.returncode}: {said}"}
    return {"lines": len(lines), "panics": [line for line in lines if PANIC in line], "refused": None}
