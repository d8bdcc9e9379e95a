"""What became of a case's dumps: read from the server's folder when the machine has stopped, and told as evidence.

In: the folder, the guest's RAM, makedumpfile. Out: one `vmcore` event for each file. Rule: what is found is told, whole or not; nothing is judged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.dump.compare import compare
from harness.dump.opened import kernel_log
from harness.dump.tasks import tasks
from harness.dump.vmcore import BadDump, open_dump
from images import DumpTool

FOLDER = "dump"  # in a case's folder
COMPLETE = "vmcore"
Tell = Callable[..., Any]


def tell_dumps(folder: Path, ram: int, tool: DumpTool, vmlinux: Path | None, tell: Tell) -> None:
    """Every `vmcore*` below `folder`, with what is in it. Takes seconds: for a thread of its own."""
    for path in sorted(folder.glob("*/vmcore*")):
        name = str(path.relative_to(folder))
        whole = path.name == COMPLETE
        tell(file=name, complete=whole, size=path.stat().st_size, **(_found(path, ram, tool, vmlinux) if whole else {}))


def _found(path: Path, ram: int, tool: DumpTool, vmlinux: Path | None) -> dict[str, Any]:
    began = time.monotonic()
    try:
        opened = open_dump(path, tool.lzo)
        compared = compare(opened.pages, ram)
    except (BadDump, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    log = kernel_log(tool.argv(), path, path.with_name("dmesg"))
    listed = tasks(path, vmlinux) if vmlinux is not None else {"absent": "the kernel's file is not known"}
    seconds = round(time.monotonic() - began, 3)
    return {"format": opened.format, **asdict(compared), "log": log, "tasks": listed, "seconds": seconds, "error": None}
